"""What runs support: order of convergence, Markov property, estimator, calibration.

Pure functions of arrays; `dib_jax.analysis.findings` puts what they say into words.
"""

import functools
import itertools
import math
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

_LEVEL = 0.95  # of intervals over runs
_SEED = 0  # of the Gaussians that estimates are tried on
CALIBRATION_BINS = 15  # of a reliability diagram, as in Guo et al.


class Estimate(NamedTuple):
    """A mean over runs.

    Attributes:
        mean: what is estimated.
        low: lower end of its 95 % interval over runs; NaN where runs are too few.
        high: the upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or −1 where the interval lies above or below 0; else, or without one, 0."""
        return int(self.low > 0) - int(self.high < 0)


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

    @property
    def share(self) -> float:
        """Of the triples those that are violated, in per cent."""
        return 100 * self.violated / self.triples


def deviation(values: np.ndarray, *, of: str = "final") -> np.ndarray:
    """How far each stage is from its last value, as a share.

    Args:
        values: (…, p, s), a quantity at each probe.
        of: "final": of the last value's size; "change": of the way from the first probe
            to the last.

    Returns:
        (…, p, s), ≥ 0; 0 where nothing is missing, ∞ where that is a share of 0.

    Raises:
        ValueError: `of` is neither.
    """
    values = np.asarray(values, np.float64)
    if of not in ("final", "change"):
        raise ValueError(f"of must be 'final' or 'change', got {of!r}")
    last = values[..., -1:, :]
    missing = np.abs(values - last)
    whole = np.abs(last) if of == "final" else missing[..., :1, :]
    share = np.full_like(missing, np.inf)
    np.divide(missing, whole, out=share, where=whole > 0)
    return np.where(missing == 0, 0.0, share)


def convergence_epochs(
    deviations: np.ndarray, epochs: np.ndarray, *, tolerance: float = 0.05
) -> np.ndarray:
    """The epoch from which on each stage stays near its final state.

    Args:
        deviations: (…, p, s), from the final state, 0 at the last probe.
        epochs: (p,), of the probes, ascending.
        tolerance: what counts as near.

    Returns:
        (…, s), of the first probe after which no deviation is above `tolerance`.
    """
    far = np.asarray(deviations) > tolerance
    # One after the last probe that is still far.
    probes, since = far.shape[-2], far[..., ::-1, :].argmax(axis=-2)
    first = np.where(far.any(axis=-2), probes - since, 0)
    return np.asarray(epochs)[np.minimum(first, probes - 1)]


def convergence_order(epochs: np.ndarray) -> Estimate:
    """Whether stages converge in the order of their depth, over runs.

    Args:
        epochs: (r, s), at which each run's stages converge, input side first.

    Returns:
        The mean of the runs' τ_b, Kendall's between depth and epoch, −1..1; 1 is bottom
        to top. A run whose stages all converge at one epoch has no order, and counts as
        0. The interval is Student's, within −1 and 1.

    Raises:
        ValueError: there are fewer than two stages, which have no order.
    """
    epochs = np.atleast_2d(epochs)
    if epochs.shape[1] < 2:
        raise ValueError(f"an order needs at least 2 stages, got {epochs.shape[1]}")
    depth = np.arange(epochs.shape[1])
    taus = [scipy.stats.kendalltau(depth, of_run).statistic for of_run in epochs]
    # It is NaN where all are at one epoch.
    mean, *ends = mean_interval(np.nan_to_num(taus))
    return Estimate(float(mean), *map(float, np.clip(ends, -1, 1)))


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over runs with its 95 % interval by Student's t, at each place.

    Args:
        values: (r, …), a run each.

    Returns:
        Mean, lower and upper end, (…); no ends, NaN, for fewer than two runs. Where all
        runs have one value, which is little evidence, the interval has no width.
    """
    values = np.asarray(values, np.float64)
    # Of differences from the first run, so that of equal runs nothing is rounded.
    count, rest = len(values), values - values[:1]
    mean = values[0] + rest.mean(axis=0)
    if count < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = _quantile(count - 1) * rest.std(axis=0, ddof=1) / math.sqrt(count)
    return mean, mean - half, mean + half


def difference_interval(one: np.ndarray, other: np.ndarray) -> Estimate:
    """Difference of two means with its 95 % interval by Welch's t.

    Runs of the same seed are no pairs, for another algorithm draws other initial
    weights.

    Args:
        one: (r,), a value of each run.
        other: (q,), of the runs it is compared with.

    Returns:
        One mean minus the other; without an interval for fewer than two runs of each.
    """
    mean = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        return Estimate(mean, math.nan, math.nan)
    squares = [float(group.var(ddof=1)) / len(group) for group in (one, other)]
    if not (error := math.sqrt(sum(squares))):
        return Estimate(mean, mean, mean)
    rest = sum(x**2 / (len(g) - 1) for x, g in zip(squares, (one, other), strict=True))
    half = _quantile(error**4 / rest) * error
    return Estimate(mean, mean - half, mean + half)


def _quantile(freedom: float) -> float:
    """Of Student's t: how many standard errors half of an interval has."""
    return float(scipy.stats.t.ppf((1 + _LEVEL) / 2, freedom))


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
    mean = float(broken.mean()) if len(broken) else 0.0
    worst = triples[int(excess.max(axis=0).argmax())]
    return Violations(excess.size, len(broken), mean, float(excess.max()), worst)


