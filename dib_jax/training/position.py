"""Where a run stands: written as checkpoints, and found again."""

import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dib_jax import checkpoints
from dib_jax.algorithms import Batch, Network, Phase, State
from dib_jax.training.devices import arrays_from_first, from_first, is_first, together
from dib_jax.training.experiment import Experiment
from dib_jax.training.progress import Progress
from dib_jax.training.workdir import finished


class Training(NamedTuple):
    """A phase in training.

    Attributes:
        state: of the phase after the last epoch.
        best: what it had learnt after the best epoch on the validation split, as
            `learnt` lists it.
    """

    state: State
    best: list[jax.Array]


class Position(NamedTuple):
    """Where a run stands; plain JSON.

    Attributes:
        phase: number of the phase that trains.
        epoch: epochs of it that are done.
        best_epoch: the best of them on the validation split, or the last.
        validation: each exit's metrics of that epoch; empty without such a split.
        seconds: that this phase has trained, compilation included.
        compile_seconds: that the whole run has spent on compilation.
        metrics_bytes: length of metrics.jsonl.
        entries: of results.json, for the trained exits.
    """

    phase: int = 0
    epoch: int = 0
    best_epoch: int = 0
    validation: tuple[dict[str, float], ...] = ()
    seconds: float = 0.0
    compile_seconds: float = 0.0
    metrics_bytes: int = 0
    entries: tuple[dict[str, Any], ...] = ()


def learnt(phase: Phase, state: State, network: Network) -> list[jax.Array]:
    """The arrays of a network that a phase has brought into it.

    Args:
        phase: the phase.
        state: its state.
        network: what is trained before.
    """
    before = {id(leaf) for leaf in jax.tree.leaves(network)}
    whole = jax.tree.leaves(phase.read(state, network))
    return [leaf for leaf in whole if id(leaf) not in before]


def with_learnt(
    phase: Phase, state: State, network: Network, arrays: list[Any]
) -> Network:
    """The network after a phase, with arrays as `learnt` lists them.

    Args:
        phase: the phase.
        state: of the phase, for its structure.
        network: what is trained before.
        arrays: of the best epoch, say.
    """
    before = {id(leaf) for leaf in jax.tree.leaves(network)}
    leaves, tree = jax.tree.flatten(phase.read(state, network))
    new = iter(arrays)
    return jax.tree.unflatten(
        tree, [leaf if id(leaf) in before else next(new) for leaf in leaves]
    )


def initial_state(experiment: Experiment, phase: Phase, network: Network) -> State:
    """The state of a phase before its first step.

    Args:
        experiment: the experiment.
        phase: one of its phases.
        network: what is trained before.
    """
    return jax.jit(phase.init)(experiment.key, network, experiment.example())


def begin(experiment: Experiment, phase: Phase, network: Network) -> Training:
    """A phase before its first step.

    Args:
        experiment: the experiment.
        phase: one of its phases.
        network: what is trained before.
    """
    state = initial_state(experiment, phase, network)
    return Training(state, copied(learnt(phase, state, network)))


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
    """Position, network and phase in training of the newest sound checkpoint.

    Args:
        workdir: the run's folder.
        experiment: the experiment.
        progress: told from which checkpoint the run goes on.
    """
    newest = from_first(lambda: _newest(workdir, progress))
    if newest is None:
        position, network, training = Position(), experiment.algorithm.network, None
    else:
        path, metadata = newest
        lists = {name: tuple(metadata[name]) for name in ("validation", "entries")}
        position = Position(**{**metadata, **lists})
        target = jax.eval_shape(
            functools.partial(_structure, experiment, position),
            experiment.key,
            experiment.example(),
        )
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


def _structure(
    experiment: Experiment, position: Position, key: jax.Array, example: Batch
) -> dict[str, Any]:
    """A tree like the one that `save_position` wrote at a position."""
    network = experiment.algorithm.network
    for phase in experiment.phases[: position.phase]:
        network = phase.read(phase.init(key, network, example), network)
    if not position.epoch:
        return {"network": network, "training": None}
    phase = experiment.phases[position.phase]
    # Copied, as a compiled `init` does: what a state has of the network is learnt, too.
    state = copied(phase.init(key, network, example))
    return {
        "network": network,
        "training": Training(state, learnt(phase, state, network)),
    }


def _cut(path: pathlib.Path, size: int) -> None:
    """Drop the lines of epochs that are not in the checkpoint: they are made again."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def copied(tree: State) -> State:
    """A tree of arrays in buffers of their own."""
    return jax.tree.map(jnp.copy, tree)
