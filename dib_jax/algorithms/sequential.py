"""Blocks of stages one after the other, each frozen before the next one starts."""

from dib_jax.algorithms import Algorithm, Parts, per_phase
from dib_jax.algorithms.blocks import block, local, neighbours, stack


def sequential(parts: Parts, *, blocks: int = 1, remat: bool = False) -> Algorithm:
    """Blocks of stages in turn, each frozen before the next one starts.

    Args:
        parts: network, heads, objective, as a config has them.
        blocks: neighbouring stages that train together as one block.
        remat: whether the backward pass recomputes each stage from its input: less
            memory, more time, the same gradient.

    Raises:
        ValueError: `blocks` is below 1, or `epochs` has not one number for each block.

    Source: Bengio et al., Greedy Layer-Wise Training of Deep Networks, 2006, for the
    order; the loss is the objective's.
    """
    groups = neighbours(len(parts.stages), blocks)
    epochs = per_phase(parts.epochs, len(groups))
    made = [
        block(parts, group, count, remat=remat)
        for group, count in zip(groups, epochs, strict=True)
    ]
    # Its samples come as the block before had them: they pass that block alone.
    borders = [0, 0, *(one.first for one in made[1:])]
    phases = [
        local(one, count, trunk=parts.stages[: one.first], done=border)
        for one, count, border in zip(made, epochs, borders, strict=False)
    ]
    return stack(phases, made)
