"""A run: the blocks of an experiment trained in turn, resumable at any moment."""

import concurrent.futures
import functools
import json
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import threadpoolctl

from dib_jax import checkpoints
from dib_jax.data.stream import stream
from dib_jax.training.experiment import Experiment, assemble
from dib_jax.training.progress import Progress
from dib_jax.training.steps import (
    Block,
    StageState,
    Variables,
    epoch_order,
    frozen,
    initial_state,
    predict,
    train_chunk,
    train_epoch,
    train_step,
)
from dib_jax.training.workdir import (
    claim,
    finished,
    hardware,
    read_config,
    read_results,
    versions,
    write_json,
)

_EVALUATION_BATCH = 500
# Of a stream, in one program's run.
_CHUNK_BYTES = 2**26
# Checkpoints between the ends of blocks are written as often as keeps their cost below
# this share of the time.
_CHECKPOINT_SHARE = 0.05

# On the device, or on the host where pictures are streamed.
Split = dict[str, Any]


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
    """A block in training.

    Attributes:
        state: of the last epoch.
        best: stages' and head's variables of the best epoch on the validation split.
    """

    state: StageState
    best: tuple[tuple[Variables, ...], Variables]


class Position(NamedTuple):
    """Where a run stands; plain JSON.

    Attributes:
        block: number of the block that trains.
        epoch: epochs of it that are done.
        best_epoch: the best of them on the validation split, or the last.
        validation: the metrics of that epoch; empty without a validation split.
        seconds: that this block has trained, compilation included.
        compile_seconds: that the whole run has spent on compilation.
        metrics_bytes: length of metrics.jsonl.
        stages: entries of results.json for the trained blocks.
    """

    block: int = 0
    epoch: int = 0
    best_epoch: int = 0
    validation: dict[str, float] = {}  # noqa: RUF012 - never changed, only replaced
    seconds: float = 0.0
    compile_seconds: float = 0.0
    metrics_bytes: int = 0
    stages: tuple[dict[str, Any], ...] = ()


class Trained(NamedTuple):
    """A finished run.

    Attributes:
        experiment: its pieces.
        network: its variables.
        results: what results.json holds.
        test: metrics of each block's head on the test split.
        outputs: of the last head for the test split, (n, …, num_outputs).
    """

    experiment: Experiment
    network: Network
    results: dict[str, Any]
    test: list[dict[str, float]]
    outputs: np.ndarray


def train(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, *, config_name: str
) -> Trained:
    """Train the experiment of a config in a workdir, or go on where it stopped.

    Args:
        config: a complete config that `dib_jax.training.config.check` accepts.
        workdir: a new or empty folder, or that of an earlier start of the same config.
        config_name: for results.json.

    Returns:
        The finished run, results.json written.

    Raises:
        ValueError: the workdir belongs to another config, or the data cannot be used.
        FileNotFoundError: the data set is not there.
        NonFiniteError: a loss became NaN or infinite.
        dib_jax.checkpoints.CheckpointError: there are checkpoints, but no sound one.
    """
    experiment = assemble(config)
    claim(workdir, config)
    # LAPACK's threads only get in the way of XLA's own: small eigendecompositions on a
    # CPU are faster on one thread.
    one_thread = threadpoolctl.threadpool_limits(1, user_api="blas")
    with one_thread, Progress(sum(experiment.epochs)) as progress:
        position, network, training = _resume(workdir, experiment, progress)
        data = _place(experiment, experiment.dataset.train)
        validation = _place(experiment, experiment.dataset.validation)
        while position.block < len(experiment.blocks):
            position, network = _train_block(
                workdir,
                experiment,
                data,
                validation,
                position,
                network,
                training,
                progress,
            )
            training = None
    test, outputs = evaluate(experiment, network)
    results = _results(config, config_name, experiment, position, test)
    write_json(workdir / "results.json", results)
    return Trained(experiment, network, results, test, outputs)


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


