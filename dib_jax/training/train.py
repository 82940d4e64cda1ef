"""A run: the blocks of an experiment trained in turn or at once, always resumable."""

import concurrent.futures
import functools
import itertools
import json
import math
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
from dib_jax.data.duplicates import count_duplicates
from dib_jax.data.stream import stream
from dib_jax.objectives import Occasional, Terms
from dib_jax.tasks import Task
from dib_jax.tasks.worth import mean_box
from dib_jax.training.cache import Kept, keep
from dib_jax.training.config import from_json, to_json
from dib_jax.training.devices import (
    arrays_from_first,
    by_sample,
    choose,
    from_first,
    is_first,
    put,
    replicated,
    together,
)
from dib_jax.training.experiment import Experiment, assemble, without_data
from dib_jax.training.progress import Progress
from dib_jax.training.steps import (
    SPREAD,
    TRUNK_OUTPUT,
    Block,
    StageState,
    Variables,
    epoch_rows,
    frozen,
    initial_states,
    predict,
    train_step,
    train_steps,
)
from dib_jax.training.workdir import (
    claim,
    finished,
    hardware,
    read_config,
    read_inputs,
    read_results,
    versions,
    write_json,
)

_EVALUATION_BATCH = 512
# Of the features' mean square, what has to be variance between samples: a stage whose
# features differ by less than 1 % of their size has collapsed.
_LEAST_SPREAD = 1e-4
# Checkpoints between the ends of blocks are written as often as keeps their cost below
# this share of the time.
_CHECKPOINT_SHARE = 0.05
# Of what comes from the host, so much is sent to the device for one `lax.scan`.
_CHUNK_BYTES = 2**26

# On the device, or on the host where pictures are streamed.
Split = dict[str, Any]

# Of the training and the validation split: what is kept for the block before.
Caches = tuple[Kept | None, Kept | None]


class NonFiniteError(ArithmeticError):
    """A term of a loss became NaN or infinite."""


class Network(NamedTuple):
    """The trained part of a network.

    Attributes:
        stages: variables (`params`, `batch_stats`) of each trained stage.
        heads: variables of each trained block's head.
    """

    stages: tuple[Variables, ...]
    heads: tuple[Variables, ...]


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
    show = _showing(experiment, observer)
    from_first(lambda: claim(workdir, config))
    from_first(lambda: write_json(workdir / "inputs.json", experiment.inputs._asdict()))
    # LAPACK's threads only get in the way of XLA's own: small eigendecompositions on a
    # CPU are faster on one thread.
    one_thread = threadpoolctl.threadpool_limits(1, user_api="blas")
    shown = is_first()
    with one_thread, Progress(sum(experiment.epochs), shown=shown) as progress:
        position, network, training = _resume(workdir, experiment, progress)
        data = _place(experiment, experiment.dataset.train)
        validation = _place(experiment, experiment.dataset.validation)
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
    results = _results(config, config_name, experiment, position, test)
    if ensemble:
        results["ensemble"] = ensemble
    if experiment.task.uses_boxes:
        results["mean_box"] = _mean_box(experiment, outputs)
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
        position, network, _ = _resume(workdir, experiment, progress)
    if position.phase < len(experiment.phases):
        raise checkpoints.CheckpointError(
            f"{workdir / 'checkpoints'}: the checkpoint of the finished network is "
            "damaged; move results.json away, and the same run goes on from the last "
            "sound one"
        )
    return experiment, network, results


def evaluate(
    experiment: Experiment, network: Network
) -> tuple[list[dict[str, float]], np.ndarray, dict[str, float] | None]:
    """Metrics of every block's head on the test split, alone and all together.

    Args:
        experiment: the experiment.
        network: variables of all its stages and heads.

    Returns:
        A dict of metrics for each block, the last one's outputs (n, …, num_outputs),
        and the metrics of the task's ensemble of several heads, if it has one.
    """
    test = _place(experiment, experiment.dataset.test)
    outputs = _predictor(experiment, experiment.blocks)((), *network, test["images"])
    task, ensemble = experiment.task, None
    if task.ensemble and len(outputs) > 1:
        (ensemble,) = _metrics(task, (jax.jit(task.ensemble)(outputs),), test)
    return _metrics(task, outputs, test), np.asarray(outputs[-1]), ensemble


