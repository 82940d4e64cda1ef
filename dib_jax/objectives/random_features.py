"""A control: stages stay at their random weights, and only their heads learn."""

import jax

from dib_jax.objectives import Objective, Signals, Terms


def random_features() -> Objective:
    """The task's loss of the head on detached features: no gradient reaches the stage.

    What a method gains over this, it gains by training its stages. Weight decay still
    shrinks them, and batch norms still follow their input.

    Returns:
        The objective; it adds no term to those that every stage records.

    Source: a usual control; e.g. Belilovsky, Eickenberg & Oyallon, arXiv 1812.11446,
    compare with random features.
    """

    def objective(signals: Signals) -> tuple[jax.Array, Terms]:
        return signals.head_loss, {}

    return objective
