"""Every config of configs/, as far as one can see without training it."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from dib_jax.training.config import complete
from dib_jax.training.experiment import assemble
from dib_jax.training.steps import frozen, initial_state, predict, train_step
from experiments.command_line import load_config

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}


@pytest.fixture
def data_dir(tmp_path):
    """Data sets of the configs' names and shapes with a few random pictures."""
    generator = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            np.savez(
                tmp_path / name / f"{split}.npz",
                images=generator.integers(0, 256, (400, *shape), np.uint8),
                labels=np.arange(400) % 10,
            )
    return tmp_path


@pytest.mark.parametrize("variant", ["", ":quick"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_block_of_every_config_can_take_a_step(path, variant, data_dir):
    """Shapes and types fit together from the pictures to each block's next state."""
    config = load_config(f"{path}{variant}").config
    config.dataset.data_dir = str(data_dir)
    experiment = assemble(complete(config))
    images = jax.ShapeDtypeStruct(
        (128, *SHAPES.get(config.dataset.name, (8, 8, 1))), "uint8"
    )
    batch = {"images": images, "labels": jax.ShapeDtypeStruct((128,), "int32")}
    trunk = ()
    for block in experiment.blocks:
        state = jax.eval_shape(
            functools.partial(initial_state, block), jax.random.key(0), images
        )
        (new,), (terms,) = jax.eval_shape(
            functools.partial(train_step, (block,), keys=(jax.random.key(0),)),
            (state,), trunk, batch,
        )  # fmt: skip
        assert new == state
        assert all(term.shape == () for term in terms.values())
        stages, head = frozen(state)
        (outputs,) = jax.eval_shape(
            functools.partial(predict, (block,), batch_size=100),
            trunk,
            stages,
            (head,),
            images,
        )
        assert outputs.shape == (128, 10)
        trunk += stages


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_file_of_a_config_shows_every_field_and_its_command(path):
    written = load_config(str(path)).config
    assert sorted(written) == sorted(complete(written))
    for section, options in complete(written).items():
        if hasattr(options, "keys"):
            assert sorted(written[section]) == sorted(options), section
    assert f"--config=configs/{path.name}" in path.read_text(encoding="utf-8")
