"""All blocks of stages at once, then an output layer alone: for losses without one."""

import flax.linen as nn
import jax

from dib_jax.algorithms import Algorithm, Parts, per_phase
from dib_jax.algorithms.blocks import (
    at_once,
    block,
    local,
    neighbours,
    stack,
    task_loss,
)


def parallel_readout(
    parts: Parts, *, blocks: int = 1, remat: bool = False
) -> Algorithm:
    """All blocks of stages at once, then an output layer alone on the frozen network.

    The output layer is the last stage's head with new weights, by the task's loss.

    Args:
        parts: network, heads, objective, as a config has them.
        blocks: neighbouring stages that train together as one block.
        remat: whether the backward pass recomputes each stage from its input: less
            memory, more time, the same gradient.

    Raises:
        ValueError: `blocks` is below 1, or `epochs` has not one number, or one for the
            stages and one for the output layer.

    Source: the format training of Ma, Lewis & Kleijn, arXiv 1908.01580.
    """
    epochs = per_phase(parts.epochs, 2)
    made = [
        block(parts, group, epochs[0], remat=remat)
        for group in neighbours(len(parts.stages), blocks)
    ]
    last = len(parts.stages)
    extended = parts._replace(
        stages=(*parts.stages, Unchanged()), head=lambda stage: parts.head(last - 1)
    )
    readout = block(extended, (last,), epochs[1], objective=task_loss, remat=remat)
    phases = [
        at_once(made, epochs[0]),
        local(readout, epochs[1], trunk=parts.stages),
    ]
    return stack(phases, [*made, readout])


class Unchanged(nn.Module):
    """A stage that hands on what it gets: on it, an output layer is trained alone."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The input, as it is."""
        del train
        return x
