"""A run: the phases of an algorithm in their order, always resumable.

Read from top to bottom, this is what happens in a run. A step is `compilation.one_step`
and the phase's own `step`.
"""

import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np
import threadpoolctl

from dib_jax import checkpoints
from dib_jax.algorithms import Data, Phase
from dib_jax.training.compilation import Epoch, compile_epoch, keys_of
from dib_jax.training.devices import from_first, is_first, put, replicated, together
from dib_jax.training.evaluation import (
    Outputs,
    evaluate,
    phase_outputs,
    place,
    predictor,
    validate,
)
from dib_jax.training.experiment import Experiment, check
from dib_jax.training.observers import Observer, Show, showing
from dib_jax.training.position import (
    Position,
    Training,
    begin,
    copied,
    learnt,
    resume,
    save_position,
    with_learnt,
)
from dib_jax.training.progress import Progress
from dib_jax.training.records import LABEL, Metrics, means, write_lines
from dib_jax.training.results import results_of
from dib_jax.training.storage import Stored, store
from dib_jax.training.workdir import claim, read_results, write_inputs, write_json

# Checkpoints within a phase are written as often as keeps their cost below this share
# of the time.
_CHECKPOINT_SHARE = 0.05


class Trained(NamedTuple):
    """A finished run.

    Attributes:
        experiment: its pieces.
        network: what it has trained.
        results: what results.json holds.
        test: metrics of each exit on the test split.
        outputs: of the last exit for the test split, (n, …).
        ensemble: metrics there of all exits together, by the task's `ensemble`; None
            with one exit or a task without such.
    """

    experiment: Experiment
    network: Any
    results: dict[str, Any]
    test: list[dict[str, float]]
    outputs: np.ndarray
    ensemble: dict[str, float] | None


class _Run(NamedTuple):
    """What does not change while a run goes on."""

    workdir: pathlib.Path
    experiment: Experiment
    train: Data
    held_out: Data
    progress: Progress
    show: Show


class _Stored(NamedTuple):
    """Both splits as a phase reads them; None before the first phase."""

    train: Any = None
    validation: Any = None


class _Measured(NamedTuple):
    """What an epoch showed: metrics and notices of each exit, and how long it took."""

    metrics: dict[int, Metrics]
    notices: dict[int, dict[str, str]]
    seconds: float


def train(
    experiment: Experiment,
    workdir: pathlib.Path,
    *,
    observer: Callable[[Experiment], Observer] | None = None,
) -> Trained:
    """Train an experiment in a workdir, or go on where it stopped.

    With several processes (`jax.distributed`) all of them call this with the same
    arguments; the first one alone reads and writes the workdir.

    Args:
        experiment: the experiment.
        workdir: a new or empty folder, or that of an earlier start of the same config.
        observer: makes one of the experiment, before anything is written. It sees the
            network before each checkpoint is written, so that what it has written is
            there when the run goes on from one. Its time is not the training's.

    Returns:
        The finished run, results.json written.

    Raises:
        ValueError: the workdir belongs to another config, or the algorithm's phases do
            not go together.
        dib_jax.training.records.NonFiniteError: a loss became NaN or infinite.
        dib_jax.checkpoints.CheckpointError: there are checkpoints, but no sound one.
    """
    check(experiment)
    show = showing(experiment, observer)
    from_first(lambda: claim(workdir, experiment.config))
    from_first(lambda: write_inputs(workdir, experiment))
    # LAPACK's threads only get in the way of XLA's own: small eigendecompositions on a
    # CPU are faster on one thread.
    one_thread = threadpoolctl.threadpool_limits(1, user_api="blas")
    with one_thread, Progress(sum(experiment.epochs), shown=is_first()) as progress:
        position, network, training = resume(workdir, experiment, progress)
        splits = (experiment.dataset.train, experiment.dataset.validation)
        placed = [place(experiment, split) for split in splits]
        run = _Run(workdir, experiment, *placed, progress, show)
        # What a run that was stopped has left; it is never read.
        shutil.rmtree(_cache_folder(workdir), ignore_errors=True)
        if (position.phase, position.epoch) == (0, 0):
            show(position, network, 0)
        stored = _Stored()
        while position.phase < len(experiment.phases):
            position, network, stored = _train_phase(
                run, position, network, training, stored
            )
            training = None
        shutil.rmtree(_cache_folder(workdir), ignore_errors=True)
    test, outputs, ensemble = evaluate(experiment, network)
    results = results_of(experiment, position, test, outputs, ensemble)
    from_first(lambda: write_json(workdir / "results.json", results))
    return Trained(experiment, network, results, test, outputs, ensemble)


