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
        every_stage: whether the objective is applied to each stage inside a block too,
            with no loss of the task there.
        readout: whether, after all blocks, an output layer is trained alone, by the
            task's own loss, on what the last one puts out.
    """

    blocks: Callable[[int, int], tuple[tuple[int, ...], ...]]
    local: bool
    together: bool = False
    every_stage: bool = False
    readout: bool = False

    def turns(self, blocks: int) -> int:
        """How often training starts anew, each time with epochs of its own.

        Args:
            blocks: number of blocks.
        """
        return (1 if self.together else blocks) + self.readout


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
    # The same, with the objective's terms at every stage.
    "end_to_end_penalized": Schedule(blocks=_everything, local=True, every_stage=True),
    "parallel_readout": Schedule(
        blocks=_neighbours, local=True, together=True, readout=True
    ),
}
