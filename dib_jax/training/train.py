"""The loop: the phases of an algorithm in their order, always resumable.

What happens in a step stands in `compilation.one_step` and in the algorithm.
"""

import contextlib
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import NamedTuple

import threadpoolctl

from dib_jax.algorithms import Network
from dib_jax.training import evaluation
from dib_jax.training.compilation import Epoch, compile_epoch
from dib_jax.training.devices import (
    from_first,
    is_first,
    put,
    replicated,
    together,
    usual_arithmetic,
)
from dib_jax.training.experiment import Experiment, check
from dib_jax.training.finished import Trained
from dib_jax.training.observers import Observer, Show, showing
from dib_jax.training.position import (
    Position,
    Training,
    after_phase,
    begin,
    copied,
    learnt,
    resume,
    save_position,
    with_learnt,
)
from dib_jax.training.progress import Progress
from dib_jax.training.records import LABEL, Metrics, Record, Watch, means
from dib_jax.training.results import results_of
from dib_jax.training.splits import Sources, Splits, read, renewed, sources
from dib_jax.training.workdir import RECORD, claimed, write_results

# Of the time, what checkpoints within a phase may take.
_CHECKPOINT_SHARE = 0.05


class _Run(NamedTuple):
    """What does not change while a run goes on."""

    workdir: pathlib.Path
    experiment: Experiment
    sources: Sources
    progress: Progress
    show: Show
    watch: Watch | None


class _Measured(NamedTuple):
    """What an epoch showed of each exit, and how long it took."""

    metrics: dict[int, Metrics]
    notices: dict[int, dict[str, str]]
    seconds: float


