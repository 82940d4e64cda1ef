"""Back-propagation through all stages, with the objective's terms at each of them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dib_jax.algorithms import Algorithm, Parts, per_phase
from dib_jax.algorithms.blocks import Loss, block, local, stack
from dib_jax.objectives import Objective, Signals, Terms, checked


def end_to_end_penalized(parts: Parts, *, remat: bool = False) -> Algorithm:
    """Back-propagation through all stages, with the objective's terms at every stage.

    The objective is applied at the last stage, and what it adds to the task's loss at
    each stage inside is added.

    Args:
        parts: network, heads, objective, as a config has them. Only the last stage's
            head is used.
        remat: whether the backward pass recomputes each stage from its input: less
            memory, more time, the same gradient.

    Raises:
        ValueError: `epochs` has more than one number, or the objective has modules,
            which stages inside a block cannot train.

    Source: ours; a control that tells a term's effect from that of training stage by
    stage.
    """
    if hasattr(parts.objective, "modules"):
        raise ValueError(
            "algorithm.name: got 'end_to_end_penalized', which cannot train the "
            "modules of this objective; use sequential or parallel"
        )
    (epochs,) = per_phase(parts.epochs, 1)
    every = range(len(parts.stages))
    loss = _at_every_stage(parts.objective)
    whole = block(parts, every, epochs, loss=loss, remat=remat)
    return stack([local(whole, epochs)], [whole])


def _at_every_stage(objective: Objective) -> Loss:
    """The objective at a block's end, plus what it adds at the stages inside."""

    def loss(
        signals: Signals, features: Sequence[jax.Array]
    ) -> tuple[jax.Array, Terms]:
        count = len(features) - 1
        first = signals.stage - count + 1
        none = jnp.zeros_like(signals.task_loss)
        value, terms = checked(objective(signals._replace(stage_input=features[-2])))
        for offset in range(count - 1):
            inside = signals._replace(
                stage_input=features[offset],
                features=features[offset + 1],
                stage=first + offset,
                task_loss=none,
                head_loss=none,
            )
            added, inner = checked(objective(inside))
            value = value + added
            terms |= {f"stage{first + offset}_{name}": x for name, x in inner.items()}
        return value, terms

    return loss