def outputs_of(
    experiment: Experiment, network: Network, images: np.ndarray
) -> jax.Array:
    """What the last block's head gives for pictures.

    Args:
        experiment: the experiment.
        network: variables of all its stages and heads.
        images: uint8 (n, h, w, c), shaped as the data set's.

    Returns:
        (n, …, num_outputs).
    """
    last = experiment.blocks[-1:]
    border = len(last[0].trunk)
    trunk, stages = network.stages[:border], network.stages[border:]
    (outputs,) = _predictor(experiment, last)(trunk, stages, network.heads[-1:], images)
    return outputs


def _place(experiment: Experiment, split: dict[str, np.ndarray]) -> Split:
    """A split on the device; on the host, as it is, where pictures are streamed."""
    if experiment.streams:
        return split
    return put(dict(split), replicated(experiment.mesh))


def _predictor(
    experiment: Experiment, blocks: tuple[Block, ...], *, trunk_done: bool = False
) -> Callable[..., tuple[jax.Array, ...]]:
    run = jax.jit(
        functools.partial(
            predict, blocks, batch_size=_EVALUATION_BATCH, trunk_done=trunk_done
        ),
        out_shardings=replicated(experiment.mesh),
    )

    def outputs(trunk: Any, stages: Any, heads: Any, images: Any) -> Any:
        count = len(images)
        if isinstance(images, jax.Array) or count <= _EVALUATION_BATCH:
            return run(trunk, stages, heads, images)
        # The last picture again and again up to whole batches, cut off at the end.
        rows = np.minimum(np.arange(count + -count % _EVALUATION_BATCH), count - 1)
        order = rows.reshape(-1, _EVALUATION_BATCH)
        chunks = stream({"images": images}, order, steps=1)
        parts = [
            # Waited for: the device need not hold the pictures of all of them.
            jax.block_until_ready(run(trunk, stages, heads, chunk["images"][0]))
            for chunk in chunks
        ]
        return tuple(jnp.concatenate(own)[:count] for own in zip(*parts, strict=True))

    return outputs


def _metrics(
    task: Task, outputs: tuple[jax.Array, ...], split: Split
) -> list[dict[str, float]]:
    """Metrics of each block's outputs."""
    measure, targets = jax.jit(task.metrics), task.targets(split)
    values = [measure(own, targets) for own in outputs]
    return [{name: float(value) for name, value in own.items()} for own in values]


def _keep(
    workdir: pathlib.Path,
    experiment: Experiment,
    data: Split,
    validation: Split,
    position: Position,
    network: Network,
    previous: Caches,
) -> tuple[Kept, Kept]:
    """Both splits as the blocks of the present phase read them."""
    first = experiment.phases[position.phase][0]
    key = jax.random.split(_block_keys(experiment, first)[1], 3)[2]
    kept, held_out = (
        keep(
            block,
            network.stages,
            split,
            choice=experiment.cache,
            copies=experiment.copies,
            folder=_cache_folder(workdir) / name,
            key=key,
            mesh=experiment.mesh,
            previous=before,
        )
        for name, block, split, before in (
            ("train", first, data, previous[0]),
            # Pictures are validated as they are, never augmented.
            ("validation", first._replace(augment=None), validation, previous[1]),
        )
    )
    return kept, held_out


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
    blocks = experiment.phases[position.phase]
    epochs = experiment.epochs[position.phase]
    if training is None:
        training = _untrained(experiment, blocks, experiment.dataset.train["images"])
    whole = replicated(experiment.mesh)
    training = put(training, whole)
    keys = tuple(put(_block_keys(experiment, block)[1], whole) for block in blocks)
    kept, held_out = _keep(
        workdir, experiment, data, validation, position, network, caches
    )
    if kept.line:
        where = held_out.place or "computed after every epoch"
        progress.say(f"{kept.line}; of the validation split: {where}")
    states = training.states
    run_epoch, figures, compile_seconds = together(
        lambda: _compile(blocks, states, network.stages, kept, keys, experiment.mesh)
    )
    predictor = _predictor(experiment, blocks, trunk_done=held_out.stages > 0)
    inputs = held_out.arrays.get(TRUNK_OUTPUT, validation["images"])
    position = position._replace(
        compile_seconds=position.compile_seconds + compile_seconds
    )
    saved, save_seconds = time.monotonic(), 0.0
    lines = workdir / "metrics.jsonl" if is_first() else pathlib.Path(os.devnull)
    with lines.open("ab") as record:
        for epoch in range(position.epoch + 1, epochs + 1):
            start = time.monotonic()
            states, terms = run_epoch(training.states, network.stages, keys)
            metrics = [
                {"train": _averages(own, block, epoch)}
                for own, block in zip(terms, blocks, strict=True)
            ]
            validated: list[dict[str, float]] = []
            if len(validation["labels"]):
                outputs = predictor(network.stages, *_network(states), inputs)
                validated = _metrics(experiment.task, outputs, validation)
                for own, values in zip(metrics, validated, strict=True):
                    own["validation"] = values
            training = training._replace(states=states)
            if _at_least_as_good(
                validated, position.validation, experiment.task.metric
            ):
                # Copied: the states' own buffers are given to the next epoch.
                training = training._replace(best=_copy(_network(states)))
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
            shown = training.best if epoch == epochs else _network(states)
            begin += show(position, (*network.stages, *shown.stages))
            pause = time.monotonic() - saved
            if epoch < epochs and save_seconds <= _CHECKPOINT_SHARE * pause:
                _save(workdir, experiment, position, network, training)
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
    _save(workdir, experiment, position, network, None)
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
            _untrained(experiment, blocks, images) for blocks in experiment.phases
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


