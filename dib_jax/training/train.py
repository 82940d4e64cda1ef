"""A run: the blocks of an experiment trained in turn or at once, always resumable."""

import functools
import itertools
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import threadpoolctl

from dib_jax import checkpoints
from dib_jax.data.augment import check_mirrored
from dib_jax.objectives import Occasional, Terms
from dib_jax.training.cache import Kept, keep
from dib_jax.training.compilation import compile_epoch
from dib_jax.training.config import from_json, to_json
from dib_jax.training.devices import (
    choose,
    from_first,
    is_first,
    put,
    replicated,
    together,
)
from dib_jax.training.evaluation import (
    Network,
    Split,
    evaluate,
    metrics_of,
    place,
    predictor_of,
)
from dib_jax.training.experiment import Experiment, assemble, without_data
from dib_jax.training.position import (
    Position,
    Training,
    block_keys,
    copied,
    initial_training,
    network_of,
    resume,
    save_position,
)
from dib_jax.training.progress import Progress
from dib_jax.training.results import results_of
from dib_jax.training.steps import (
    SPREAD,
    TRUNK_OUTPUT,
    Block,
    StageState,
    Variables,
)
from dib_jax.training.workdir import (
    claim,
    read_config,
    read_inputs,
    read_results,
    write_json,
)

# Of the features' mean square, what has to be variance between samples: a stage whose
# features differ by less than 1 % of their size, or have all but vanished, collapsed.
_LEAST_SPREAD = 1e-4
# Checkpoints between the ends of blocks are written as often as keeps their cost below
# this share of the time.
_CHECKPOINT_SHARE = 0.05


# Of the training and the validation split: what is kept for the block before.
Caches = tuple[Kept | None, Kept | None]


class NonFiniteError(ArithmeticError):
    """A term of a loss became NaN or infinite."""


class Moment(NamedTuple):
    """The network between two epochs, as an observer sees it.

    Attributes:
        epoch: epochs of the whole run that are done.
        trained: those of each stage.
        stages: variables of each; still the initial ones where it has not begun to
            train, and the ones that are kept from where its last epoch is done. They
            are gone after the next epoch: what is to stay must be copied.
    """

    epoch: int
    trained: tuple[int, ...]
    stages: tuple[Variables, ...]


# Shown every moment from the untrained network to the last epoch, in order. Where a run
# goes on, those since the last checkpoint are shown once more, to the same bits.
Observer = Callable[[Moment], None]
_Show = Callable[[Position, tuple[Variables, ...]], float]


class Trained(NamedTuple):
    """A finished run.

    Attributes:
        experiment: its pieces.
        network: its variables.
        results: what results.json holds.
        test: metrics of each block's head on the test split.
        outputs: of the last head for the test split, (n, …, num_outputs).
        ensemble: metrics there of all heads together, by the task's `ensemble`; None
            with one head or a task without such.
    """

    experiment: Experiment
    network: Network
    results: dict[str, Any]
    test: list[dict[str, float]]
    outputs: np.ndarray
    ensemble: dict[str, float] | None


