"""Stages in turn, each trained only on the samples that the exits before got wrong."""

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.algorithms import Algorithm, Batch, Data, Parts, in_batches, per_phase
from dib_jax.algorithms.blocks import Network, block, local, stack


def leftovers(parts: Parts, *, sure: float = 0.5) -> Algorithm:
    """Stages in turn, each on what the exits before it got wrong.

    A sample is answered by the first exit that is sure of it.

    Args:
        parts: network, heads, objective, as a config has them.
        sure: probability from which an exit answers.
    """
    epochs = per_phase(parts.epochs, len(parts.stages))
    blocks = [block(parts, (k,), count) for k, count in enumerate(epochs)]
    exits = stack((), blocks).predict

    def answers(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        first, *later = exits(network, batch)
        answered = [first]
        for outputs in later:
            is_sure = jax.nn.softmax(answered[-1]).max(axis=-1, keepdims=True) >= sure
            answered.append(jnp.where(is_sure, answered[-1], outputs))
        return tuple(answered)

    def hard(network: Network, data: Data) -> Data:
        outputs = in_batches(lambda batch: answers(network, batch)[-1], data)
        wrong = jnp.argmax(outputs, axis=-1) != data.samples["labels"]
        # An exit that is never wrong leaves its successor everything.
        return data.take(np.flatnonzero(wrong)) if wrong.any() else data

    phases = [
        local(one, count, trunk=parts.stages[:k], done=max(k - 1, 0))._replace(
            enter=hard if k else None, outputs=None
        )
        for k, (one, count) in enumerate(zip(blocks, epochs, strict=True))
    ]
    return stack(phases, blocks)._replace(predict=answers)
