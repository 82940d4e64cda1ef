"""The HSIC bottleneck: dependence on the targets without dependence on the input."""

import math

import jax
import jax.numpy as jnp

from dib_jax.information import gaussian_gram, normalized_hsic, unit_scale
from dib_jax.models.options import check_positive
from dib_jax.objectives import Objective, Signals, Terms


def hsic_bottleneck(
    *,
    balance: float = 100.0,
    sigma: float = 5.0,
    epsilon: float = 1e-5,
    combine: tuple[float, ...] = (),
    relative: bool = False,
) -> Objective:
    """nHSIC(T_k, X) − λ nHSIC(T_k, Y); the head is trained on detached features.

    No gradient of a prediction reaches the stage. The paper trains its output layer
    afterwards ("format training"), which is `algorithm.name=parallel_readout`; that
    heads learn at the same time is ours.

    Args:
        balance: λ, the weight of nHSIC(T_k, Y), > 0; 50 to 500 in the paper.
        sigma: width of the Gaussian kernels in units of √d, d the numbers of a sample,
            > 0.
        epsilon: regularisation of the normalised HSIC, > 0.
        combine: widths of networks side by side ("σ-combined"): the features are
            divided into as many equal parts, and each part in order has the loss with
            one of these widths in place of `sigma`; () for one network.
        relative: whether the features' widths are also in units of their scale, the
            root mean square of their deviations from the mean. Then the loss does not
            reward larger features, which without norms grow from stage to stage until
            they overflow, and it does not vanish with small ones.

    Returns:
        The objective; it records `nhsic_input` and `nhsic_target`, means over parts.

    Raises:
        ValueError: an option is not above 0; when called, `combine` does not divide
            the features.

    Source: Ma, Lewis & Kleijn, arXiv 1908.01580, eq. 4 and section 4; `relative` is
    ours, where the authors' code has a batch norm in every layer. Of the targets it is
    the task's Gram; their code has a Gaussian one of one-hot labels.
    """
    check_positive(balance=balance, sigma=sigma, epsilon=epsilon)
    if combine and not (min(combine) > 0 and max(combine) < math.inf):
        raise ValueError(f"combine must be numbers > 0, got {combine!r}")

    def gram(x: jax.Array, sigma: float) -> jax.Array:
        return gaussian_gram(x, sigma=sigma * math.sqrt(x[0].size))

    def parts(features: jax.Array) -> list[tuple[jax.Array, float]]:
        if not combine:
            return [(features, sigma)]
        width = features.shape[-1]
        if width % len(combine):
            raise ValueError(
                f"combine: {width} features cannot be divided into {len(combine)} "
                "networks side by side; set model.parts to their number"
            )
        divided = jnp.split(features, len(combine), axis=-1)
        return list(zip(divided, combine, strict=True))

    def objective(signals: Signals) -> tuple[jax.Array, Terms]:
        with_input, with_target = [], []
        for features, width in parts(signals.features):
            hidden = gram(unit_scale(features) if relative else features, width)
            source = gram(signals.network_input, width)
            with_input.append(normalized_hsic(hidden, source, epsilon=epsilon))
            with_target.append(
                normalized_hsic(hidden, signals.target_gram, epsilon=epsilon)
            )
        on_input, on_target = jnp.stack(with_input), jnp.stack(with_target)
        loss = on_input.sum() - balance * on_target.sum() + signals.head_loss
        return loss, {"nhsic_input": on_input.mean(), "nhsic_target": on_target.mean()}

    return objective