def train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    *,
    config_name: str,
    observer: Callable[[Experiment], Observer] | None = None,
    devices: int | None = None,
) -> Trained:
    """Train the experiment of a config in a workdir, or go on where it stopped.

    With several processes (`jax.distributed`) all of them call this with the same
    arguments; the first one alone reads and writes the workdir.

    Args:
        config: a complete config that `dib_jax.training.config.check` accepts.
        workdir: a new or empty folder, or that of an earlier start of the same config.
        config_name: for results.json.
        observer: makes one of the experiment, before anything is written. It sees the
            network before each checkpoint is written, so that what it has written is
            there when the run goes on from one. Its time is not the training's.
        devices: how many of this process's devices share each batch; None for all
            devices of all processes.

    Returns:
        The finished run, results.json written.

    Raises:
        ValueError: the workdir belongs to another config, or the data cannot be used.
        FileNotFoundError: the data set is not there.
        NonFiniteError: a loss became NaN or infinite.
        dib_jax.checkpoints.CheckpointError: there are checkpoints, but no sound one.
    """
    mesh = choose(devices, batch_size=config.batch_size)
    experiment = together(lambda: assemble(config, mesh=mesh))
    try:
        check_mirrored(config.dataset.augment, experiment.inputs.class_names)
    except ValueError as error:
        raise ValueError(f"dataset.augment: {error}") from None
    show = _showing(experiment, observer)
    from_first(lambda: claim(workdir, config))
    from_first(lambda: write_json(workdir / "inputs.json", experiment.inputs._asdict()))
    # LAPACK's threads only get in the way of XLA's own: small eigendecompositions on a
    # CPU are faster on one thread.
    one_thread = threadpoolctl.threadpool_limits(1, user_api="blas")
    shown = is_first()
    with one_thread, Progress(sum(experiment.epochs), shown=shown) as progress:
        position, network, training = resume(workdir, experiment, progress)
        data = place(experiment, experiment.dataset.train)
        validation = place(experiment, experiment.dataset.validation)
        # What a run that was stopped has left; it is never read.
        shutil.rmtree(_cache_folder(workdir), ignore_errors=True)
        caches: Caches = (None, None)
        if (position.phase, position.epoch) == (0, 0):
            show(position, ())
        while position.phase < len(experiment.phases):
            position, network, caches = _train_phase(
                workdir,
                experiment,
                data,
                validation,
                position,
                network,
                training,
                caches,
                progress,
                show,
            )
            training = None
        shutil.rmtree(_cache_folder(workdir), ignore_errors=True)
    test, outputs, ensemble = evaluate(experiment, network)
    results = results_of(
        config, config_name, experiment, position, test, outputs, ensemble
    )
    from_first(lambda: write_json(workdir / "results.json", results))
    return Trained(experiment, network, results, test, outputs, ensemble)


def load_trained(workdir: pathlib.Path) -> Trained:
    """A finished run from its workdir, its test outputs computed anew.

    Args:
        workdir: of a finished run.

    Returns:
        As `train`; `results` is what results.json holds.

    Raises:
        ValueError: there is no finished run.
        FileNotFoundError: the data set is not there any more.
        dib_jax.checkpoints.CheckpointError: the checkpoint of its end is damaged.
    """
    experiment, network, results = restore(workdir)
    return Trained(experiment, network, results, *evaluate(experiment, network))


def restore(
    workdir: pathlib.Path, *, data: bool = True
) -> tuple[Experiment, Network, dict[str, Any]]:
    """The pieces, the network and the results of a finished run, nothing evaluated.

    Args:
        workdir: of a finished run.
        data: whether the data set is loaded; without it the network can predict, and
            not be evaluated.

    Raises:
        ValueError: there is no finished run.
        FileNotFoundError: the data set is needed and not there any more.
        dib_jax.checkpoints.CheckpointError: the checkpoint of its end is damaged.
    """
    results, saved = from_first(
        lambda: (read_results(workdir), to_json(read_config(workdir)))
    )
    config = from_json(saved)
    inputs = None if data else read_inputs(workdir)
    experiment = together(
        lambda: without_data(config, inputs) if inputs else assemble(config)
    )
    with Progress(0, shown=is_first()) as progress:
        position, network, _ = resume(workdir, experiment, progress)
    if position.phase < len(experiment.phases):
        raise checkpoints.CheckpointError(
            f"{workdir / 'checkpoints'}: the checkpoint of the finished network is "
            "damaged; move results.json away, and the same run goes on from the last "
            "sound one"
        )
    return experiment, network, results


