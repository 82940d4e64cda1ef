"""Every config of configs/, as far as one can see without training it."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from dib_jax.training.config import complete
from dib_jax.training.experiment import assemble
from dib_jax.training.steps import frozen, initial_state, predict, train_step
from experiments import compare
from experiments.command_line import load_config, override

pytestmark = pytest.mark.once

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
CONFIGS = sorted(FOLDER.glob("*.py"))
COMPARISONS = [
    "beta.py:digits",
    "beta.py:cifar10",
    "beta.py:few",
    "beta.py:scale",
    "beta.py:joint",
    "beta.py:quick",
    "digits.py",
    "digits.py:quick",
    "digits.py:search",
    "entropy.py:digits",
    "entropy.py:fashion_mnist",
    "entropy.py:cifar10",
    "entropy.py:cifar10_full",
    "fashion_mnist.py",
    "fashion_mnist.py:search",
    "cifar10.py",
    "cifar10.py:search",
    "cifar10.py:rates",
    "cifar10.py:full",
    "copies.py",
    "greedy.py",
    "greedy.py:long",
    "methods.py",
    "information.py:fashion_mnist",
    "information.py:cifar10",
    "information.py:quick",
    "penalty.py:digits",
    "penalty.py:fashion_mnist",
    "traffic_signs.py:gtsrb_cnn",
    "traffic_signs.py:gtsrb_detection",
    "traffic_signs.py:roadsign_detection",
]
SHAPES = {
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
    "gtsrb": (32, 32, 3),
    "roadsign": (64, 64, 3),
}
# Some of them change their class when mirrored.
SIGNS = {"gtsrb", "roadsign"}


@pytest.fixture
def data_dir(tmp_path):
    """Data sets of the configs' names and shapes with a few random pictures."""
    generator = np.random.default_rng(0)
    box = np.tile(np.float32([2, 3, 20, 25]), (400, 1))
    several = {
        "boxes": np.stack([box, np.full_like(box, -1)], axis=1),
        "box_labels": np.stack([np.arange(400) % 10, np.full(400, -1)], axis=1),
    }
    for name, shape in SHAPES.items():
        (tmp_path / name).mkdir()
        boxes = several if name == "roadsign" else {"boxes": box}
        for split in ("train", "test"):
            np.savez(
                tmp_path / name / f"{split}.npz",
                images=generator.integers(0, 256, (400, *shape), np.uint8),
                labels=np.arange(400) % 10,
                **boxes,
            )
    return tmp_path


@pytest.mark.parametrize("variant", ["", ":quick"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_block_of_every_config_can_take_a_step(path, variant, data_dir):
    """Shapes and types fit together from the pictures to each block's next state."""
    config = load_config(f"{path}{variant}").config
    config.dataset.data_dir = str(data_dir)
    config.batch_size = min(config.batch_size, 256)  # the sets here are small
    take_steps(config)


def take_steps(config):
    experiment = assemble(complete(config))
    images = jax.ShapeDtypeStruct(
        (128, *SHAPES.get(config.dataset.name, (8, 8, 1))), "uint8"
    )
    batch = {
        name: jax.ShapeDtypeStruct((128, *array.shape[1:]), array.dtype)
        for name, array in experiment.dataset.train.items()
    }
    blocks = experiment.blocks
    states = [
        jax.eval_shape(
            functools.partial(initial_state, block), jax.random.key(0), images
        )
        for block in blocks
    ]
    stages, heads = zip(*(frozen(state) for state in states), strict=True)
    for index, (block, state) in enumerate(zip(blocks, states, strict=True)):
        (new,), (terms,) = jax.eval_shape(
            functools.partial(train_step, (block,), keys=(jax.random.key(0),)),
            (state,), sum(stages[:index], ()), batch,
        )  # fmt: skip
        assert new == state
        assert all(leaf.shape == () for leaf in jax.tree.leaves(terms))
    outputs = jax.eval_shape(
        functools.partial(predict, blocks, batch_size=100),
        (),
        sum(stages, ()),
        heads,
        images,
    )
    assert len(outputs) == len(blocks)
    for block, own in zip(blocks, outputs, strict=True):
        metrics = jax.eval_shape(
            block.task.metrics, own, jax.eval_shape(block.task.targets, batch)
        )
        assert metrics[block.task.metric].shape == ()


@pytest.mark.parametrize("variant", ["", ":quick"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_traffic_sign_is_mirrored(path, variant):
    dataset = load_config(f"{path}{variant}").config.dataset
    if dataset.name in SIGNS:
        assert dataset.augment
        assert "flip" not in dataset.augment


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_file_of_a_config_shows_every_field_and_its_command(path):
    written = load_config(str(path)).config
    assert sorted(written) == sorted(complete(written))
    for section, options in complete(written).items():
        if hasattr(options, "keys"):
            assert sorted(written[section]) == sorted(options), section
    assert f"--config=configs/{path.name}" in path.read_text(encoding="utf-8")


def test_the_deep_network_has_no_norms():
    deep = complete(load_config(str(FOLDER / "mnist_hsic.py:deep")).config)
    assert len(deep.model.widths) == 25
    assert not deep.model.batch_norm
    assert deep.objective.relative


def test_every_comparison_is_listed():
    named = {name.partition(":")[0] for name in COMPARISONS}
    assert named == {path.name for path in (FOLDER / "compare").glob("*.py")}


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_run_of_every_comparison_is_accepted(name, tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    plan = compare.read_plan(load_config(f"configs/compare/{name}").config.to_dict())
    runs = compare.planned(plan, tmp_path, data_dir="")
    assert len(runs) == len(plan.methods) * len(plan.datasets)
    base = load_config(plan.base).config
    for run, *_ in runs.values():
        tried = compare.trials(plan, run, tmp_path) if plan.search else []
        for one in (run, *tried):
            complete(override(base, one.overrides))


def test_every_method_can_take_a_step_on_pictures_of_three_channels(
    data_dir, monkeypatch
):
    monkeypatch.chdir(FOLDER.parent)
    given = load_config("configs/compare/cifar10.py").config.to_dict()
    plan = compare.read_plan(given)
    for run, *_ in compare.planned(plan, data_dir, data_dir=str(data_dir)).values():
        config = override(load_config(plan.base).config, run.overrides)
        config.dataset.samples = 300
        take_steps(config)
