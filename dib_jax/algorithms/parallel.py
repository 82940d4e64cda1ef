"""All blocks of stages at once, with no gradient between them."""

from dib_jax.algorithms import Algorithm, Parts, per_phase
from dib_jax.algorithms.blocks import at_once, block, neighbours, stack


def parallel(parts: Parts, *, blocks: int = 1, remat: bool = False) -> Algorithm:
    """All blocks of stages at once in one step, with no gradient between them.

    Each block trains on what the one before put out at that very step.

    Args:
        parts: network, heads, objective, as a config has them.
        blocks: neighbouring stages that train together as one block.
        remat: whether the backward pass recomputes each stage from its input: less
            memory, more time, the same gradient.

    Raises:
        ValueError: `blocks` is below 1, or `epochs` has more than one number.

    Source: Belilovsky, Eickenberg & Oyallon, Decoupled Greedy Learning of CNNs, arXiv
    1901.08164, without its buffers.
    """
    (epochs,) = per_phase(parts.epochs, 1)
    made = [
        block(parts, group, epochs, remat=remat)
        for group in neighbours(len(parts.stages), blocks)
    ]
    return stack([at_once(made, epochs)], made)
