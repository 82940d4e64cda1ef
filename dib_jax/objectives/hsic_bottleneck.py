"""The HSIC bottleneck: dependence on the targets without dependence on the input."""

import math

import jax

from dib_jax.information import gaussian_gram, normalized_hsic
from dib_jax.objectives import Objective, Signals, Terms


def hsic_bottleneck(
    *, balance: float = 100.0, sigma: float = 5.0, epsilon: float = 1e-5
) -> Objective:
    """nHSIC(T_k, X) − λ nHSIC(T_k, Y); the head learns to read T_k meanwhile.

    No gradient of a prediction reaches the stage: the head is trained on detached
    features. The paper trains its output layer afterwards ("format training"); that
    it learns at the same time is ours.

    Args:
        balance: λ, the weight of what the features tell about the targets, > 0; 50 to
            500 in the paper.
        sigma: width of the Gaussian kernels in units of √d, d the numbers of a sample,
            > 0.
        epsilon: regularisation of the normalised HSIC, > 0.

    Returns:
        The objective; it records `nhsic_input` and `nhsic_target`.

    Raises:
        ValueError: an option is not above 0.

    Source: Ma, Lewis & Kleijn, arXiv 1908.01580, eq. 4.
    """
    for name, value in {"balance": balance, "sigma": sigma, "epsilon": epsilon}.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a number > 0, got {value!r}")

    def gram(x: jax.Array) -> jax.Array:
        return gaussian_gram(x, sigma=sigma * math.sqrt(x[0].size))

    def objective(signals: Signals) -> tuple[jax.Array, Terms]:
        features = gram(signals.features)
        with_input = normalized_hsic(
            features, gram(signals.network_input), epsilon=epsilon
        )
        with_target = normalized_hsic(features, signals.target_gram, epsilon=epsilon)
        loss = with_input - balance * with_target + signals.head_loss
        return loss, {"nhsic_input": with_input, "nhsic_target": with_target}

    return objective
