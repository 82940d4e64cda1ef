"""Training steps as programs: compiled, weighed by the compiler, and run."""

import functools
import itertools
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dib_jax.algorithms.ordering import apart
from dib_jax.commands.assemble import assemble
from dib_jax.commands.command_line import override
from dib_jax.commands.config import ConfigDict, complete
from dib_jax.training.compilation import compiler_figures
from dib_jax.training.devices import by_sample, replicated, split_evenly
from dib_jax.training.experiment import Experiment
from dib_jax.training.storage import chain, passed

# Name → factory and its options; cnnDwW has D stages of width W that are all alike.
_NETWORKS: dict[str, dict[str, Any]] = {
    "vgg11": {"name": "vgg", "depth": 11},
    "resnet18": {"name": "resnet", "depth": 18},
    "resnet34": {"name": "resnet", "depth": 34},
    "resnet110": {"name": "resnet", "depth": 110},
    "mlp": {"name": "mlp"},
}
_ALIKE = re.compile(r"cnn([1-9]\d*)w([1-9]\d*)")
# Shape of pictures, classes, and boxes in a picture (None: no boxes).
Pictures = tuple[tuple[int, int, int], int, int | None]


class Step(NamedTuple):
    """What makes an update of one phase of an experiment.

    Attributes:
        experiment: whose it is.
        phase: its number.
        cached: whether what the frozen stages make of the samples is there already.
        updates: that use one output of the frozen stages, all in one program.
    """

    experiment: Experiment
    phase: int
    cached: bool = False
    updates: int = 1


def each_size(
    networks: Sequence[str], batch_sizes: Sequence[int]
) -> list[tuple[str, int]]:
    """Every network with every batch size.

    Raises:
        ValueError: `experiment_of` does not know one of the networks.
    """
    for name in networks:
        if name not in _NETWORKS and not _ALIKE.fullmatch(name):
            raise ValueError(
                f"--networks: got {name!r}; must be some of {', '.join(_NETWORKS)}, "
                "or cnn8w32 for 8 stages of width 32"
            )
    return list(itertools.product(networks, batch_sizes))


def experiment_of(name: str, batch_size: int, fields: Mapping[str, str]) -> Experiment:
    """An experiment on random pictures of 32 × 32 × 3 and ten classes.

    Args:
        name: of the network.
        batch_size: samples of a step.
        fields: text of the fields of the config that differ, by dotted name.
    """
    model = _NETWORKS.get(name)
    if alike := _ALIKE.fullmatch(name):
        depth, width = map(int, alike.groups())
        model = {"name": "cnn", "widths": (width,) * depth, "pools": 0}
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(folder, "pictures", ((32, 32, 3), 10, None), batch_size)
        config = ConfigDict(
            {
                "dataset": {
                    "name": "pictures",
                    "data_dir": folder,
                    "val_fraction": 0.0,
                },
                "model": model,
                "optimizer": {"learning_rate": 0.1, "schedule": "constant"},
                "epochs": 1,
                "batch_size": batch_size,
            }
        )
        return assemble(complete(override(config, fields)))


def write_pictures(folder: str, name: str, pictures: Pictures, count: int) -> None:
    """Random pictures as the training and the test split of a data set.

    Args:
        folder: of data sets.
        name: of this one.
        pictures: what they are like.
        count: how many in each split.
    """
    shape, classes, boxes = pictures
    labels = np.arange(count, dtype=np.int32) % classes
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, *shape), np.uint8)
    arrays: dict[str, Any] = {"images": images, "labels": labels}
    box = np.array([2, 3, 20, 25], np.float32)
    if boxes == 1:
        arrays["boxes"] = np.tile(box, (count, 1))
    elif boxes:
        arrays["boxes"] = np.tile(box, (count, boxes, 1))
        arrays["box_labels"] = np.stack([labels] * boxes, axis=1)
    place = pathlib.Path(folder, name)
    place.mkdir()
    for split in ("train", "test"):
        np.savez(place / f"{split}.npz", **arrays)


def steps_of(experiment: Experiment, *, updates: int = 1) -> list[Step]:
    """The training steps of an experiment, one for each phase.

    Args:
        experiment: the experiment; samples of a batch suffice.
        updates: that use one output of the frozen parts.
    """
    cache = experiment.cache
    cached = cache.place != "none" and (not experiment.augment or cache.copies > 0)
    phases = range(len(experiment.phases))
    return [Step(experiment, phase, cached, updates) for phase in phases]


