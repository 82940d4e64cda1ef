"""GreedyDIB's local loss: the deterministic information bottleneck at one stage."""

import jax
import jax.numpy as jnp

from dib_jax.information import (
    check_bandwidth,
    gaussian_gram,
    mutual_information,
    named_bandwidth,
    renyi_entropy,
)
from dib_jax.objectives import Objective, Signals, Terms

# What is compressed, and the name under which it is recorded, in bits.
_TERMS = {
    "input": "input_information",
    "previous": "previous_information",
    "entropy": "entropy",
}


def dib(
    *,
    alpha: float = 1.01,
    beta: float | tuple[float, ...] = 0.01,
    compress: str = "input",
    bandwidth: str = "mean",
) -> Objective:
    """Task loss plus β times the information that the stage's features hold.

    loss = task_loss(head(T_k), Y) + β · R, where `compress` chooses R, in bits:
    input I_α(X; T_k), previous I_α(T_{k−1}; T_k), entropy H_α(T_k).

    Args:
        alpha: order of the Rényi entropy, > 0.
        beta: weight of R, a number or one per stage; negative keeps information.
        compress: input, previous or entropy: the information that is weighted.
        bandwidth: how the Gaussian kernel gets its width from each batch: mean, median,
            knn, quantile or scott; or the width itself, a number > 0.

    Returns:
        The objective; it records R under its name, and the features' `sigma`.

    Raises:
        ValueError: `alpha` ≤ 0, or an unknown `compress` or `bandwidth`; when called,
            `beta` that has no number for the stage.

    Source: Lyu, Wu & Du, arXiv 2510.27651, reconstructed from the abstract; I_α(X; T)
    of matrices by Yu, Yu & Príncipe, arXiv 2102.00533, eq. 10; H(T) in place of I(X; T)
    by Strouse & Schwab, arXiv 1604.00268.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha!r}")
    if compress not in _TERMS:
        raise ValueError(f"compress must be one of {list(_TERMS)}, got {compress!r}")
    check_bandwidth(bandwidth)

    def gram(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        sigma = named_bandwidth(x, bandwidth)
        return gaussian_gram(x, sigma=sigma), sigma

    def objective(signals: Signals) -> tuple[jax.Array, Terms]:
        features, sigma = gram(signals.features)
        if compress == "entropy":
            information = renyi_entropy(features, alpha=alpha)
        else:
            source = (
                signals.network_input if compress == "input" else signals.stage_input
            )
            information = mutual_information(gram(source)[0], features, alpha=alpha)
        loss = signals.task_loss + _at(beta, signals.stage) * information
        return loss, {_TERMS[compress]: information, "sigma": sigma}

    return objective


def _at(beta: float | tuple[float, ...], stage: int) -> float:
    if not isinstance(beta, tuple | list):
        return beta
    if stage >= len(beta):
        raise ValueError(
            f"beta has {len(beta)} numbers, none for stage {stage}; give one number, "
            "or one for each stage"
        )
    return beta[stage]