def restore(workdir: pathlib.Path) -> tuple[Experiment, Network, dict[str, Any]]:
    """The pieces, the network and the results of a finished run, nothing evaluated.

    Args:
        workdir: of a finished run.

    Raises:
        ValueError: there is no finished run.
        FileNotFoundError: the data set is not there any more.
        dib_jax.checkpoints.CheckpointError: the checkpoint of its end is damaged.
    """
    results = read_results(workdir)
    experiment = assemble(read_config(workdir))
    with Progress(0) as progress:
        position, network, _ = _resume(workdir, experiment, progress)
    if position.block < len(experiment.blocks):
        raise checkpoints.CheckpointError(
            f"{workdir / 'checkpoints'}: the checkpoint of the finished network is "
            "damaged; move results.json away, and the same run goes on from the last "
            "sound one"
        )
    return experiment, network, results


def evaluate(
    experiment: Experiment, network: Network
) -> tuple[list[dict[str, float]], np.ndarray]:
    """Metrics of every block's head on the test split, and the last one's outputs.

    Args:
        experiment: the experiment.
        network: variables of all its stages and heads.

    Returns:
        A dict of metrics for each block, and (n, …, num_outputs).
    """
    test = _place(experiment, experiment.dataset.test)
    metrics = []
    for block, head in zip(experiment.blocks, network.heads, strict=True):
        outputs = _outputs(block, network, head, test["images"])
        metrics.append(_metrics(block, outputs, test))
    return metrics, np.asarray(outputs)


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
    block, head = experiment.blocks[-1], network.heads[-1]
    return _outputs(block, network, head, images)


def _outputs(
    block: Block, network: Network, head: Variables, images: jax.Array | np.ndarray
) -> jax.Array:
    stages, split = network.stages[: block.stage + 1], len(block.trunk)
    return _predictor(block)(stages[:split], stages[split:], head, images)


def _place(experiment: Experiment, split: dict[str, np.ndarray]) -> Split:
    """A split on the device; on the host, as it is, where pictures are streamed."""
    if experiment.streams:
        return split
    return {name: jnp.asarray(array) for name, array in split.items()}


def _predictor(block: Block) -> Callable[..., jax.Array]:
    run = jax.jit(functools.partial(predict, block, batch_size=_EVALUATION_BATCH))

    def outputs(trunk: Any, stages: Any, head: Any, images: Any) -> jax.Array:
        count = len(images)
        if isinstance(images, jax.Array) or count <= _EVALUATION_BATCH:
            return run(trunk, stages, head, images)
        # The last picture again and again up to whole batches, cut off at the end.
        rows = np.minimum(np.arange(count + -count % _EVALUATION_BATCH), count - 1)
        order = rows.reshape(-1, _EVALUATION_BATCH)
        chunks = stream({"images": images}, order, steps=1)
        parts = [run(trunk, stages, head, chunk["images"][0]) for chunk in chunks]
        return jnp.concatenate(parts)[:count]

    return outputs


def _metrics(block: Block, outputs: jax.Array, split: Split) -> dict[str, float]:
    values = jax.jit(block.task.metrics)(outputs, block.task.targets(split))
    return {name: float(value) for name, value in values.items()}


