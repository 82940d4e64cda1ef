"""The plausible HSIC bottleneck: HSIC without centring, from pairs of samples."""

import math

import jax
import jax.numpy as jnp

from dib_jax.information import gaussian_gram
from dib_jax.models.options import check_one_of, check_positive
from dib_jax.objectives import Objective, Signals, Terms

_KERNELS = ("cosine", "gaussian", "linear")


def plausible_hsic(
    *,
    gamma: float = 2.0,
    kernel: str = "cosine",
    sigma: float = 5.0,
    groups: int = 0,
    power: float = 0.5,
    smoothing: float = 1.0,
) -> Objective:
    """pHSIC(T_k, T_k) − γ pHSIC(T_k, Y); the head is trained on detached features.

    pHSIC(A, B) = mean of a_ij b_ij − mean of a_ij · mean of b_ij over all pairs i, j:
    HSIC without its centring, so that pairs of samples suffice. The kernel of labels is
    the cosine of centred one-hot vectors: 1 in a class, −1/(C − 1) between classes.
    With `groups`, features are grouped first (`grouped`) and each sample is centred.

    No gradient of a prediction reaches the stage.

    Args:
        gamma: γ, the weight of pHSIC(T_k, Y), > 0.
        kernel: kernel of the features: cosine, gaussian or linear.
        sigma: width of the Gaussian kernel, in units of the features, > 0.
        groups: number of groups that neighbouring units or channels form; 0 for none.
        power: exponent of a group's variance, which stands for the group, > 0. In the
            paper 0.5, and 1 − p where divisive normalisation by the power p follows
            the loss; where features are normalised already, (1 − p)/(1 − 2p) comes to
            the same as long as δ is small beside a group's sum of squares.
        smoothing: δ ≥ 0, added to the sum of squares in a group's variance.

    Returns:
        The objective; it records `phsic_features` and `phsic_target`.

    Raises:
        ValueError: an option is out of its range; when called, `groups` does not divide
            the features, or targets are not one class for each sample.

    Source: Pogodin & Latham, arXiv 2006.07123, eqs. 4 to 8 (HSIC(Z, Z) stands for
    HSIC(X, Z), of which it is a bound); γ, σ, δ and the powers are those of the
    authors' published runs. That the head learns at the same time is ours.
    """
    check_positive(gamma=gamma, sigma=sigma, power=power)
    check_one_of(_KERNELS, kernel=kernel)
    if groups < 0 or not 0 <= smoothing < math.inf:
        raise ValueError(
            f"groups and smoothing must be ≥ 0, got {groups!r} and {smoothing!r}"
        )

    def kernel_of(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if groups:
            x = grouped(x, groups=groups, power=power, smoothing=smoothing)
            x = x - x.mean(axis=1, keepdims=True)
        x = x.reshape(len(x), -1)
        if kernel == "gaussian":
            return len(x) * gaussian_gram(x, sigma=sigma)
        if kernel == "cosine":
            squares = jnp.sum(x**2, axis=1, keepdims=True)
            varied = squares > 0
            x = jnp.where(varied, x / jnp.sqrt(jnp.where(varied, squares, 1)), 0)
        return jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)

    def objective(signals: Signals) -> tuple[jax.Array, Terms]:
        labels = signals.targets
        if getattr(labels, "ndim", 0) != 1:
            raise ValueError(
                "plausible HSIC needs one class for each sample; use "
                "task.name=classification"
            )
        classes = signals.outputs.shape[-1]
        alike = labels[:, None] == labels[None, :]
        wanted = jnp.where(alike, 1.0, -1 / (classes - 1))
        features = kernel_of(signals.features)
        on_features = plausible(features, features)
        on_target = plausible(features, wanted)
        loss = on_features - gamma * on_target + signals.head_loss
        return loss, {"phsic_features": on_features, "phsic_target": on_target}

    return objective


def plausible(a: jax.Array, b: jax.Array) -> jax.Array:
    """pHSIC of two kernel matrices: the covariance of their entries over all pairs.

    Args:
        a: (n, n), a kernel matrix, not normalised.
        b: (n, n), likewise, of the same samples.

    Returns:
        Scalar; ≥ 0 where a = b.
    """
    # Centred before the product: it loses no digits where entries are nearly alike.
    return jnp.mean((a - a.mean()) * (b - b.mean()))


def grouped(x: jax.Array, *, groups: int, power: float, smoothing: float) -> jax.Array:
    """A power of the variance in each group of neighbouring units or channels.

    A group's variance is (δ + Σ (x_i − their mean)²)/their number, in feature maps over
    the group's channels and all places.

    Args:
        x: (n, h, w, c) or (n, d).
        groups: number of groups; it divides c or d into groups of at least two
            numbers.
        power: exponent of the variance.
        smoothing: δ.

    Returns:
        (n, groups).

    Raises:
        ValueError: `groups` does not divide the units or channels like this.
    """
    width, places = x.shape[-1], math.prod(x.shape[1:-1])
    if width % groups or places * width == groups:
        raise ValueError(
            f"groups: {groups} does not divide {width} units or channels into groups "
            "of more than one number; give a divisor, or 0"
        )
    x = x.reshape(len(x), places, groups, width // groups)
    spread = jnp.sum((x - x.mean(axis=(1, 3), keepdims=True)) ** 2, axis=(1, 3))
    variance = (spread + smoothing) / (places * width // groups)
    positive = variance > 0  # a power below 1 has no derivative at 0
    return jnp.where(positive, jnp.where(positive, variance, 1) ** power, 0)