def _block_keys(experiment: Experiment, block: Block) -> tuple[jax.Array, jax.Array]:
    init_key, train_key = jax.random.split(
        jax.random.fold_in(experiment.key, block.stage)
    )
    return init_key, train_key


def _untrained(
    experiment: Experiment, blocks: tuple[Block, ...], images: Any
) -> Training:
    keys = [_block_keys(experiment, block)[0] for block in blocks]
    states = jax.jit(functools.partial(initial_states, blocks))(keys, images[:2])
    return Training(states, _copy(_network(states)))


def _network(states: tuple[StageState, ...]) -> Network:
    parts = [frozen(state) for state in states]
    return Network(
        tuple(stage for stages, _ in parts for stage in stages),
        tuple(head for _, head in parts),
    )


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _compile(
    blocks: tuple[Block, ...],
    states: tuple[StageState, ...],
    trunk: tuple[Variables, ...],
    kept: Kept,
    keys: tuple[jax.Array, ...],
    mesh: jax.sharding.Mesh,
) -> tuple[Callable[..., Any], dict[str, int | None], float]:
    """The compiled epoch, the compiler's figures for one step, and seconds it took.

    The epoch is one `lax.scan`, or one for each chunk where data come from the host.
    """
    start = time.monotonic()
    whole = replicated(mesh)
    arrays = kept.arrays
    batch_size = blocks[0].batch_size
    samples = len(arrays["images"]) // kept.copies
    rows_of = jax.jit(
        functools.partial(epoch_rows, blocks[0], samples=samples, copies=kept.copies),
        out_shardings=whole,
    )
    steps = samples // batch_size
    step_bytes = batch_size * sum(leaf[0].nbytes for leaf in kept.streamed.values())
    chunk = min(max(1, _CHUNK_BYTES // step_bytes), steps) if step_bytes else steps

    def run_steps(
        states: Any, trunk: Any, data: Any, rows: Any, streamed: Any, keys: Any
    ) -> Any:
        return train_steps(blocks, states, trunk, data, rows, streamed, keys=keys)

    def step(states: Any, trunk: Any, batch: Any, keys: Any) -> Any:
        return train_step(blocks, states, trunk, batch, keys=keys)

    def like(arrays: dict[str, Any], *shape: int) -> dict[str, Any]:
        split = by_sample(mesh, axis=len(shape) - 1)
        return {
            name: jax.ShapeDtypeStruct(
                (*shape, *leaf.shape[1:]), leaf.dtype, sharding=split
            )
            for name, leaf in arrays.items()
        }

    batch = like(arrays, batch_size)
    jit = functools.partial(jax.jit, donate_argnums=0, out_shardings=whole)
    lowered_step = jit(step).lower(states, trunk, batch, keys)
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        compiled_step = beside.submit(lowered_step.compile)
        compiled = {
            size: jit(run_steps)
            .lower(
                states,
                trunk,
                kept.data,
                jax.ShapeDtypeStruct((size, batch_size), jnp.int32, sharding=whole),
                like(kept.streamed, size, batch_size),
                keys,
            )
            .compile()
            for size in {chunk, steps % chunk or chunk}
        }
        figures = compiler_figures(compiled_step.result())

    def epoch(states: Any, trunk: Any, keys: Any) -> Any:
        terms: list[Any] = []
        rows = np.asarray(rows_of(keys[0], states[0].step))
        read = stream(kept.streamed, rows, steps=chunk) if kept.streamed else [{}]
        for first, sent in zip(range(0, steps, chunk), read, strict=True):
            # One chunk at work and one that waits: the device need not hold them all.
            jax.block_until_ready(terms[-2:-1])
            some = put(rows[first : first + chunk], whole)
            sent = put(sent, by_sample(mesh, axis=1))
            states, own = compiled[len(some)](
                states, trunk, kept.data, some, sent, keys
            )
            terms.append(own)
        return states, jax.tree.map(lambda *parts: np.concatenate(parts), *terms)

    return epoch, figures, time.monotonic() - start


def compiler_figures(compiled: jax.stages.Compiled) -> dict[str, int | None]:
    """The compiler's own account of a program; None where a backend gives none.

    Args:
        compiled: what `jax.jit(function).lower(…).compile()` returns.

    Returns:
        `temp_bytes` and `peak_bytes` of `memory_analysis()`, `flops` of
        `cost_analysis()`.
    """
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    flops = cost.get("flops")
    return {
        "temp_bytes": getattr(memory, "temp_size_in_bytes", None),
        "peak_bytes": getattr(memory, "peak_memory_in_bytes", None),
        "flops": None if flops is None else round(flops),
    }


def _collapse(block: Block, epoch: int) -> str:
    return (
        f"stage {block.stage}, epoch {epoch}: its features have collapsed, they are "
        "the same for all samples; try a smaller weight of what compresses them, or a "
        "kernel of fixed width"
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


def _save(
    workdir: pathlib.Path,
    experiment: Experiment,
    position: Position,
    network: Network,
    training: Training | None,
) -> None:
    if not is_first():
        return
    done = sum(experiment.epochs[: position.phase]) + position.epoch
    tree = {"network": network, "training": training}
    checkpoints.save(workdir / "checkpoints", done, tree, position._asdict())


def _resume(
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
        _untrained(experiment, blocks, images)
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


def _mean_box(experiment: Experiment, outputs: np.ndarray) -> dict[str, float]:
    """Metrics of the mean training box in place of the network's boxes."""
    task, dataset = experiment.task, experiment.dataset
    # Of the pictures only the size is asked.
    test = {**dataset.test, "images": dataset.test["images"][:1]}
    return mean_box(
        jax.jit(task.objects)(outputs),
        task.targets({name: jnp.asarray(array) for name, array in test.items()}),
        dataset.train,
        num_classes=len(experiment.inputs.class_names),
    )


def _results(
    config: ml_collections.ConfigDict,
    config_name: str,
    experiment: Experiment,
    position: Position,
    test: list[dict[str, float]],
) -> dict[str, Any]:
    stages = [
        {**entry, "test": metrics}
        for entry, metrics in zip(position.stages, test, strict=True)
    ]

    # Blocks of one phase have trained in the same seconds, which count once.
    ends = itertools.accumulate(len(blocks) for blocks in experiment.phases)
    seconds = math.fsum(stages[end - 1]["seconds"] for end in ends)

    def largest(name: str) -> int | None:
        return max(
            (entry[name] for entry in stages if entry[name] is not None), default=None
        )

    return {
        "config_name": config_name,
        "dataset": config.dataset.name,
        "dataset_description": experiment.dataset.description,
        "task": config.task.name,
        "objective": experiment.objective,
        "head": config.head.name,
        "schedule": config.schedule.name,
        "seed": config.seed,
        "metric": experiment.task.metric,
        "loss_unit": experiment.task.loss_unit,
        "duplicates": count_duplicates(experiment.dataset),
        "test": stages[-1]["test"],
        "validation": stages[-1]["validation"],
        "stages": stages,
        "temp_bytes": largest("temp_bytes"),
        "peak_bytes": largest("peak_bytes"),
        "seconds": round(seconds, 3),
        "compile_seconds": round(position.compile_seconds, 3),
        "hardware": hardware(experiment.mesh.devices.tolist()),
        "versions": versions(),
    }
