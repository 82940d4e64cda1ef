"""What a network puts out for pictures, and how good that is."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.data.stream import stream
from dib_jax.tasks import Task
from dib_jax.training.devices import (
    put,
    replicated,
)
from dib_jax.training.experiment import Experiment
from dib_jax.training.steps import (
    Block,
    Variables,
    predict,
    with_prepare,
)

_EVALUATION_BATCH = 512
# On the device, or on the host where pictures are streamed.
Split = dict[str, Any]


class Network(NamedTuple):
    """The trained part of a network.

    Attributes:
        stages: variables (`params`, `batch_stats`) of each trained stage.
        heads: variables of each trained block's head.
    """

    stages: tuple[Variables, ...]
    heads: tuple[Variables, ...]


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
    test = place(experiment, experiment.dataset.test)
    outputs = predictor_of(experiment, experiment.blocks)((), *network, test["images"])
    task, ensemble = experiment.task, None
    if task.ensemble and len(outputs) > 1:
        (ensemble,) = metrics_of(task, (jax.jit(task.ensemble)(outputs),), test)
    return metrics_of(task, outputs, test), np.asarray(outputs[-1]), ensemble


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
    (outputs,) = predictor_of(experiment, last)(
        trunk, stages, network.heads[-1:], images
    )
    return outputs


def place(experiment: Experiment, split: dict[str, np.ndarray]) -> Split:
    """A split on the device; on the host, as it is, where pictures are streamed."""
    if experiment.streams:
        return split
    return put(dict(split), replicated(experiment.mesh))


def predictor_of(
    experiment: Experiment, blocks: tuple[Block, ...], *, trunk_done: bool = False
) -> Callable[..., tuple[jax.Array, ...]]:
    """A function (trunk, stages, heads, images) → outputs of each block's head.

    Args:
        experiment: the experiment.
        blocks: neighbours, input side first.
        trunk_done: whether `images` are what the trunk put out for them.

    Returns:
        The function; pictures on the host are read by it batch by batch.
    """
    prepare = blocks[0].prepare

    @functools.partial(jax.jit, out_shardings=replicated(experiment.mesh))
    def run(prepare: Any, trunk: Any, stages: Any, heads: Any, images: Any) -> Any:
        return predict(
            with_prepare(blocks, prepare),
            trunk,
            stages,
            heads,
            images,
            batch_size=_EVALUATION_BATCH,
            trunk_done=trunk_done,
        )

    def outputs(trunk: Any, stages: Any, heads: Any, images: Any) -> Any:
        count = len(images)
        if isinstance(images, jax.Array) or count <= _EVALUATION_BATCH:
            return run(prepare, trunk, stages, heads, images)
        # The last picture again and again up to whole batches, cut off at the end.
        rows = np.minimum(np.arange(count + -count % _EVALUATION_BATCH), count - 1)
        order = rows.reshape(-1, _EVALUATION_BATCH)
        chunks = stream({"images": images}, order, steps=1)
        parts = [
            # Waited for: the device need not hold the pictures of all of them.
            jax.block_until_ready(
                run(prepare, trunk, stages, heads, chunk["images"][0])
            )
            for chunk in chunks
        ]
        return tuple(jnp.concatenate(own)[:count] for own in zip(*parts, strict=True))

    return outputs


def metrics_of(
    task: Task, outputs: tuple[jax.Array, ...], split: Split
) -> list[dict[str, float]]:
    """Metrics of each block's outputs."""
    measure, targets = jax.jit(task.metrics), task.targets(split)
    values = [measure(own, targets) for own in outputs]
    return [{name: float(value) for name, value in own.items()} for own in values]