def train(
    experiment: Experiment,
    workdir: pathlib.Path,
    *,
    observer: Callable[[Experiment], Observer] | None = None,
    watch: Watch | None = None,
    held: contextlib.ExitStack | None = None,
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
        watch: called with every line of metrics.jsonl as soon as it is written. Where a
            run goes on, the lines since the last checkpoint come once more.
        held: until it is closed no other process gets the workdir; None: until the end.

    Returns:
        The finished run, results.json written.

    Raises:
        ValueError: the workdir belongs to another config or is in use by another
            process, or the algorithm's phases do not go together.
        dib_jax.training.records.NonFiniteError: a loss became NaN or infinite.
        dib_jax.checkpoints.CheckpointError: there are checkpoints, but no sound one.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(usual_arithmetic())
        check(experiment)
        show = showing(experiment, workdir, observer)
        (held or stack).enter_context(claimed(workdir, experiment))
        # Small eigendecompositions on a CPU are faster on one thread of LAPACK's.
        stack.enter_context(threadpoolctl.threadpool_limits(1, user_api="blas"))
        with Progress(sum(experiment.epochs), shown=is_first()) as progress:
            position, network = _train(experiment, workdir, progress, show, watch)
        found = evaluation.evaluate(experiment, network)
        results = results_of(experiment, position, found)
        results |= experiment.algorithm.about(network)
        from_first(lambda: write_results(workdir, results, position.digests))
    return Trained(experiment, network, results, *found)


def _train(
    experiment: Experiment,
    workdir: pathlib.Path,
    progress: Progress,
    show: Show,
    watch: Watch | None,
) -> tuple[Position, Network]:
    """Train all phases from where the run stands; the workdir is ours."""
    position, network, training = resume(workdir, experiment, progress)
    both = sources(experiment, workdir, progress.say)
    run = _Run(workdir, experiment, both, progress, show, watch)
    # What a run that was stopped has left; it is never read.
    shutil.rmtree(both.folder, ignore_errors=True)
    if (position.phase, position.epoch) == (0, 0):
        position = position._replace(digests=show(position, network, 0)[1])
    splits: Splits | None = None
    while position.phase < len(experiment.phases):
        position, network, splits = _train_phase(
            run, position, network, training, splits
        )
        training = None
    shutil.rmtree(both.folder, ignore_errors=True)
    return position, network


def _train_phase(
    run: _Run,
    position: Position,
    network: Network,
    training: Training | None,
    splits: Splits | None,
) -> tuple[Position, Network, Splits]:
    """Train one phase from where the run stands to the phase's end."""
    begun = time.monotonic() - position.seconds
    experiment, index = run.experiment, position.phase
    phase, first_epoch = experiment.phases[index], position.epoch
    training = training or begin(experiment, phase, network)
    training = put(training, replicated(experiment.mesh))
    # What it reads, and its programs.
    splits = read(run.sources, position, network, splits)
    arguments = (experiment, index, training.state, network, splits.train)
    with run.progress.compiling(phase.exits[-1]):
        program = together(lambda: compile_epoch(*arguments))
    outputs = evaluation.phase_outputs(experiment, index)
    predict = evaluation.predictor(experiment, outputs)
    compiled = position.compile_seconds + program.seconds
    position = position._replace(compile_seconds=compiled)
    # Its epochs.
    saved, cost = time.monotonic(), 0.0
    lines = run.workdir / RECORD if is_first() else pathlib.Path(os.devnull)
    with Record(lines, run.watch if is_first() else None) as record:
        while position.epoch < phase.epochs:
            if position.epoch > first_epoch:
                splits = renewed(run.sources, position, network, splits)
            position, training, measured = _epoch(
                run, position, network, training, splits, program, predict
            )
            _record(run, position, measured, program, record)
            position = position._replace(
                seconds=time.monotonic() - begun, metrics_bytes=record.size
            )
            is_last = position.epoch == phase.epochs
            shown = phase.read(training.state, network)
            if is_last:
                shown = with_learnt(phase, training.state, network, training.best)
            pause, written = run.show(position, shown, index + 1)
            begun += pause
            written |= {RECORD: record.digest()}
            position = position._replace(digests=position.digests | written)
            pause = time.monotonic() - saved
            if not is_last and cost <= _CHECKPOINT_SHARE * pause:
                save_position(run.workdir, experiment, position, network, training)
                saved, cost = time.monotonic(), time.monotonic() - saved - pause
    # What stays of it.
    network = with_learnt(phase, training.state, network, training.best)
    seconds = time.monotonic() - begun
    position = after_phase(position, phase, seconds, measured.notices, program.figures)
    save_position(run.workdir, experiment, position, network, None)
    return position, network, splits


def _epoch(
    run: _Run,
    position: Position,
    network: Network,
    training: Training,
    splits: Splits,
    program: Epoch,
    predict: evaluation.Predictor,
) -> tuple[Position, Training, _Measured]:
    """One epoch: training, validation, selection."""
    phase, epoch = run.experiment.phases[position.phase], position.epoch + 1
    start = time.monotonic()
    made = position.epoch * program.steps
    state, terms = program.run(training.state, network, splits.train, made)
    metrics: dict[int, Metrics] = {
        number: {"train": means(terms[number], number=number, epoch=epoch)}
        for number in phase.exits
    }
    whole = phase.read(state, network)
    validated = evaluation.validate(run.experiment, predict, whole, splits.validation)
    for number, values in zip(phase.exits, validated, strict=bool(validated)):
        metrics[number]["validation"] = values
    training = training._replace(state=state)
    position = position._replace(epoch=epoch)
    # At equal scores the later epoch, which has seen more. Without a validation split
    # there is no selection: always the later epoch. Exits that train at once are taken
    # from one epoch, for each has learned on the others' outputs: the last one's best.
    metric, best = run.experiment.task.metric, position.validation
    if not best or validated[-1][metric] >= best[-1][metric]:
        # Copied: the state's own buffers are given to the next epoch.
        training = training._replace(best=copied(learnt(phase, state, network)))
        position = position._replace(best_epoch=epoch, validation=tuple(validated))
    notices = {number: phase.notices(metrics[number]["train"]) for number in metrics}
    return position, training, _Measured(metrics, notices, time.monotonic() - start)


def _record(
    run: _Run, position: Position, measured: _Measured, program: Epoch, record: Record
) -> None:
    """Write an epoch's lines, and show it."""
    phase, epoch = run.experiment.phases[position.phase], position.epoch
    for number, messages in measured.notices.items():
        for message in messages.values():
            run.progress.say(f"{LABEL} {number}, epoch {epoch}: {message}")
    record.write(
        measured.metrics,
        epoch=epoch,
        step=epoch * program.steps,
        seconds=measured.seconds,
    )
    last, shown = phase.exits[-1], run.experiment.task.shown
    run.progress.epoch(last, epoch, phase.epochs, measured.metrics[last], shown)
