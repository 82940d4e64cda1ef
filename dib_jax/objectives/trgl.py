"""Transport-regularised greedy learning: a stage pays for how far it moves features."""

import math

import jax
import jax.numpy as jnp

from dib_jax.models.options import number_for_stage
from dib_jax.objectives import Objective, Signals, Terms


def trgl(*, tau: float | tuple[float, ...] = 1.0) -> Objective:
    """Task loss plus ‖T_k − T_{k−1}‖²/(2τ), the transport of a residual stage.

    The square is the mean over all numbers of the batch. **Where a stage changes the
    shape of its input there is no such distance: it learns by the task's loss alone**,
    and its transport is recorded as 0. Made for residual networks.

    Args:
        tau: τ, > 0, one number or one per stage; features move more freely the greater
            it is.

    Returns:
        The objective; it records `transport`, without its weight.

    Raises:
        ValueError: `tau` is not above 0; when called, no number for the stage.

    Source: Karkar, Ayed, de Bézenac & Gallinari, arXiv 2309.17357, section 3; the mean
    over numbers is that of the authors' published runs (ResNet-110 on STL-10; τ = 1,
    and 0.5 in the first of two halves). They price the residual branch, before the last
    ReLU, and so a module that changes the shape as well.
    """
    for value in tau if isinstance(tau, tuple | list) else (tau,):
        if not 0 < value < math.inf:
            raise ValueError(f"tau must be > 0, got {value!r}")

    def objective(signals: Signals) -> tuple[jax.Array, Terms]:
        price = number_for_stage("tau", tau, signals.stage)
        features, source = signals.features, signals.stage_input
        if features.shape != source.shape:
            return signals.task_loss, {"transport": jnp.zeros(())}
        dtype = jnp.promote_types(features.dtype, jnp.float32)
        transport = jnp.mean((features.astype(dtype) - source.astype(dtype)) ** 2)
        return signals.task_loss + transport / (2 * price), {"transport": transport}

    return objective
