"""Every config of configs/, as far as one can see without training it."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from dib_jax.commands import compare
from dib_jax.commands.assemble import assemble
from dib_jax.commands.command_line import load_config, override
from dib_jax.commands.config import complete

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
    "cascade.py",
    "cascade.py:quick",
    "digits.py",
    "digits.py:quick",
    "digits.py:search",
    "entropy.py:digits",
    "entropy.py:fashion_mnist",
    "entropy.py:cifar10",
    "entropy.py:cifar10_full",
    "feedback.py:mnist",
    "feedback.py:fashion_mnist",
    "feedback.py:cifar10",
    "feedback.py:resnet",
    "fashion_mnist.py",
    "fashion_mnist.py:search",
    "fast.py",
    "fast.py:half",
    "cifar10.py",
    "cifar10.py:search",
    "cifar10.py:rates",
    "cifar10.py:full",
    "copies.py",
    "graphs.py",
    "graphs.py:quick",
    "graphs.py:labels",
    "greedy.py",
    "greedy.py:long",
    "methods.py",
    "robustness.py",
    "robustness.py:cifar10_250",
    "robustness.py:quick",
    "information.py:fashion_mnist",
    "information.py:cifar10",
    "information.py:quick",
    "information_plane.py",
    "information_plane.py:seeds",
    "information_plane.py:heads",
    "information_plane.py:cifar100",
    "information_plane.py:fashion_mnist",
    "information_plane.py:forms",
    "information_plane.py:quick",
    "penalty.py:digits",
    "penalty.py:fashion_mnist",
    "traffic_signs.py:gtsrb_cnn",
    "traffic_signs.py:gtsrb_fast",
    "traffic_signs.py:gtsrb_fast_half",
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
GRAPHS = ("cora", "cora_full", "facebook_pages")
# Some of them change their class when mirrored.
SIGNS = {"gtsrb", "roadsign"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Data sets of the configs' names and shapes with a few random pictures."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    count = 40
    box = np.tile(np.float32([2, 3, 20, 25]), (count, 1))
    several = {
        "boxes": np.stack([box, np.full_like(box, -1)], axis=1),
        "box_labels": np.stack([np.arange(count) % 10, np.full(count, -1)], axis=1),
    }
    for name, shape in SHAPES.items():
        (folder / name).mkdir()
        boxes = several if name == "roadsign" else {"boxes": box}
        for split in ("train", "test"):
            np.savez(
                folder / name / f"{split}.npz",
                images=generator.integers(0, 256, (count, *shape), np.uint8),
                labels=np.arange(count) % 10,
                **boxes,
            )
    for name in GRAPHS:
        (folder / name).mkdir()
        rows = np.arange(3 * count)
        np.savez(
            folder / name / "graph.npz",
            edges=generator.integers(0, 3 * count, (200, 2)),
            features=generator.normal(size=(3 * count, 9)),
            labels=rows % 7,
            **dict(zip(("train", "val", "test"), np.split(rows, 3), strict=True)),
        )
    return folder


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_phase_of_every_config_can_take_a_step(path, data_dir):
    """Shapes and types fit together from the samples to each phase's next state."""
    config = load_config(str(path)).config
    if config.model.get("depth") == 32:
        config.model.depth = 14  # the same kinds of blocks, fewer of each
    # On graphs a step needs what `enter` makes of concrete samples; see
    # tests/algorithms/test_graph_algorithms.py.
    trace(config, data_dir, steps=config.dataset.name not in GRAPHS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_short_run_can_take_a_step_in_bfloat16(path, data_dir):
    """But for graphs, which refuse it."""
    config = load_config(f"{path}:quick").config
    pictures = config.dataset.name not in GRAPHS
    if pictures:
        config.precision.compute = "bfloat16"
    trace(config, data_dir, steps=pictures)


def trace(config, data_dir, *, steps=True):
    """Trace every phase, with a step or without; nothing is compiled."""
    config.dataset.data_dir = str(data_dir)
    config.batch_size, config.dataset.samples = 16, 0  # the sets here are small
    experiment = assemble(complete(config))
    algorithm, task = experiment.algorithm, experiment.task
    samples = {
        name: jax.ShapeDtypeStruct((16, *array.shape[1:]), array.dtype)
        for name, array in experiment.dataset.train.items()
    }

    def phases(samples):
        data = experiment.data(samples)
        batch = data.prepare(data.samples, data.common)
        network, key = algorithm.network, jax.random.key(0)
        for phase in algorithm.phases:
            if phase.given is not None:
                batch = batch._replace(given=phase.given(network, batch))
            state = phase.init(key, network, batch)
            if steps:
                new, terms = phase.step(state, network, batch, key)
                assert shapes(new) == shapes(state)
                assert set(terms) == set(phase.exits)
                assert {leaf.shape for leaf in jax.tree.leaves(terms)} == {()}
            network = phase.read(state, network)
        outputs = algorithm.predict(network, batch._replace(given=None))
        targets = task.targets(samples)
        return [task.metrics(output, targets)[task.metric] for output in outputs]

    metrics = jax.eval_shape(phases, samples)
    predicting = [phase for phase in algorithm.phases if phase.predicts]
    assert len(metrics) == sum(len(phase.exits) for phase in predicting)
    assert {metric.shape for metric in metrics} == {()}


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("variant", ["", ":quick"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_traffic_sign_is_mirrored(path, variant):
    dataset = load_config(f"{path}{variant}").config.dataset
    if dataset.name in SIGNS:
        assert dataset.augment
        assert "flip" not in dataset.augment


@pytest.mark.parametrize("variant", ["", ":quick"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_complete_and_its_file_names_its_command(path, variant):
    config = load_config(f"{path}{variant}").config
    assert config.to_dict() == complete(config).to_dict()
    assert f"--config=configs/{path.name}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem
)
def test_an_unknown_variant_is_refused(path):
    with pytest.raises(ValueError, match="no variants|unknown variant 'no_such'"):
        load_config(f"{path}:no_such")


def test_the_deep_network_has_no_norms():
    deep = load_config(str(FOLDER / "mnist_hsic.py:deep")).config
    assert len(deep.model.widths) == 25
    assert not deep.model.batch_norm
    assert deep.objective.relative


def test_every_comparison_is_listed():
    named = {name.partition(":")[0] for name in COMPARISONS}
    assert named == {path.name for path in (FOLDER / "compare").glob("*.py")}


@functools.cache
def accepted(base, overrides):
    """A config with overrides, which many comparisons share; accepted but once."""
    return complete(override(loaded(base), dict(overrides)))


@functools.cache
def loaded(base):
    return load_config(base).config


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_run_of_every_comparison_is_accepted(name, tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    plan = compare.read_plan(load_config(f"configs/compare/{name}").config.to_dict())
    runs = compare.planned(plan, tmp_path, data_dir="")
    assert len(runs) == len(plan.methods) * len(plan.datasets)
    for run, *_ in runs.values():
        tried = compare.trials(plan, run, tmp_path) if plan.search else []
        for one in (run, *tried):
            # The seed is checked with the first run, and is no part of the rest.
            overrides = {**one.overrides, "seed": "0"}
            accepted(plan.base, tuple(sorted(overrides.items())))


def test_every_method_can_take_a_step_on_pictures_of_three_channels(
    data_dir, monkeypatch
):
    monkeypatch.chdir(FOLDER.parent)
    given = load_config("configs/compare/cifar10.py").config.to_dict()
    plan = compare.read_plan(given)
    for run, *_ in compare.planned(plan, data_dir, data_dir=str(data_dir)).values():
        config = override(load_config(plan.base).config, run.overrides)
        config.dataset.samples = 0
        trace(config, data_dir)