def load_trained(experiment: Experiment, workdir: pathlib.Path) -> Trained:
    """A finished run from its workdir, its test outputs computed anew.

    Args:
        experiment: of the workdir's config.
        workdir: of a finished run.

    Returns:
        As `train`; `results` is what results.json holds.

    Raises:
        ValueError: there is no finished run.
        dib_jax.checkpoints.CheckpointError: the checkpoint of its end is damaged.
    """
    network, results = restore(experiment, workdir)
    return Trained(experiment, network, results, *evaluate(experiment, network))


def restore(
    experiment: Experiment, workdir: pathlib.Path
) -> tuple[Any, dict[str, Any]]:
    """The network and the results of a finished run, nothing evaluated.

    Args:
        experiment: of the workdir's config; it may have been made without data.
        workdir: of a finished run.

    Raises:
        ValueError: there is no finished run.
        dib_jax.checkpoints.CheckpointError: the checkpoint of its end is damaged.
    """
    results = from_first(lambda: read_results(workdir))
    with Progress(0, shown=is_first()) as progress:
        position, network, _ = resume(workdir, experiment, progress)
    if position.phase < len(experiment.phases):
        raise checkpoints.CheckpointError(
            f"{workdir / 'checkpoints'}: the checkpoint of the finished network is "
            "damaged; move results.json away, and the same run goes on from the last "
            "sound one"
        )
    return network, results


def _train_phase(
    run: _Run,
    position: Position,
    network: Any,
    training: Training | None,
    stored: _Stored,
) -> tuple[Position, Any, _Stored]:
    """Train one phase from where the run stands to the phase's end."""
    begun = time.monotonic() - position.seconds
    experiment, index = run.experiment, position.phase
    phase, first_epoch = experiment.phases[index], position.epoch
    training = training or begin(experiment, phase, network)
    training = put(training, replicated(experiment.mesh))
    # What it reads, and its programs.
    data = [_entered(run, index, network, split) for split in (run.train, run.held_out)]
    stored = _read(run, position, network, data, stored)
    program = together(
        lambda: compile_epoch(experiment, index, training.state, network, stored.train)
    )
    predict = predictor(experiment, phase_outputs(experiment, index))
    compiled = position.compile_seconds + program.seconds
    position = position._replace(compile_seconds=compiled)
    # Its epochs.
    saved, cost = time.monotonic(), 0.0
    lines = run.workdir / "metrics.jsonl" if is_first() else pathlib.Path(os.devnull)
    with lines.open("ab") as record:
        while position.epoch < phase.epochs:
            if position.epoch > first_epoch:
                stored = _renewed(run, position, network, data[0], stored)
            position, training, measured = _epoch(
                run, position, network, training, stored, program, predict
            )
            _record(run, position, measured, program, record)
            position = position._replace(
                seconds=time.monotonic() - begun, metrics_bytes=record.tell()
            )
            is_last = position.epoch == phase.epochs
            shown = phase.read(training.state, network)
            if is_last:
                shown = with_learnt(phase, training.state, network, training.best)
            begun += run.show(position, shown, index + 1)
            pause = time.monotonic() - saved
            if not is_last and cost <= _CHECKPOINT_SHARE * pause:
                save_position(run.workdir, experiment, position, network, training)
                saved, cost = time.monotonic(), time.monotonic() - saved - pause
    # What stays of it.
    network = with_learnt(phase, training.state, network, training.best)
    seconds = time.monotonic() - begun
    position = _finished(position, phase, seconds, measured.notices, program)
    save_position(run.workdir, experiment, position, network, None)
    return position, network, stored


