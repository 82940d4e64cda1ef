"""The loss of the task at every stage, without an information term."""

import jax

from dib_jax.objectives import Objective, Signals, Terms


def cross_entropy() -> Objective:
    """The loss of the auxiliary head alone: cross-entropy, where classes are the task.

    Returns:
        The objective; it adds no term to those that every stage records.

    Source: Belilovsky, Eickenberg & Oyallon, arXiv 1812.11446.
    """

    def objective(signals: Signals) -> tuple[jax.Array, Terms]:
        return signals.task_loss, {}

    return objective
