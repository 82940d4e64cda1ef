"""What the probes of runs support: order of convergence, Markov property, estimator.

Pure functions of arrays; `dib_jax.analysis.findings` puts what they say into words.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from dib_jax.information import (
    gaussian_gram,
    mutual_information,
    mutual_information_matrix,
    named_bandwidth,
)


class Order(NamedTuple):
    """Whether stages converge in the order of their depth.

    Attributes:
        tau: Kendall's τ between depth and epoch, mean over runs, −1..1; 1 is bottom to
            top.
        low: lower end of its 95 % interval over runs; NaN with fewer than two.
        high: the upper end.
        runs: how many there are.
    """

    tau: float
    low: float
    high: float
    runs: int


class Violations(NamedTuple):
    """Where a chain of variables does not look like a Markov chain.

    Attributes:
        triples: that were looked at.
        violated: those whose excess is above the tolerance.
        mean: of the excess of these, in bits; 0 where there are none.
        largest: of all excesses, in bits; negative where no triple comes near.
        worst: (i, j, k) of the largest.
    """

    triples: int
    violated: int
    mean: float
    largest: float
    worst: tuple[int, int, int]


def deviation(values: np.ndarray, *, of: str = "final") -> np.ndarray:
    """How far each stage is from its last value, as a share.

    Args:
        values: (p, s), a quantity at each probe.
        of: "final": of the last value's size; "change": of the way from the first probe
            to the last.

    Returns:
        (p, s), ≥ 0; 0 where nothing is missing, ∞ where that is a share of 0.

    Raises:
        ValueError: `of` is neither.
    """
    values = np.asarray(values, np.float64)
    if of not in ("final", "change"):
        raise ValueError(f"of must be 'final' or 'change', got {of!r}")
    missing = np.abs(values - values[-1])
    whole = np.abs(values[-1]) if of == "final" else missing[0]
    share = np.full_like(missing, np.inf)
    np.divide(missing, whole, out=share, where=whole > 0)
    return np.where(missing == 0, 0.0, share)


def convergence_epochs(
    deviations: np.ndarray, epochs: np.ndarray, *, tolerance: float = 0.05
) -> np.ndarray:
    """The epoch from which on each stage stays near its final state.

    Args:
        deviations: (p, s), from the final state, 0 at the last probe.
        epochs: (p,), of the probes, ascending.
        tolerance: what counts as near.

    Returns:
        (s,), of the first probe after which no deviation is above `tolerance`.
    """
    far = np.asarray(deviations) > tolerance
    # One after the last probe that is still far.
    first = np.where(far.any(axis=0), len(far) - far[::-1].argmax(axis=0), 0)
    return np.asarray(epochs)[np.minimum(first, len(far) - 1)]


def convergence_order(
    epochs: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Order:
    """Kendall's τ between depth and the epoch of convergence, over runs.

    Args:
        epochs: (r, s), of each run's stages, input side first.
        resamples: of the bootstrap over runs.
        seed: of the bootstrap.

    Returns:
        The mean of the runs' τ_b; a run whose stages all converge at one epoch has no
        order, and counts as 0. The interval is the percentile bootstrap's.

    Raises:
        ValueError: there are fewer than two stages, which have no order.
    """
    epochs = np.atleast_2d(epochs)
    if epochs.shape[1] < 2:
        raise ValueError(f"an order needs at least 2 stages, got {epochs.shape[1]}")
    depth = np.arange(epochs.shape[1])
    taus = np.array(
        [
            scipy.stats.kendalltau(depth, of_run).statistic if np.ptp(of_run) else 0.0
            for of_run in epochs
        ]
    )
    low, high = bootstrap_interval(taus, resamples=resamples, seed=seed)
    return Order(float(taus.mean()), float(low), float(high), len(taus))


def _resampled_means(
    values: np.ndarray, resamples: int, random: np.random.Generator
) -> np.ndarray:
    """Means (resamples, …) over the first axis of `values`, drawn with replacement."""
    count = len(values)
    # How often each run was drawn: a product in place of thousands of gathered copies.
    drawn = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    # Of differences from the first run, so that of equal runs nothing is rounded.
    rest = np.tensordot(drawn / count, values - values[:1], axes=1)
    return values[0] + rest


def bootstrap_interval(
    values: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap interval of the mean over runs, at each place.

    Args:
        values: (r, …), a run each.
        resamples: how many.
        seed: of the resampling.

    Returns:
        Lower and upper end, (…); NaN for fewer than two runs.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    means = _resampled_means(values, resamples, np.random.default_rng(seed))
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


class Difference(NamedTuple):
    """The difference of two groups' means.

    Attributes:
        mean: of one group minus the other's.
        low: lower end of its 95 % interval over runs; NaN with fewer than two of each.
        high: the upper end.
    """

    mean: float
    low: float
    high: float


def role_differentiation(values: np.ndarray) -> np.ndarray:
    """How differently the stages of each run change: 0 where all change alike.

    Args:
        values: (r, p, s), a quantity of each run at each probe and stage, such as the
            normalised HSIC with the input.

    Returns:
        (r,), the standard deviation over stages of the change from the first probe to
        the last, in units of the quantity.

    Raises:
        ValueError: there are fewer than two stages, which have no roles.
    """
    values = np.asarray(values, np.float64)
    if values.shape[-1] < 2:
        raise ValueError(f"roles need at least 2 stages, got {values.shape[-1]}")
    return (values[:, -1] - values[:, 0]).std(axis=-1)


def bootstrap_difference(
    one: np.ndarray, other: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Difference:
    """Difference of two means with its 95 % percentile bootstrap interval.

    The groups are resampled independently: runs of the same seed are no pairs, for
    another algorithm draws other initial weights.

    Args:
        one: (r,), a value of each run.
        other: (q,), of the runs it is compared with.
        resamples: how many.
        seed: of the resampling.
    """
    groups = [np.asarray(group, np.float64) for group in (one, other)]
    mean = float(groups[0].mean() - groups[1].mean())
    if min(len(group) for group in groups) < 2:
        return Difference(mean, float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    means = [_resampled_means(group, resamples, random) for group in groups]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return Difference(mean, float(low), float(high))


def data_processing_violations(
    information: np.ndarray, *, tolerance: float = 0.01
) -> Violations:
    """Where I(A;C) > min(I(A;B), I(B;C)) along a chain A → B → C.

    Matrix-based quantities of orders other than 1 need not obey the inequality even
    where the variables are a Markov chain, so a violation is one of the estimate.

    Args:
        information: (…, m, m), symmetric, of the m variables of a chain in their order;
            diagonals are not read.
        tolerance: bits of excess that are put down to rounding.

    Returns:
        Over all triples i < j < k and all leading axes.

    Raises:
        ValueError: there are fewer than three variables.
    """
    information = np.asarray(information, np.float64)
    size = information.shape[-1]
    triples = list(itertools.combinations(range(size), 3))
    if not triples:
        raise ValueError(f"a chain needs at least 3 variables, got {size}")
    i, j, k = np.array(triples).T
    ends = np.minimum(information[..., i, j], information[..., j, k])
    excess = (information[..., i, k] - ends).reshape(-1, len(triples))
    broken = excess[excess > tolerance]
    worst = triples[int(excess.max(axis=0).argmax())]
    return Violations(
        triples=excess.size,
        violated=len(broken),
        mean=float(broken.mean()) if len(broken) else 0.0,
        largest=float(excess.max()),
        worst=worst,
    )


def chain(found: dict[str, np.ndarray], split: str) -> np.ndarray:
    """Information between all variables of Y → X → T_0 → … at every probe.

    Args:
        found: what `dib_jax.analysis.recording.gather` returns.
        split: "train" or "validation".

    Returns:
        (p, s + 2, s + 2), symmetric, the diagonal NaN.
    """
    stages = found[f"{split}/stage_stage"]
    probes, count = stages.shape[:2]
    whole = np.full((probes, count + 2, count + 2), np.nan)
    whole[:, 2:, 2:] = stages
    borders = {0: found[f"{split}/stage_target"], 1: found[f"{split}/input_stage"]}
    for row, values in borders.items():
        whole[:, row, 2:] = whole[:, 2:, row] = values
    whole[:, 0, 1] = whole[:, 1, 0] = found[f"{split}/input_target"]
    diagonal = np.arange(count + 2)
    whole[:, diagonal, diagonal] = np.nan
    return whole


def chain_at_width(
    target: np.ndarray, nodes: np.ndarray, *, factor: float, alpha: float
) -> np.ndarray:
    """The chain's information had all kernels been `factor` times as wide.

    Gaussian Grams need no activations for that: n·gram to the power of 1/factor².

    Args:
        target: (n, n), Gram of the target, which stays as it is.
        nodes: (s + 1, n, n), Gaussian Grams of input and stages.
        factor: > 0.
        alpha: order of the Rényi entropy, > 0.

    Returns:
        (s + 2, s + 2), of Y, X, T_0, …
    """
    return np.asarray(_chain(target, nodes, jnp.float32(1 / factor**2), alpha=alpha))


@functools.partial(jax.jit, static_argnames="alpha")
def _chain(
    target: jax.Array, nodes: jax.Array, power: jax.Array, *, alpha: float
) -> jax.Array:
    size = nodes.shape[-1]
    wider = (size * nodes) ** power / size
    return mutual_information_matrix(
        jnp.concatenate([target[None], wider]), alpha=alpha
    )


def estimator_bias(
    *,
    alpha: float,
    bandwidth: str | float,
    samples: Sequence[int] = (64, 128, 256),
    dimensions: Sequence[int] = (1, 8, 64),
    factors: Sequence[float] = (0.5, 1.0, 2.0),
    bits: Sequence[float] = (0.0, 2.0),
    repeats: int = 3,
    seed: int = 0,
) -> list[dict[str, float]]:
    """What the estimator says of Gaussians whose information is known.

    X and Y have d independent pairs of coordinates with correlation ρ, so that
    I(X;Y) = −d/2 log2(1 − ρ²), whatever the kernel.

    Args:
        alpha: order of the Rényi entropy, > 0.
        bandwidth: rule of the widths, or a width.
        samples: values of n.
        dimensions: values of d.
        factors: by which the rule's width is multiplied.
        bits: true values of I(X;Y).
        repeats: draws of the samples, whose mean is taken.
        seed: of the draws.

    Returns:
        A row for each combination: `samples`, `dimension`, `factor`, `truth`,
        `estimate` and `bias` = estimate − truth, in bits.
    """

    @jax.jit
    def estimate(x: jax.Array, y: jax.Array, factor: jax.Array) -> jax.Array:
        grams = [
            gaussian_gram(z, sigma=factor * named_bandwidth(z, bandwidth))
            for z in (x, y)
        ]
        return mutual_information(*grams, alpha=alpha)

    rows = []
    for n, d, truth in itertools.product(samples, dimensions, bits):
        random = np.random.default_rng((seed, n, d))
        correlation = np.sqrt(1 - 2 ** (-2 * truth / d))
        draws = []
        for _ in range(repeats):
            x, noise = random.normal(size=(2, n, d)).astype(np.float32)
            draws.append((x, correlation * x + np.sqrt(1 - correlation**2) * noise))
        for factor in factors:
            found = np.mean([float(estimate(*xy, jnp.float32(factor))) for xy in draws])
            row = {"samples": n, "dimension": d, "factor": factor, "truth": truth}
            rows.append({**row, "estimate": float(found), "bias": float(found) - truth})
    return rows