def _keep(
    folder: pathlib.Path,
    experiment: Experiment,
    block: Block,
    split: Split,
    trunk: tuple[Variables, ...],
    previous: Kept | None,
    *,
    epoch: int = 0,
    choice: str = "",
) -> Kept:
    """A split as the blocks of a phase read it, after so many epochs of the phase."""
    key = jax.random.split(block_keys(experiment, block)[1], 3)[2]
    if experiment.renew:
        key = jax.random.fold_in(key, epoch // experiment.renew)
    return keep(
        block,
        trunk,
        split,
        choice=choice or experiment.cache,
        copies=experiment.copies,
        folder=folder,
        key=key,
        mesh=experiment.mesh,
        previous=previous,
    )


def _train_phase(
    workdir: pathlib.Path,
    experiment: Experiment,
    data: Split,
    validation: Split,
    position: Position,
    network: Network,
    training: Training | None,
    caches: Caches,
    progress: Progress,
    show: _Show,
) -> tuple[Position, Network, Caches]:
    """Train the blocks of one phase from where the run stands to the phase's end."""
    begin = time.monotonic() - position.seconds
    mesh = experiment.mesh
    blocks = experiment.phases[position.phase]
    epochs = experiment.epochs[position.phase]
    if training is None:
        training = initial_training(
            experiment, blocks, experiment.dataset.train["images"]
        )
    whole = replicated(mesh)
    training = put(training, whole)
    keys = tuple(put(block_keys(experiment, block)[1], whole) for block in blocks)
    keep_training = functools.partial(
        _keep, _cache_folder(workdir) / "train", experiment, blocks[0], data
    )
    kept = keep_training(network.stages, caches[0], epoch=position.epoch)
    held_out = _keep(
        _cache_folder(workdir) / "validation",
        experiment,
        # Pictures are validated as they are, never augmented.
        blocks[0]._replace(augment=None),
        validation,
        network.stages,
        caches[1],
    )
    if kept.line:
        where = held_out.place or "computed after every epoch"
        progress.say(f"{kept.line}; of the validation split: {where}")
    states = training.states
    run_epoch, figures, compile_seconds = together(
        lambda: compile_epoch(
            blocks, states, network.stages, kept, keys, experiment.mesh
        )
    )
    predictor = predictor_of(experiment, blocks, trunk_done=held_out.stages > 0)
    inputs = held_out.arrays.get(TRUNK_OUTPUT, validation["images"])
    position = position._replace(
        compile_seconds=position.compile_seconds + compile_seconds
    )
    saved, save_seconds = time.monotonic(), 0.0
    begun = position.epoch
    renew = experiment.renew if kept.place and blocks[0].augment else 0
    lines = workdir / "metrics.jsonl" if is_first() else pathlib.Path(os.devnull)
    with lines.open("ab") as record:
        for epoch in range(begun + 1, epochs + 1):
            start = time.monotonic()
            done = epoch - 1
            if renew and done > begun and done % renew == 0:
                kept = keep_training(
                    network.stages, kept, epoch=done, choice=kept.place
                )
            states, terms = run_epoch(training.states, network.stages, kept, keys)
            metrics = [
                {"train": _averages(own, block, epoch)}
                for own, block in zip(terms, blocks, strict=True)
            ]
            validated: list[dict[str, float]] = []
            if len(validation["labels"]):
                outputs = predictor(network.stages, *network_of(states), inputs)
                validated = metrics_of(experiment.task, outputs, validation)
                for own, values in zip(metrics, validated, strict=True):
                    own["validation"] = values
            training = training._replace(states=states)
            if _at_least_as_good(
                validated, position.validation, experiment.task.metric
            ):
                # Copied: the states' own buffers are given to the next epoch.
                training = training._replace(best=copied(network_of(states)))
                position = position._replace(
                    best_epoch=epoch, validation=tuple(validated)
                )
            seconds = time.monotonic() - start
            collapsed = [own["train"][SPREAD] < _LEAST_SPREAD for own in metrics]
            for block in itertools.compress(blocks, collapsed):
                progress.say(_collapse(block, epoch))
            for block, state, own in zip(blocks, states, metrics, strict=True):
                _write_lines(record, block, epoch, state, own, seconds)
            progress.epoch(blocks[-1].stage, epoch, epochs, metrics[-1])
            position = position._replace(
                epoch=epoch,
                seconds=time.monotonic() - begin,
                metrics_bytes=record.tell(),
            )
            shown = training.best if epoch == epochs else network_of(states)
            begin += show(position, (*network.stages, *shown.stages))
            pause = time.monotonic() - saved
            if epoch < epochs and save_seconds <= _CHECKPOINT_SHARE * pause:
                save_position(workdir, experiment, position, network, training)
                saved, save_seconds = time.monotonic(), time.monotonic() - saved - pause
    network = Network(
        (*network.stages, *training.best.stages),
        (*network.heads, *training.best.heads),
    )
    seconds = time.monotonic() - begin
    entries = [
        {
            "stage": block.stage,
            "validation": values,
            "seconds": round(seconds, 3),
            "epochs": epochs,
            "best_epoch": position.best_epoch,
            "collapsed": fallen,
            **figures,
        }
        for block, values, fallen in zip(
            blocks,
            position.validation or [{}] * len(blocks),
            collapsed,
            strict=True,
        )
    ]
    position = Position(
        phase=position.phase + 1,
        compile_seconds=position.compile_seconds,
        metrics_bytes=position.metrics_bytes,
        stages=(*position.stages, *entries),
    )
    save_position(workdir, experiment, position, network, None)
    return position, network, (kept, held_out)


def _showing(
    experiment: Experiment, observer: Callable[[Experiment], Observer] | None
) -> _Show:
    """What shows an observer the network; it returns the seconds that this took."""
    if observer is None:
        return lambda position, stages: 0.0
    # The first process alone sees it: it is the one that writes.
    observe = together(lambda: observer(experiment) if is_first() else None)
    images = jnp.asarray(experiment.dataset.train["images"][:2])

    @functools.cache
    def initial() -> tuple[Variables, ...]:
        untrained = (
            initial_training(experiment, blocks, images) for blocks in experiment.phases
        )
        return tuple(stage for entry in untrained for stage in entry.best.stages)

    def show(position: Position, stages: tuple[Variables, ...]) -> float:
        start = time.monotonic()
        done = [*experiment.epochs[: position.phase], position.epoch]
        trained = tuple(
            done[phase] if phase < len(done) else 0
            for phase, blocks in enumerate(experiment.phases)
            for block in blocks
            for _ in block.stages
        )

        def look() -> None:
            later = initial()[len(stages) :] if len(stages) < len(trained) else ()
            observe(Moment(sum(done), trained, (*jax.device_get(stages), *later)))

        from_first(look)
        return time.monotonic() - start

    return show


def _cache_folder(workdir: pathlib.Path) -> pathlib.Path:
    # Each process has its own, whether they share a disk or not.
    own = jax.process_index()
    return workdir / (f"cache-{own}" if own else "cache")


def _collapse(block: Block, epoch: int) -> str:
    return (
        f"stage {block.stage}, epoch {epoch}: its features have collapsed, they are "
        "the same for all samples or next to 0; try a smaller weight of what "
        "compresses them, or kernel widths relative to their scale where the loss has "
        "that (objective.relative=True)"
    )


def _averages(terms: Terms, block: Block, epoch: int) -> dict[str, float]:
    """Mean of each term over the steps of an epoch, all of which must be finite.

    Of an occasional one over the steps at which it was measured, if there are any.
    """
    values, counted = {}, {}
    for name, steps in terms.items():
        if isinstance(steps, Occasional):
            values[name] = np.asarray(steps.value)
            counted[name] = values[name][np.asarray(steps.measured)]
        else:
            counted[name] = values[name] = np.asarray(steps)
    bad = ~np.isfinite(np.stack(list(values.values())))
    if bad.any():
        step = int(bad.any(axis=0).argmax())
        name = list(values)[int(bad[:, step].argmax())]
        raise NonFiniteError(
            f"stage {block.stage}, epoch {epoch}, step {step + 1} of the epoch: {name} "
            f"is {values[name][step]}; the last checkpoint is from before it; try a "
            "smaller optimizer.learning_rate or a longer optimizer.warmup_epochs"
        )
    return {name: float(own.mean()) for name, own in counted.items() if len(own)}


def _at_least_as_good(
    new: Sequence[dict[str, float]], best: Sequence[dict[str, float]], metric: str
) -> bool:
    # At equal scores the later epoch, which has seen more. Without a validation split
    # there is no selection: always the later epoch. Blocks that train at once are kept
    # as of one epoch, for each has learned on the others' outputs: the last one's best.
    return not best or new[-1][metric] >= best[-1][metric]


def _write_lines(
    record: Any,
    block: Block,
    epoch: int,
    state: StageState,
    metrics: dict[str, dict[str, float]],
    seconds: float,
) -> None:
    for split, values in metrics.items():
        line = {
            "stage": block.stage,
            "epoch": epoch,
            "step": int(state.step),
            "split": split,
            **values,
            "seconds": round(seconds, 4),
        }
        record.write(json.dumps(line, allow_nan=False).encode() + b"\n")
    record.flush()