def _train_block(
    workdir: pathlib.Path,
    experiment: Experiment,
    data: Split,
    validation: Split,
    position: Position,
    network: Network,
    training: Training | None,
    progress: Progress,
) -> tuple[Position, Network]:
    """Train one block from where the run stands to the block's end."""
    begin = time.monotonic() - position.seconds
    block = experiment.blocks[position.block]
    epochs = experiment.epochs[position.block]
    init_key, train_key = _block_keys(experiment, block)
    if training is None:
        training = _untrained(block, init_key, data["images"])
    run_epoch, figures, compile_seconds = _compile(
        block, training.state, network.stages, data, train_key
    )
    predictor = _predictor(block)
    position = position._replace(
        compile_seconds=position.compile_seconds + compile_seconds
    )
    saved, save_seconds = time.monotonic(), 0.0
    with (workdir / "metrics.jsonl").open("ab") as record:
        for epoch in range(position.epoch + 1, epochs + 1):
            start = time.monotonic()
            state, terms = run_epoch(training.state, network.stages, data, train_key)
            metrics = {"train": _averages(terms, block, epoch)}
            if len(validation["labels"]):
                outputs = predictor(
                    network.stages, *frozen(state), validation["images"]
                )
                metrics["validation"] = _metrics(block, outputs, validation)
            training = training._replace(state=state)
            validated = metrics.get("validation", {})
            if _at_least_as_good(validated, position.validation, block.task.metric):
                # Copied: the state's own buffers are given to the next epoch.
                training = training._replace(best=_copy(frozen(state)))
                position = position._replace(best_epoch=epoch, validation=validated)
            _write_lines(record, block, epoch, state, metrics, time.monotonic() - start)
            progress.epoch(block.stage, epoch, epochs, metrics)
            position = position._replace(
                epoch=epoch,
                seconds=time.monotonic() - begin,
                metrics_bytes=record.tell(),
            )
            pause = time.monotonic() - saved
            if epoch < epochs and save_seconds <= _CHECKPOINT_SHARE * pause:
                _save(workdir, experiment, position, network, training)
                saved, save_seconds = time.monotonic(), time.monotonic() - saved - pause
    stages, head = training.best
    network = Network((*network.stages, *stages), (*network.heads, head))
    entry = {
        "stage": block.stage,
        "validation": position.validation,
        "seconds": round(time.monotonic() - begin, 3),
        "epochs": epochs,
        "best_epoch": position.best_epoch,
        **figures,
    }
    position = Position(
        block=position.block + 1,
        compile_seconds=position.compile_seconds,
        metrics_bytes=position.metrics_bytes,
        stages=(*position.stages, entry),
    )
    _save(workdir, experiment, position, network, None)
    return position, network


def _block_keys(experiment: Experiment, block: Block) -> tuple[jax.Array, jax.Array]:
    init_key, train_key = jax.random.split(
        jax.random.fold_in(experiment.key, block.stage)
    )
    return init_key, train_key


def _untrained(block: Block, key: jax.Array, images: jax.Array) -> Training:
    state = jax.jit(functools.partial(initial_state, block))(key, images[:2])
    return Training(state, _copy(frozen(state)))


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _compile(
    block: Block,
    state: StageState,
    trunk: tuple[Variables, ...],
    data: Split,
    key: jax.Array,
) -> tuple[Callable[..., Any], dict[str, int | None], float]:
    """The compiled epoch, the compiler's figures for one step, and how long it took."""
    start = time.monotonic()

    def epoch(state: Any, trunk: Any, data: Any, key: Any) -> Any:
        return train_epoch(block, state, trunk, data, key=key)

    def chunk(state: Any, trunk: Any, batches: Any, key: Any) -> Any:
        return train_chunk(block, state, trunk, batches, key=key)

    def step(state: Any, trunk: Any, batch: Any, key: Any) -> Any:
        return train_step(block, state, trunk, batch, key=key)

    def lower(function: Any, data: Any) -> Any:
        lowered = jax.jit(function, donate_argnums=0)
        return lowered.lower(state, trunk, data, key)

    lowered_step = lower(step, _shapes(data, block.batch_size))
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        compiled_step = beside.submit(lowered_step.compile)
        if isinstance(data["images"], jax.Array):
            run_epoch = lower(epoch, data).compile()
        else:
            sizes = _chunk_sizes(block, data)
            run_chunk = {
                steps: lower(chunk, _shapes(data, steps, block.batch_size)).compile()
                for steps in sizes
            }
            run_epoch = functools.partial(_stream_epoch, block, run_chunk)
        figures = compiler_figures(compiled_step.result())
    return run_epoch, figures, time.monotonic() - start