def compile_step(
    step: Step, seen: dict[str, Any], *, repeat: int = 0
) -> tuple[Any, dict[str, Any]]:
    """The compiled step and the compiler's figures; equal programs only once.

    Args:
        step: the step.
        seen: programs that were compiled before; this one is added.
        repeat: as for `lower_step`.
    """
    lowered = lower_step(step, repeat=repeat)
    text = lowered.as_text()
    if text not in seen:
        compiled = lowered.compile()
        seen[text] = compiled, compiler_figures(compiled)
    return seen[text]


def lower_step(step: Step, *, repeat: int = 0) -> jax.stages.Lowered:
    """A step as a program, for the devices of its experiment, which need not be there.

    Args:
        step: the step.
        repeat: so many steps in one program, on the same batch; 0 for a plain step.
    """

    def several(state: Any, *fixed: Any) -> Any:
        def body(state: Any, _: None) -> Any:
            return _updated(step, state, *fixed)

        return jax.lax.scan(body, state, length=repeat)

    mesh = step.experiment.mesh
    whole, split = replicated(mesh), by_sample(mesh, step.experiment.batch_size)
    return jax.jit(
        several if repeat else functools.partial(_updated, step),
        in_shardings=(whole, whole, split, split, whole, whole),
        out_shardings=whole,
        donate_argnums=0,
    ).lower(*_arguments(step, jax.eval_shape))


def run_steps(programs: Sequence[Any], steps: Sequence[Step]) -> Callable[[], None]:
    """A function that runs each compiled step once, on arrays on the device."""
    # A program that stages share takes the arguments of the first of them: what later
    # ones get besides, networks with more frozen stages, it does not read.
    first: dict[int, Step] = {}
    now = [
        list(
            _arguments(
                first.setdefault(id(program), step),
                lambda build, *given: jax.jit(build)(*given),
            )
        )
        for program, step in zip(programs, steps, strict=True)
    ]

    def run() -> None:
        for program, arguments in zip(programs, now, strict=True):
            arguments[0], _ = program(*arguments)
        jax.block_until_ready([arguments[0] for arguments in now])

    return run


def _arguments(step: Step, make: Callable[..., Any]) -> tuple[Any, ...]:
    """State, network, samples, frozen output, key and count of updates.

    `make` builds arrays, or only their shapes.
    """
    experiment = step.experiment
    functions = chain(experiment, step.phase)

    def build(key: Any, samples: Any, made: Any) -> tuple[Any, ...]:
        network, batch = experiment.algorithm.network, experiment.data(samples).batch()
        for before in experiment.phases[: step.phase]:
            # Of what is frozen only shapes matter: initial weights do.
            network = before.read(before.init(key, network, batch), network)
        state = experiment.phases[step.phase].init(key, network, batch)
        given = None
        if step.cached and functions:
            given = passed(functions, network, batch).given
        return state, network, samples, given, key, made

    train = experiment.dataset.train
    samples = {name: array[: experiment.batch_size] for name, array in train.items()}
    return make(build, experiment.key, samples, np.int32(0))


def _updated(step: Step, state: Any, *fixed: Any) -> tuple[Any, Any]:
    """As `dib_jax.training.compilation.one_step`, or several on one frozen output."""
    experiment, functions = step.experiment, chain(step.experiment, step.phase)
    network, samples, given, key, made = fixed
    samples, given = split_evenly(experiment.mesh, (samples, given))
    terms = None
    for number in range(step.updates):
        now = made + number
        augment_key, step_key = jax.random.split(jax.random.fold_in(key, now))
        # Without frozen parts nothing is saved by the samples' being the same.
        if number == 0 or not functions:
            taken = samples
            if experiment.augment and given is None:
                taken = apart(experiment.augment, augment_key, samples, now)
            batch = experiment.data(taken).batch()._replace(given=given)
            if given is None:
                batch = passed(functions, network, batch)
        phase = experiment.phases[step.phase]
        state, terms = phase.step(state, network, batch, step_key)
    # By no names: those of a phase would tell equal programs apart.
    return state, jax.tree.leaves(terms)
