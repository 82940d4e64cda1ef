"""Where a run stands: written as checkpoints, and found again."""

import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dib_jax import checkpoints
from dib_jax.training.devices import (
    arrays_from_first,
    from_first,
    is_first,
    together,
)
from dib_jax.training.evaluation import Network
from dib_jax.training.experiment import Experiment
from dib_jax.training.progress import Progress
from dib_jax.training.steps import (
    Block,
    StageState,
    frozen,
    initial_states,
)
from dib_jax.training.workdir import (
    finished,
)


class Training(NamedTuple):
    """The blocks of a phase in training.

    Attributes:
        states: of each block after the last epoch.
        best: their stages and heads of the best epoch on the validation split.
    """

    states: tuple[StageState, ...]
    best: Network


class Position(NamedTuple):
    """Where a run stands; plain JSON.

    Attributes:
        phase: number of the phase that trains.
        epoch: epochs of it that are done.
        best_epoch: the best of them on the validation split, or the last.
        validation: each block's metrics of that epoch; empty without such a split.
        seconds: that this phase has trained, compilation included.
        compile_seconds: that the whole run has spent on compilation.
        metrics_bytes: length of metrics.jsonl.
        stages: entries of results.json for the trained blocks.
    """

    phase: int = 0
    epoch: int = 0
    best_epoch: int = 0
    validation: tuple[dict[str, float], ...] = ()
    seconds: float = 0.0
    compile_seconds: float = 0.0
    metrics_bytes: int = 0
    stages: tuple[dict[str, Any], ...] = ()


def save_position(
    workdir: pathlib.Path,
    experiment: Experiment,
    position: Position,
    network: Network,
    training: Training | None,
) -> None:
    """Write a checkpoint of where the run stands; the first process alone does.

    Args:
        workdir: the run's folder.
        experiment: the experiment.
        position: the place that it is of.
        network: what is trained before this phase.
        training: of the phase in training; None at its end.
    """
    if not is_first():
        return
    done = sum(experiment.epochs[: position.phase]) + position.epoch
    tree = {"network": network, "training": training}
    checkpoints.save(workdir / "checkpoints", done, tree, position._asdict())


def resume(
    workdir: pathlib.Path, experiment: Experiment, progress: Progress
) -> tuple[Position, Network, Training | None]:
    """Position, network and phase in training of the newest sound checkpoint."""
    newest = from_first(lambda: _newest(workdir, progress))
    if newest is None:
        position, network, training = Position(), Network((), ()), None
    else:
        path, metadata = newest
        lists = {name: tuple(metadata[name]) for name in ("validation", "stages")}
        position = Position(**{**metadata, **lists})
        target = jax.eval_shape(functools.partial(_structure, experiment, position))
        tree = together(
            lambda: checkpoints.restore(path, target) if is_first() else target
        )
        tree = arrays_from_first(tree, experiment.mesh)
        network, training = tree["network"], tree["training"]
        done = sum(experiment.epochs[: position.phase]) + position.epoch
        progress.epochs_done(done)
        if is_first() and not finished(workdir):
            progress.say(
                f"going on after epoch {done} of {sum(experiment.epochs)}, from {path}"
            )
    if is_first():
        _cut(workdir / "metrics.jsonl", position.metrics_bytes)
    return position, network, training


def _newest(workdir: pathlib.Path, progress: Progress) -> tuple[str, Any] | None:
    found = checkpoints.newest_sound(workdir / "checkpoints", report=progress.say)
    return found and (str(found[0]), found[1])


def _structure(experiment: Experiment, position: Position) -> dict[str, Any]:
    """A tree like the one that `_save` wrote at a position."""
    images = jnp.zeros((2, *experiment.inputs.shape), jnp.uint8)
    trained = [
        initial_training(experiment, blocks, images)
        for blocks in experiment.phases[: position.phase + (position.epoch > 0)]
    ]
    training = trained.pop() if position.epoch else None
    network = Network(
        tuple(stage for entry in trained for stage in entry.best.stages),
        tuple(head for entry in trained for head in entry.best.heads),
    )
    return {"network": network, "training": training}


def _cut(path: pathlib.Path, size: int) -> None:
    """Drop the lines of epochs that are not in the checkpoint: they are made again."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def block_keys(experiment: Experiment, block: Block) -> tuple[jax.Array, jax.Array]:
    """PRNG keys of a block: of its initial parameters, and of its training."""
    init_key, train_key = jax.random.split(
        jax.random.fold_in(experiment.key, block.stage)
    )
    return init_key, train_key


def initial_training(
    experiment: Experiment, blocks: tuple[Block, ...], images: Any
) -> Training:
    """Blocks of a phase before their first step; of the images the shape counts."""
    keys = [block_keys(experiment, block)[0] for block in blocks]
    states = jax.jit(functools.partial(initial_states, blocks))(keys, images[:2])
    return Training(states, copied(network_of(states)))


def network_of(states: tuple[StageState, ...]) -> Network:
    """The stages and heads of blocks, as what is applied and never updated."""
    parts = [frozen(state) for state in states]
    return Network(
        tuple(stage for stages, _ in parts for stage in stages),
        tuple(head for _, head in parts),
    )


def copied(tree: Any) -> Any:
    """A tree of arrays in buffers of their own."""
    return jax.tree.map(jnp.copy, tree)
