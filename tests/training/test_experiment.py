import pathlib

import numpy as np
import pytest

from dib_jax.tasks.classification import classification
from dib_jax.training.config import complete
from dib_jax.training.experiment import assemble
from experiments.command_line import load_config

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits_cnn.py"


def boxed(*, num_classes: int):
    """A task that uses boxes."""
    return classification(num_classes=num_classes)._replace(uses_boxes=True)


@pytest.fixture
def data_dir(tmp_path):
    """Forty training pictures, of which rows 3 and 7 have a box without area."""
    (tmp_path / "signs").mkdir()
    for split, count in (("train", 40), ("test", 6)):
        boxes = np.tile(np.float32([1, 1, 5, 5]), (count, 1))
        boxes[[3, 7] if split == "train" else []] = [4, 1, 4, 5]
        np.savez(
            tmp_path / "signs" / f"{split}.npz",
            images=np.zeros((count, 8, 8, 1), np.uint8),
            labels=np.arange(count) % 2,
            boxes=boxes,
        )
    return tmp_path


def experiment(data_dir, task, **fields):
    config = load_config(f"{CONFIG}:quick").config
    config.dataset.update(name="signs", data_dir=str(data_dir), val_fraction=0.0)
    config.dataset.update(fields)
    config.task = {"name": task}
    config.batch_size = 8
    return assemble(complete(config))


def test_boxes_are_checked_only_where_the_task_uses_them(data_dir):
    dataset = experiment(data_dir, "classification").dataset
    assert len(dataset.train["labels"]) == 40
    with pytest.raises(ValueError, match="row 3 holds .* 2 bad row") as error:
        experiment(data_dir, f"{__name__}:boxed")
    assert str(data_dir / "signs" / "train.npz") in str(error.value)


def test_rows_with_bad_boxes_are_left_out_on_demand_and_counted(data_dir):
    made = experiment(data_dir, f"{__name__}:boxed", skip_bad_boxes=True)
    assert made.task.uses_boxes
    assert len(made.dataset.train["labels"]) == 38
    assert made.dataset.skipped == 2
    assert "bad boxes left out: train 2" in made.dataset.description
