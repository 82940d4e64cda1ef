"""Where a run stands: written as checkpoints, and found again."""

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dib_jax import checkpoints
from dib_jax.algorithms import Batch, Network, Phase, State
from dib_jax.training import digests
from dib_jax.training.devices import arrays_from_first, from_first, is_first, together
from dib_jax.training.experiment import Experiment
from dib_jax.training.progress import Progress
from dib_jax.training.records import LABEL
from dib_jax.training.workdir import RECORD, finished, numerics


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
        digests: of the files that the run has written so far, see `digests`.
        jax: settings of JAX that the numbers depend on; empty in older checkpoints.
    """

    phase: int = 0
    epoch: int = 0
    best_epoch: int = 0
    validation: tuple[dict[str, float], ...] = ()
    seconds: float = 0.0
    compile_seconds: float = 0.0
    metrics_bytes: int = 0
    entries: tuple[dict[str, Any], ...] = ()
    digests: dict[str, str] = {}  # noqa: RUF012 - never changed in place
    jax: dict[str, Any] = {}  # noqa: RUF012


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
    metadata = {**position._asdict(), "jax": numerics()}
    checkpoints.save(workdir / "checkpoints", done, tree, metadata)


def resume(
    workdir: pathlib.Path,
    experiment: Experiment,
    progress: Progress,
    *,
    goes_on: bool = True,
) -> tuple[Position, Network, Training | None]:
    """Position, network and phase in training of the newest sound checkpoint.

    Args:
        workdir: the run's folder.
        experiment: the experiment.
        progress: told from which checkpoint the run goes on.
        goes_on: whether it is to be trained: then the files that it has written so far
            must be sound, too.

    Raises:
        ValueError: JAX is set to other numbers now than when the run was started.
        dib_jax.checkpoints.CheckpointError: there are checkpoints, but no sound one.
    """
    newest = from_first(lambda: _newest(workdir, progress, goes_on))
    if newest is None:
        position, network, training = Position(), experiment.algorithm.network, None
    else:
        path, metadata = newest
        lists = {name: tuple(metadata[name]) for name in ("validation", "entries")}
        position = Position(**{**metadata, **lists})
        if goes_on:
            _check_numerics(position.jax)
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
    if goes_on and is_first():
        _cut(workdir / RECORD, position.metrics_bytes)
    return position, network, training


def _newest(
    workdir: pathlib.Path, progress: Progress, goes_on: bool
) -> tuple[str, Any] | None:
    """Path and metadata of the newest checkpoint that can be used."""

    def wrong(metadata: dict[str, Any], *, may_miss: bool = False) -> str:
        """What keeps a run from going on at a checkpoint that is sound."""
        sizes = {RECORD: metadata["metrics_bytes"]}
        known = metadata.get("digests", {})
        bad = digests.damaged(workdir, known, sizes)
        if may_miss:
            bad = {name: how for name, how in bad.items() if (workdir / name).exists()}
        return "; ".join(f"{workdir / name} {how}" for name, how in bad.items())

    folder = workdir / "checkpoints"
    newest = functools.partial(checkpoints.newest_sound, folder)
    try:
        refuse = wrong if goes_on else (lambda metadata: "")
        found = newest(report=progress.say, refuse=refuse)
    except checkpoints.CheckpointError:
        if not goes_on:
            raise
        # What is damaged or gone is said by now; for what is gone no run need be lost.
        may_miss = functools.partial(wrong, may_miss=True)
        found = newest(report=lambda line: None, refuse=may_miss)
        progress.say("the run goes on without what is missing")
    return found and (str(found[0]), found[1])


def _check_numerics(saved: dict[str, Any]) -> None:
    """Refuse to go on where JAX would give other numbers."""
    for name, now in numerics().items():
        if saved and saved.get(name) != now:
            raise ValueError(
                f"jax_{name} is {now!r} now and was {saved.get(name)!r} when the run "
                f"was started: set JAX_{name.upper()} as it was, or choose another "
                "--workdir"
            )


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


def after_phase(
    position: Position,
    phase: Phase,
    seconds: float,
    notices: Mapping[int, Mapping[str, str]],
    figures: Mapping[str, int | None],
) -> Position:
    """The position after a phase, with its exits' entries of results.json.

    Args:
        position: after the last epoch of the phase.
        phase: it.
        seconds: that it has trained.
        notices: of each exit in that epoch.
        figures: of the compiler, for one step.
    """
    validation = position.validation or ({},) * len(phase.exits)
    entries = [
        {
            LABEL: number,
            "phase": position.phase,
            "validation": values,
            "seconds": round(seconds, 3),
            "epochs": phase.epochs,
            "best_epoch": position.best_epoch,
            **dict.fromkeys(notices[number], True),
            **figures,
        }
        for number, values in zip(phase.exits, validation, strict=True)
    ]
    return Position(
        phase=position.phase + 1,
        compile_seconds=position.compile_seconds,
        metrics_bytes=position.metrics_bytes,
        entries=(*position.entries, *entries),
        digests=position.digests,
    )
