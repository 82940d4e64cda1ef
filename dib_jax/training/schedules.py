"""Which stages train together, in which order, and on what.

A schedule turns a number of stages into blocks of neighbouring stages. Blocks train one
after the other, each on the frozen outputs of those before it, or all at once, each on
what those before it put out at that very step. No gradient passes from block to block.
"""

from collections.abc import Callable
from typing import NamedTuple


class Schedule(NamedTuple):
    """A way to train a stack of stages.

    Attributes:
        blocks: number of stages, stages per block → the stages of each block, in order.
        local: whether a block trains on the config's objective, or else on the task's
            own loss.
        together: whether all blocks train at once, or else one after the other.
    """

    blocks: Callable[[int, int], tuple[tuple[int, ...], ...]]
    local: bool
    together: bool = False


def _neighbours(stages: int, size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(range(first, min(first + size, stages)))
        for first in range(0, stages, size)
    )


def _everything(stages: int, size: int) -> tuple[tuple[int, ...], ...]:
    del size  # all stages are one block
    return (tuple(range(stages)),)


SCHEDULES: dict[str, Schedule] = {
    "sequential": Schedule(blocks=_neighbours, local=True),
    "parallel": Schedule(blocks=_neighbours, local=True, together=True),
    # Back-propagation through one block that holds every stage.
    "end_to_end": Schedule(blocks=_everything, local=False),
}