def _epoch(
    run: _Run,
    position: Position,
    network: Any,
    training: Training,
    stored: _Stored,
    program: Epoch,
    predict: Callable[..., Outputs],
) -> tuple[Position, Training, _Measured]:
    """One epoch: training, validation, selection."""
    phase, epoch = run.experiment.phases[position.phase], position.epoch + 1
    start = time.monotonic()
    made = position.epoch * program.steps
    state, terms = program.run(training.state, network, stored.train, made)
    metrics: dict[int, Metrics] = {
        number: {"train": means(terms[number], number=number, epoch=epoch)}
        for number in phase.exits
    }
    whole = phase.read(state, network)
    validated = validate(run.experiment, predict, whole, stored.validation)
    for number, values in zip(phase.exits, validated, strict=bool(validated)):
        metrics[number]["validation"] = values
    training = training._replace(state=state)
    position = position._replace(epoch=epoch)
    # At equal scores the later epoch, which has seen more. Without a validation split
    # there is no selection: always the later epoch. Exits that train at once are kept
    # as of one epoch, for each has learned on the others' outputs: the last one's best.
    metric, best = run.experiment.task.metric, position.validation
    if not best or validated[-1][metric] >= best[-1][metric]:
        # Copied: the state's own buffers are given to the next epoch.
        training = training._replace(best=copied(learnt(phase, state, network)))
        position = position._replace(best_epoch=epoch, validation=tuple(validated))
    notices = {number: phase.notices(metrics[number]["train"]) for number in metrics}
    return position, training, _Measured(metrics, notices, time.monotonic() - start)


def _finished(
    position: Position,
    phase: Phase,
    seconds: float,
    notices: dict[int, dict[str, str]],
    program: Epoch,
) -> Position:
    """The position after a phase, with its exits' entries of results.json."""
    validation = position.validation or ({},) * len(phase.exits)
    entries = [
        {
            LABEL: number,
            "validation": values,
            "seconds": round(seconds, 3),
            "epochs": phase.epochs,
            "best_epoch": position.best_epoch,
            **dict.fromkeys(notices[number], True),
            **program.figures,
        }
        for number, values in zip(phase.exits, validation, strict=True)
    ]
    return Position(
        phase=position.phase + 1,
        compile_seconds=position.compile_seconds,
        metrics_bytes=position.metrics_bytes,
        entries=(*position.entries, *entries),
    )


# What a phase reads -------------------------------------------------------------------


def _entered(run: _Run, index: int, network: Any, data: Data) -> Data:
    """A split at a phase's start."""
    enter = run.experiment.phases[index].enter
    return enter(network, data) if enter and len(data) else data


def _read(
    run: _Run, position: Position, network: Any, data: list[Data], previous: _Stored
) -> _Stored:
    """Both splits, with what frozen parts make of them where that is kept."""
    train = _store(run, position, network, data[0], "train", previous.train)
    held_out = _store(
        run, position, network, data[1], "validation", previous.validation
    )
    if train.line:
        where = held_out.place or "computed after every epoch"
        run.progress.say(f"{train.line}; of the validation split: {where}")
    return _Stored(train, held_out)


def _store(
    run: _Run,
    position: Position,
    network: Any,
    data: Data,
    split: str,
    previous: Stored | None,
    place: str = "",
) -> Stored:
    cache, augment = run.experiment.cache, run.experiment.augment
    key = keys_of(run.experiment, run.experiment.phases[position.phase]).copies
    if cache.renew:
        key = jax.random.fold_in(key, position.epoch // cache.renew)
    return store(
        run.experiment,
        position.phase,
        network,
        data,
        # Samples are validated as they are, never augmented.
        augment=augment if split == "train" else None,
        place=place or cache.place,
        folder=_cache_folder(run.workdir) / split,
        key=key,
        previous=previous,
    )


def _renewed(
    run: _Run, position: Position, network: Any, data: Data, stored: _Stored
) -> _Stored:
    """The splits for the next epoch: augmented copies may be drawn anew."""
    renew, train = run.experiment.cache.renew, stored.train
    due = renew and run.experiment.augment and position.epoch % renew == 0
    if not (due and train.place):
        return stored
    train = _store(run, position, network, data, "train", train, train.place)
    return stored._replace(train=train)


def _cache_folder(workdir: pathlib.Path) -> pathlib.Path:
    # Each process has its own, whether they share a disk or not.
    number = jax.process_index()
    return workdir / (f"cache-{number}" if number else "cache")


# What is said of an epoch -------------------------------------------------------------


def _record(
    run: _Run,
    position: Position,
    measured: _Measured,
    program: Epoch,
    record: BinaryIO,
) -> None:
    """Write an epoch's lines, and show it."""
    phase, epoch = run.experiment.phases[position.phase], position.epoch
    for number, messages in measured.notices.items():
        for message in messages.values():
            run.progress.say(f"{LABEL} {number}, epoch {epoch}: {message}")
    write_lines(
        record,
        measured.metrics,
        epoch=epoch,
        step=epoch * program.steps,
        seconds=measured.seconds,
    )
    last = measured.metrics[phase.exits[-1]]
    shown = run.experiment.task.shown
    run.progress.epoch(phase.exits[-1], epoch, phase.epochs, last, shown)