def chain_names(count: int) -> list[str]:
    """Names of the first `count` variables of Y → X → T_0 → …."""
    return ["Y", "X", *(f"T{stage}" for stage in range(count - 2))]


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
    for row, key in enumerate(("stage_target", "input_stage")):
        whole[:, row, 2:] = whole[:, 2:, row] = found[f"{split}/{key}"]
    whole[:, 0, 1] = whole[:, 1, 0] = found[f"{split}/input_target"]
    whole[:, np.eye(count + 2, dtype=bool)] = np.nan
    return whole


@functools.partial(jax.jit, static_argnames="alpha")
def chain_at_width(
    target: jax.Array, nodes: jax.Array, *, factor: float, alpha: float
) -> jax.Array:
    """The chain's information had all kernels been `factor` times as wide.

    Gaussian Grams need no activations for that: n·gram to the power of 1/factor².

    Args:
        target: (n, n), Gram of the target, which stays as it is.
        nodes: (s + 1, n, n), Gaussian Grams of input and stages.
        factor: > 0.
        alpha: order of the Rényi entropy, > 0; static.

    Returns:
        (s + 2, s + 2), of Y, X, T_0, …
    """
    size = nodes.shape[-1]
    wider = (size * nodes) ** (1 / factor**2) / size
    whole = jnp.concatenate([target[None], wider])
    return mutual_information_matrix(whole, alpha=alpha)


def estimator_bias(
    *,
    alpha: float,
    bandwidth: str | float,
    samples: Sequence[int] = (64, 128, 256),
    dimensions: Sequence[int] = (1, 8, 64),
    factors: Sequence[float] = (0.5, 1.0, 2.0),
    repeats: int = 3,
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
        repeats: draws of the samples, whose mean is taken.

    Returns:
        A row for each combination, with 0 and with 2 bits: `samples`, `dimension`,
        `factor`, `truth`, `estimate` and `bias` = estimate − truth, in bits.
    """

    @jax.jit
    def estimate(x: jax.Array, y: jax.Array, factor: float) -> jax.Array:
        widths = [factor * named_bandwidth(z, bandwidth) for z in (x, y)]
        grams = [gaussian_gram(z, sigma=s) for z, s in zip((x, y), widths, strict=True)]
        return mutual_information(*grams, alpha=alpha)

    rows = []
    for n, d, truth in itertools.product(samples, dimensions, (0.0, 2.0)):
        random = np.random.default_rng((_SEED, n, d))
        correlation = np.sqrt(1 - 2 ** (-2 * truth / d))
        draws = random.normal(size=(repeats, 2, n, d)).astype(np.float32)
        pairs = [
            (x, correlation * x + np.sqrt(1 - correlation**2) * noise)
            for x, noise in draws
        ]
        for factor in factors:
            found = float(np.mean([float(estimate(*pair, factor)) for pair in pairs]))
            row = {"samples": n, "dimension": d, "factor": factor, "truth": truth}
            rows.append({**row, "estimate": found, "bias": found - truth})
    return rows


def chosen(count: int, most: int) -> list[int]:
    """At most so many of `count` numbers, first and last among them."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, most))})


def calibration_error(
    sure: np.ndarray, right: np.ndarray, *, bins: int = CALIBRATION_BINS
) -> tuple[float, list[list[float]]]:
    """Expected calibration error: Σ_b n_b / n · |mean sureness − share that is right|.

    Args:
        sure: (n,), 0..1.
        right: bool (n,).
        bins: of equal width.

    Returns:
        The error, 0..1; for each bin that is not empty, mean sureness, share that is
        right, share of the samples.

    Raises:
        ValueError: a sureness is NaN.

    Source: Naeini, Cooper & Hauskrecht, AAAI 2015; Guo et al., arXiv 1706.04599.
    """
    if missing := int(np.isnan(sure).sum()):
        raise ValueError(
            f"sureness must be 0 to 1, got NaN for {missing} of {len(sure)} samples: "
            "the network's outputs are no numbers"
        )
    place = np.minimum((sure * bins).astype(int), bins - 1)
    rows = [
        [float(sure[some].mean()), float(right[some].mean()), float(some.mean())]
        for some in (place == b for b in range(bins))
        if some.any()
    ]
    return sum(share * abs(a - b) for a, b, share in rows), rows