def _shapes(data: Split, *counts: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What batches of a split look like to the compiler."""
    return {
        name: jax.ShapeDtypeStruct((*counts, *array.shape[1:]), array.dtype)
        for name, array in data.items()
    }


def _chunk_sizes(block: Block, data: Split) -> tuple[int, ...]:
    """Steps of a chunk of a stream, the largest first, then of the epoch's last one."""
    steps = len(data["labels"]) // block.batch_size
    step_bytes = block.batch_size * sum(array[:1].nbytes for array in data.values())
    most = min(max(1, _CHUNK_BYTES // step_bytes), steps)
    return (most, steps % most) if steps % most else (most,)


def _stream_epoch(
    block: Block,
    run_chunk: dict[int, Callable[..., Any]],
    state: StageState,
    trunk: tuple[Variables, ...],
    data: Split,
    key: jax.Array,
) -> tuple[StageState, dict[str, np.ndarray]]:
    """As `train_epoch`, on pictures that stay on the host."""
    order = epoch_order(
        key, state.step, count=len(data["labels"]), batch_size=block.batch_size
    )
    terms = []
    for batches in stream(data, np.asarray(order), steps=max(run_chunk)):
        chunk = run_chunk[len(batches["labels"])]
        state, values = chunk(state, trunk, batches, key)
        terms.append(values)
    return state, {
        name: np.concatenate([np.asarray(values[name]) for values in terms])
        for name in terms[0]
    }


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


def _averages(
    terms: dict[str, jax.Array], block: Block, epoch: int
) -> dict[str, float]:
    """Mean of each term over the steps of an epoch, all of which must be finite."""
    values = {name: np.asarray(steps) for name, steps in terms.items()}
    bad = ~np.isfinite(np.stack(list(values.values())))
    if bad.any():
        step = int(bad.any(axis=0).argmax())
        name = list(values)[int(bad[:, step].argmax())]
        raise NonFiniteError(
            f"stage {block.stage}, epoch {epoch}, step {step + 1} of the epoch: {name} "
            f"is {values[name][step]}; the last checkpoint is from before it; try a "
            "smaller optimizer.learning_rate or a longer optimizer.warmup_epochs"
        )
    return {name: float(steps.mean()) for name, steps in values.items()}


def _at_least_as_good(
    new: dict[str, float], best: dict[str, float], metric: str
) -> bool:
    # At equal scores the later epoch, which has seen more. Without a validation split
    # there is no selection: always the later epoch.
    return not best or new[metric] >= best[metric]


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
    done = sum(experiment.epochs[: position.block]) + position.epoch
    tree = {"network": network, "training": training}
    checkpoints.save(workdir / "checkpoints", done, tree, position._asdict())


def _resume(
    workdir: pathlib.Path, experiment: Experiment, progress: Progress
) -> tuple[Position, Network, Training | None]:
    """Position, network and block in training of the newest sound checkpoint."""
    newest = checkpoints.newest_sound(workdir / "checkpoints", report=progress.say)
    if newest is None:
        position, network, training = Position(), Network((), ()), None
    else:
        path, metadata = newest
        position = Position(**{**metadata, "stages": tuple(metadata["stages"])})
        target = jax.eval_shape(functools.partial(_structure, experiment, position))
        tree = checkpoints.restore(path, target)
        network, training = tree["network"], tree["training"]
        done = sum(experiment.epochs[: position.block]) + position.epoch
        progress.epochs_done(done)
        if not finished(workdir):
            progress.say(
                f"going on after epoch {done} of {sum(experiment.epochs)}, from {path}"
            )
    _cut(workdir / "metrics.jsonl", position.metrics_bytes)
    return position, network, training


def _structure(experiment: Experiment, position: Position) -> dict[str, Any]:
    """A tree like the one that `_save` wrote at a position."""
    images = jnp.zeros((2, *experiment.dataset.train["images"].shape[1:]), jnp.uint8)
    trained = [
        _untrained(block, experiment.key, images)
        for block in experiment.blocks[: position.block + (position.epoch > 0)]
    ]
    training = trained.pop() if position.epoch else None
    network = Network(
        tuple(stage for entry in trained for stage in entry.best[0]),
        tuple(entry.best[1] for entry in trained),
    )
    return {"network": network, "training": training}


def _cut(path: pathlib.Path, size: int) -> None:
    """Drop the lines of epochs that are not in the checkpoint: they are made again."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


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
        "test": stages[-1]["test"],
        "validation": stages[-1]["validation"],
        "stages": stages,
        "temp_bytes": largest("temp_bytes"),
        "peak_bytes": largest("peak_bytes"),
        "seconds": round(math.fsum(entry["seconds"] for entry in stages), 3),
        "compile_seconds": round(position.compile_seconds, 3),
        "hardware": hardware(),
        "versions": versions(),
    }
