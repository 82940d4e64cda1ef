"""All blocks at once, with heads that follow the next stage's weights."""

import functools

import jax

from dib_jax.algorithms import Algorithm, Parts, per_phase
from dib_jax.algorithms.blocks import (
    States,
    at_once,
    block,
    neighbours,
    stack,
)

# The collection of a head's variables that follows the next block's first stage.
FOLLOWER = "follower"


def momentum(
    parts: Parts, *, decay: float = 0.995, blocks: int = 1, remat: bool = False
) -> Algorithm:
    """All blocks at once, each head following the next stage by a moving average.

    For heads with weights that follow (`head.name=momentum`): after each step they are
    `decay` times themselves plus (1 − decay) times those of the next block's first
    stage. They start as these. No gradient crosses between blocks.

    Args:
        parts: network, heads, objective, as a config has them.
        decay: what stays of a follower's weights at each step, 0 to 1, 1 excluded.
        blocks: neighbouring stages that train together as one block.
        remat: whether the backward pass recomputes each stage from its input: less
            memory, more time, the same gradient.

    Raises:
        ValueError: `decay` is not in 0..1, `blocks` is below 1, `epochs` has more than
            one number, or no head follows.

    Source: MAN, Su et al., arXiv 2407.05623, with m = `decay` = 0.995. There the
    weights start at random.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be 0 to 1, 1 excluded, got {decay!r}")
    (epochs,) = per_phase(parts.epochs, 1)
    made = [
        block(parts, group, epochs, remat=remat, followed=True)
        for group in neighbours(len(parts.stages), blocks)
    ]
    if not any(hasattr(one.head, "following") for one in made[:-1]):
        raise ValueError(
            "algorithm.name: got 'momentum', but no head follows the next stage; use "
            "head.name=momentum, or algorithm.name=parallel"
        )
    phase = at_once(
        made,
        epochs,
        after_init=functools.partial(_follow, 0.0),
        after_step=functools.partial(_follow, decay),
    )
    return stack([phase], made)


def _follow(decay: float, states: States) -> States:
    """The states with every follower moved towards the next block's first stage."""
    moved = list(states)
    for index, following in enumerate(states[1:]):
        state = states[index]
        if FOLLOWER not in state.head:
            continue
        weights = following.params[0]
        if decay:  # else just these: compiled, 0 · x + 1 · y is y but for the last bit
            weights = jax.tree.map(
                lambda follower, new: decay * follower + (1 - decay) * new,
                state.head[FOLLOWER]["params"],
                weights,
            )
        head = {**state.head, FOLLOWER: {"params": weights}}
        moved[index] = state.replace(head=head)
    return tuple(moved)
