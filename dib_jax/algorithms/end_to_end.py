"""Back-propagation through all stages: the baseline."""

from dib_jax.algorithms import Algorithm, Parts, per_phase
from dib_jax.algorithms.blocks import block, local, stack, task_loss


def end_to_end(parts: Parts, *, remat: bool = False) -> Algorithm:
    """All stages together by back-propagation, on the task's loss.

    Args:
        parts: network, heads, objective, as a config has them. Only the last stage's
            head is used, and the objective is not.
        remat: whether the backward pass recomputes each stage from its input: less
            memory, more time, the same gradient.

    Raises:
        ValueError: `epochs` has more than one number.

    Source: of `remat`, Chen et al., Training Deep Nets with Sublinear Memory Cost,
    arXiv 1604.06174.
    """
    (epochs,) = per_phase(parts.epochs, 1)
    every = range(len(parts.stages))
    whole = block(parts, every, epochs, objective=task_loss, remat=remat)
    return stack([local(whole, epochs)], [whole])
