"""GreedyDIB's local loss: the deterministic information bottleneck at one stage."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dib_jax.information import (
    check_bandwidth,
    gaussian_gram,
    joint_entropy,
    named_bandwidth,
    normalize_gram,
    renyi_entropy,
    unit_scale,
)
from dib_jax.models.options import (
    check_at_least,
    check_finite,
    check_one_of,
    number_for_stage,
)
from dib_jax.objectives import Objective, Occasional, Signals, Terms

# What is compressed, and the name under which it is recorded, in bits.
_TERMS = {
    "input": "input_information",
    "previous": "previous_information",
    "entropy": "entropy",
    "conditional": "conditional_entropy",
}
# The share of training that is done → the share of β and `keep` that counts.
_Progress = jax.Array | float
_COURSES: dict[str, Callable[[_Progress], _Progress]] = {
    "constant": lambda progress: 1.0,
    "rising": lambda progress: progress,
    "falling": lambda progress: 1 - progress,
}


def dib(
    *,
    alpha: float = 1.01,
    beta: float | tuple[float, ...] = 0.01,
    compress: str = "input",
    keep: float | tuple[float, ...] = 0.0,
    bandwidth: str = "mean",
    relative: bool = True,
    per_channel: bool = False,
    samples: int = 64,
    places: int = 0,
    every: int = 4,
    course: str = "constant",
) -> Objective:
    """The loss of the task plus β times the information in the stage's features.

    loss = task_loss(head(T_k), Y) + β · R − keep · H_α(T_k), where `compress` chooses
    R, in bits: input I_α(X; T_k), previous I_α(T_{k−1}; T_k), entropy H_α(T_k),
    conditional H_α(T_k | Y) = H_α(T_k, Y) − H_α(Y), what the features hold beyond the
    target. With the last one and `keep` = β the loss is task_loss − β · I_α(T_k; Y).

    Args:
        alpha: order of the Rényi entropy, > 0.
        beta: weight of R, a number or one per stage; negative keeps information.
        compress: input, previous, entropy or conditional: the information that is
            weighted. The last one takes Y by the task's Gram of the targets.
        keep: weight of the features' entropy H(T), which is rewarded, a number or one
            per stage; 0 for none. H(T) is decomposed once, for R and for this.
        bandwidth: how the Gaussian kernel gets its width from each batch: mean, median,
            knn, quantile or scott; or the width itself, a number > 0. No gradient
            passes through it.
        relative: whether widths are in units of the features' scale, the root mean
            square of their deviations from the mean. Otherwise the term shrinks or
            stretches the features rather than changing what they hold.
        per_channel: whether each channel (each unit of flat features) has a scale,
            in place of one for all. The kernel is then the joint one of the channels,
            the product of their Gaussian kernels, with one width in these units; with a
            width for each channel the product of many would tell all samples apart.
        samples: R and H(T) are measured on so many samples of a batch, the first ones;
            0 for all. Of fewer samples they are smaller: at most log2 of their number.
        places: 0 for whole feature maps as samples. Otherwise so many places are drawn
            of each measured map, at most as many as it has, and the channels at a place
            are a sample. For entropy and conditional.
        every: they are measured at every so many steps; 1 for each. The weight of R is
            every · β at these steps and 0 at the others, so β on average; of H(T)
            likewise.
        course: how β and `keep` change over the stage's training: constant, rising
            (from 0, linearly) or falling (to 0).

    Returns:
        The objective; it records R under its name, `entropy` where it is kept, and the
        features' `sigma`.

    Raises:
        ValueError: `alpha` ≤ 0, `beta` or `keep` infinite, an unknown `compress`,
            `bandwidth` or `course`, `per_channel` without `relative`, `samples` that is
            negative or 1, negative `places` or places with another `compress`, `every`
            below 1; when called, `beta` or `keep` that has no number for the stage,
            places of features that are no maps.

    Source: Lyu, Wu & Du, arXiv 2510.27651, reconstructed from the abstract; I_α(X; T)
    of matrices by Yu, Yu & Príncipe, arXiv 2102.00533, eq. 10; H(T) in place of I(X; T)
    by Strouse & Schwab, arXiv 1604.00268; the joint kernel of channels by Yu,
    Wickstrøm, Jenssen & Príncipe, arXiv 1804.06537, eq. 12. H(T) − H(T|Y) in place of
    the rates of Gaussian codes, of all samples and within classes, is Chan et al.,
    arXiv 2105.10446 (maximal coding rate reduction).
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha!r}")
    check_finite(beta=beta, keep=keep)
    check_one_of(_TERMS, compress=compress)
    check_one_of(_COURSES, course=course)
    check_at_least(1, every=every)
    check_at_least(0, places=places)
    if places and compress not in ("entropy", "conditional"):
        raise ValueError(
            "places are samples of the features alone; they need compress=entropy or "
            f"conditional, got {compress!r}"
        )
    check_bandwidth(bandwidth)
    if per_channel and not relative:
        raise ValueError(
            "per_channel=True gives each channel its scale; it needs relative=True"
        )
    if samples < 0 or samples == 1:  # one sample holds no information
        raise ValueError(f"samples must be 0 for all, or ≥ 2, got {samples!r}")

    def gram(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = _scaled(x[: samples or None], relative=relative, per_channel=per_channel)
        x = _drawn(x, places, key) if places else x
        sigma = named_bandwidth(x, bandwidth)
        return gaussian_gram(x, sigma=sigma), sigma

    is_kept = any(keep) if isinstance(keep, Sequence) else keep != 0

    def measure(features: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        """R and H(T) of the features' Gram and that of what R relates them to."""
        if compress == "conditional":
            rest = joint_entropy(features, other, alpha=alpha)
            rest = rest - renyi_entropy(other, alpha=alpha)
            return rest, renyi_entropy(features, alpha=alpha) if is_kept else rest
        entropy = renyi_entropy(features, alpha=alpha)
        if compress == "entropy":
            return entropy, entropy
        joint = joint_entropy(other, features, alpha=alpha)
        return renyi_entropy(other, alpha=alpha) + entropy - joint, entropy

    def related(signals: Signals, features: jax.Array) -> jax.Array:
        if compress == "entropy":
            return features
        if compress == "conditional":
            # A map's places share its target. Of fewer samples than the batch has, the
            # trace would be below 1.
            count = len(signals.features[: samples or None])
            rows = jnp.repeat(jnp.arange(count), len(features) // count)
            return normalize_gram(signals.target_gram[rows][:, rows])
        given = signals.network_input if compress == "input" else signals.stage_input
        return gram(given, signals.key)[0]

    def objective(signals: Signals) -> tuple[jax.Array, Terms]:
        course_now = _COURSES[course](signals.progress)
        weight = number_for_stage("beta", beta, signals.stage) * course_now
        kept = number_for_stage("keep", keep, signals.stage) * course_now
        features, sigma = gram(signals.features, signals.key)
        other = related(signals, features)
        measured = jnp.asarray(signals.step) % every == 0
        if every == 1:
            information, entropy = measure(features, other)
        else:
            # Eigendecompositions are what costs time. The Grams are made at every step:
            # a conditional around them would hold several copies of the features for
            # the backward pass, measured or not.
            nothing = jnp.zeros((), features.dtype)
            information, entropy = jax.lax.cond(
                measured, measure, lambda *_: (nothing, nothing), features, other
            )
        loss = signals.task_loss + every * weight * information
        terms = {_TERMS[compress]: information, "sigma": sigma}
        if is_kept:
            loss = loss - every * kept * entropy
            terms["entropy"] = entropy
        if every == 1:
            return loss, {**terms}
        return loss, {name: Occasional(term, measured) for name, term in terms.items()}

    return objective


def _scaled(x: jax.Array, *, relative: bool, per_channel: bool) -> jax.Array:
    """Features in at least float32 and in the units in which `dib` measures widths."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if per_channel:
        x = jax.vmap(unit_scale, in_axes=-1, out_axes=-1)(x)
    return unit_scale(x) if relative else x


def _drawn(x: jax.Array, places: int, key: jax.Array) -> jax.Array:
    """The channels (n · places, c) at places drawn of each map, none twice."""
    if x.ndim != 4:
        raise ValueError(
            f"objective.places={places} needs feature maps (n, h, w, c), got shape "
            f"{x.shape}; use 0, or a network of convolutions"
        )
    count, *sides, channels = x.shape
    order = jnp.tile(jnp.arange(math.prod(sides)), (count, 1))
    order = jax.random.permutation(key, order, axis=1, independent=True)
    flat = x.reshape(count, -1, channels)
    chosen = jnp.take_along_axis(flat, order[:, :places, None], axis=1)
    return chosen.reshape(-1, channels)
