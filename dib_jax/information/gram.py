"""Gram matrices: distances, kernel widths, kernels, normalisation.

A Gram is (n, n), symmetric, positive semi-definite, trace 1. The Gaussian kernel is
exp(−d²/(2σ²)) everywhere, d the Euclidean distance of the flattened features.
"""

import difflib
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _on_host(values: Any, name: str) -> Any:
    """Arrays of NumPy's and lists of numbers as arrays in the machine's byte order.

    Raises:
        ValueError: it holds no numbers.
    """
    if isinstance(values, list | tuple) and not any(
        isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(values)
    ):
        values = np.asarray(values)
    if not isinstance(values, np.ndarray):
        return values
    if values.dtype.kind in "OSUMm":
        raise ValueError(f"{name} must be numbers, got an array of {values.dtype}")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _is_cut(values: Any) -> bool:
    """Whether JAX would give this array of NumPy's a type with fewer bits."""
    return (
        isinstance(values, np.ndarray)
        and jax.dtypes.canonicalize_dtype(values.dtype) != values.dtype
    )


def as_rows(x: jax.Array) -> jax.Array:
    """Features (n, …) as (n, d) in at least float32.

    Of NumPy's 64-bit numbers, if JAX has none, the first sample is taken away before
    they are rounded: nothing here depends on where the origin is, and times in seconds
    since 1970 differ by less than float32 resolves.

    Args:
        x: (n, …), n ≥ 1, real.

    Raises:
        ValueError: it has no sample, or is complex.
    """
    x = _on_host(x, "features")
    if _is_cut(x) and x.dtype.kind in "fiu" and x.size:
        if x.dtype.kind in "iu":
            fits = max(-int(x.min()), int(x.max())) < 2**62
            x = x.astype(np.int64 if fits else np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            x = (x - x[0]).astype(np.float32)
    x = jnp.asarray(x)
    if x.ndim < 1 or x.shape[0] < 1:
        raise ValueError(
            f"features must have shape (n, …) with n ≥ 1, got {x.shape}; the first "
            "axis counts samples"
        )
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError(
            f"features must be real, got {x.dtype}; stack real and imaginary parts"
        )
    x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


@jax.custom_jvp
def _pairwise(x: jax.Array) -> jax.Array:
    """Squared distances of the rows of (n, d)."""
    # Centred first: far from the origin |x|² + |y|² − 2xy loses every digit.
    x = x - jnp.mean(x, axis=0)
    product = _product(x, x)
    # From the same product: so what is rounded cancels between equal samples.
    squares = jnp.diagonal(product)
    distances = squares[:, None] + squares[None, :] - 2 * product
    # By a product, which keeps NaN.
    off_diagonal = 1 - jnp.eye(x.shape[0], dtype=x.dtype)
    return jnp.maximum(distances, 0) * off_diagonal


@_pairwise.defjvp
def _pairwise_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # By hand, because it is one product of matrices instead of two, and because the
    # clipping must not cut the gradient where rounding made a distance negative.
    (x,), (dx,) = primals, tangents
    centred = x - jnp.mean(x, axis=0)
    crossed = _product(centred, dx)
    squares = jnp.diagonal(crossed)
    change = 2 * (squares[:, None] + squares[None, :] - crossed - crossed.T)
    return _pairwise(x), change


def squared_distances(x: jax.Array) -> jax.Array:
    """Squared Euclidean distances between all samples.

    Args:
        x: (n, …); features are flattened.

    Returns:
        (n, n), ≥ 0, symmetric to rounding, the diagonal exactly 0; at least float32.
        Infinite where a square is beyond the type's range, NaN if a feature is.

    Raises:
        ValueError: `x` has no sample axis.

    Examples:
        >>> print(info.squared_distances(jnp.array([[0.0], [3.0], [5.0]])))
        [[ 0.  9. 25.]
         [ 9.  0.  4.]
         [25.  4.  0.]]
    """
    moved, unit = _in_range(as_rows(x))
    # One factor after the other: their product may overflow.
    return _pairwise(moved) * unit * unit * 64


def _in_range(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An eighth of the differences to the first sample, in a unit, and this unit.

    So neither differences nor their squares overflow or underflow.
    """
    moved = _moved(x)
    unit = _unit(jnp.max(jnp.abs(moved), initial=0))
    return moved / unit, unit


def _unit(size: jax.Array) -> jax.Array:
    """The power of two at or below a size: dividing by it changes no digit.

    Neither it nor its reciprocal is so small that a device takes it for 0.
    """
    _, exponent = jnp.frexp(jax.lax.stop_gradient(size))
    limit = -int(jnp.finfo(size.dtype).minexp) - 1
    exponent = jnp.clip(exponent - 1, -limit, limit)
    return jnp.ldexp(jnp.ones((), size.dtype), exponent)


def _moved(x: jax.Array) -> jax.Array:
    """An eighth of the difference to the first sample, which does not overflow.

    An eighth of any width, too, has a reciprocal that is no subnormal number.
    """
    return x / 8 - jax.lax.stop_gradient(x[0]) / 8


def _distances(x: jax.Array) -> jax.Array:
    """Distances that neither overflow nor underflow, without a gradient."""
    moved, unit = _in_range(jax.lax.stop_gradient(as_rows(x)))
    return jnp.sqrt(_pairwise(moved)) * unit * 8


def _or_one(sigma: jax.Array) -> jax.Array:
    """The width, 1 for 0; what is not finite stays so, and is seen."""
    return jnp.where(sigma == 0, 1, sigma)


def _pairs(x: jax.Array) -> jax.Array:
    distances = _distances(x)
    return distances[jnp.triu_indices(distances.shape[0], k=1)]


def median_bandwidth(x: jax.Array) -> jax.Array:
    """Median of the distances over all pairs of samples, as a kernel width.

    Args:
        x: (n, …); features are flattened.

    Returns:
        σ, a scalar in units of x; 1 where the median is 0 or n = 1; NaN where a feature
        is NaN or infinite. No gradient.

    Source: Gretton et al., A kernel two-sample test, JMLR 13, 2012, section 8.

    Examples:
        >>> x = jnp.array([[0.0], [3.0], [6.0]])
        >>> float(info.median_bandwidth(x))
        3.0
    """
    return quantile_bandwidth(x, q=0.5)


def mean_bandwidth(x: jax.Array) -> jax.Array:
    """Mean of the distances over all pairs of samples, as a kernel width.

    Args:
        x: (n, …); features are flattened.

    Returns:
        σ, a scalar in units of x; 1 where the mean is 0 or n = 1; NaN where a feature
        is NaN or infinite. No gradient.

    Examples:
        >>> x = jnp.array([[0.0], [3.0], [6.0]])
        >>> float(info.mean_bandwidth(x))
        4.0
    """
    distances = _distances(x)
    n = distances.shape[0]
    return _or_one(jnp.sum(distances / max(n * (n - 1), 1)))


def quantile_bandwidth(x: jax.Array, *, q: float = 0.05) -> jax.Array:
    """A quantile of the distances over all pairs of samples, as a kernel width.

    Args:
        x: (n, …); features are flattened.
        q: 0 to 1.

    Returns:
        σ, a scalar in units of x; 1 where the quantile is 0 or n = 1; NaN where a
        feature is NaN or infinite. No gradient.

    Raises:
        ValueError: `q` is not in 0..1.

    Source: Singh & Príncipe, Signal Processing 91, 2011, who use about 0.05 to 0.2.

    Examples:
        >>> x = jnp.array([[0.0], [3.0], [6.0]])
        >>> float(info.quantile_bandwidth(x, q=1.0))
        6.0
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q must be from 0 to 1, got {q!r}")
    pairs = _pairs(x)
    if pairs.size == 0:
        return jnp.ones((), pairs.dtype)
    return _or_one(jnp.quantile(pairs, q))


def knn_bandwidth(x: jax.Array, *, k: int = 10) -> jax.Array:
    """Mean over samples of the mean distance to their k nearest others.

    Args:
        x: (n, …); features are flattened.
        k: neighbours, ≥ 1; capped at n − 1.

    Returns:
        σ, a scalar in units of x; 1 where the mean is 0 or n = 1; NaN where a feature
        is NaN or infinite. No gradient.

    Raises:
        ValueError: `k` is below 1.

    Source: Yu, Yu & Príncipe, arXiv 2102.00533, section 4.1 (k = 10).

    Examples:
        >>> x = jnp.array([[0.0], [3.0], [6.0]])
        >>> float(info.knn_bandwidth(x, k=1))
        3.0
    """
    if isinstance(k, bool) or not isinstance(k, numbers.Integral) or k < 1:
        raise ValueError(f"k must be an integer ≥ 1, got {k!r}")
    distances = _distances(x)
    n = distances.shape[0]
    if n == 1:
        return jnp.ones((), distances.dtype)
    others = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, distances)
    nearest = -jax.lax.top_k(-others, min(int(k), n - 1))[0]
    return _or_one(jnp.sum(nearest / nearest.size))  # large ones do not overflow


def scott_bandwidth(x: jax.Array, *, gamma: float = 1.0) -> jax.Array:
    """Scott's rule γ n^(−1/(4+d)), for features of unit variance.

    Args:
        x: (n, …); d is the number of features of a sample.
        gamma: factor, > 0.

    Returns:
        σ, a scalar, whatever the features' values.

    Raises:
        ValueError: `gamma` is not above 0.

    Source: Scott, Multivariate Density Estimation, 1992; as used by Yu et al.,
    arXiv 1804.06537.

    Examples:
        >>> print(info.scott_bandwidth(jnp.zeros((32, 1))).round(3))
        0.5
    """
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be > 0, got {gamma!r}")
    flat = as_rows(x)
    n, d = flat.shape
    return jnp.asarray(gamma * n ** (-1 / (4 + d)), flat.dtype)


_RULES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "mean": mean_bandwidth,
    "median": median_bandwidth,
    "knn": knn_bandwidth,
    "quantile": quantile_bandwidth,
    "scott": scott_bandwidth,
}


def check_bandwidth(rule: str | float) -> str | float:
    """The name of a bandwidth rule, or a width as a float, for `named_bandwidth`.

    Args:
        rule: mean, median, knn, quantile or scott; or a width, a number > 0 or text
            that spells one.

    Raises:
        ValueError: it is neither.

    Examples:
        >>> info.check_bandwidth("mean"), info.check_bandwidth("0.5")
        ('mean', 0.5)
    """
    if isinstance(rule, str) and rule in _RULES:
        return rule
    try:
        width = 0.0 if isinstance(rule, bool) else float(rule)
    except (TypeError, ValueError):
        width = 0.0
    if not 0 < width < math.inf:
        close = difflib.get_close_matches(str(rule).lower(), _RULES, n=1, cutoff=0.5)
        raise ValueError(
            f"bandwidth must be one of {list(_RULES)} or a number > 0, got {rule!r}"
            + (f"; did you mean {close[0]!r}?" if close else "")
        )
    return width


def named_bandwidth(x: jax.Array, rule: str | float) -> jax.Array:
    """A kernel width by the name of its rule, as configs write it.

    Args:
        x: (n, …); features are flattened.
        rule: mean, median, knn, quantile or scott: the function NAME_bandwidth with its
            defaults; or the width itself, a number > 0 or text that spells one.

    Returns:
        σ, a scalar in units of x. No gradient.

    Raises:
        ValueError: `rule` is neither.

    Examples:
        >>> x = jnp.array([[0.0], [3.0], [6.0]])
        >>> float(info.named_bandwidth(x, "median"))
        3.0
    """
    rule = check_bandwidth(rule)
    if isinstance(rule, str):
        return _RULES[rule](x)
    return jnp.asarray(rule, jnp.promote_types(jnp.asarray(x).dtype, jnp.float32))


def unit_scale(x: jax.Array) -> jax.Array:
    """Centred features divided by their root mean square.

    A kernel's width is then in units of the features' scale, *and* the gradient is that
    of a measure that does not depend on the scale: bandwidth rules pass no gradient, so
    that without this the common factor of all distances would get one.

    Args:
        x: (n, …).

    Returns:
        (n, …), at least float32; 0 with gradient 0 where all samples are the same; NaN
        where a feature is NaN or infinite, or their sum is beyond the type's range.

    Raises:
        ValueError: `x` has no sample axis.

    Examples:
        >>> print(info.unit_scale(jnp.array([[1.0], [3.0], [5.0]])).round(2))
        [[-1.22]
         [ 0.  ]
         [ 1.22]]
    """
    x = as_rows(x).reshape(jnp.shape(x))
    size = jnp.max(jnp.abs(x), initial=0)
    x = x - jnp.mean(x, axis=0)
    largest = jnp.max(jnp.abs(x), initial=0)
    # Deviations below the rounding of the mean are none. Asked so that NaN stays NaN.
    constant = largest <= 8 * jnp.finfo(x.dtype).eps * size
    # Divided first, so that squares neither overflow nor underflow; the quotient below
    # does not depend on it, so neither does its gradient.
    scale = jax.lax.stop_gradient(jnp.where(constant, 1, largest))
    x = jnp.where(constant, 0, x) / scale
    return x / jnp.sqrt(jnp.where(constant, 1, jnp.mean(x**2)))


def check_widths(
    widths: jax.typing.ArrayLike | Sequence[float], *, name: str = "sigma"
) -> None:
    """Refuse widths that are not above 0, unless reading them waits for a device."""
    values = widths
    if not isinstance(widths, jax.Array) and hasattr(widths, "tolist"):
        values = widths.tolist()  # a NumPy array
    for value in jax.tree.leaves(values, is_leaf=lambda leaf: leaf is None):
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if isinstance(value, jax.Array) or (is_number and 0 < value < math.inf):
            continue
        raise ValueError(f"{name} must be a width > 0, got {widths!r}")


def _in_widths(x: jax.Array, sigma: jax.Array) -> jax.Array:
    """Samples (n, m, c) less the first, in units of the widths (c,), as (n, m · c)."""
    # Divided before squaring: at scales of 1e±20 the squares leave float32.
    moved = _moved(x)
    limits = jnp.finfo(x.dtype)
    sigma = jnp.maximum(sigma / 8, limits.tiny)
    # Samples that are this many σ apart are infinitely far apart for the kernel, and
    # their squares do not overflow.
    size = math.prod(x.shape[1:])
    farthest = math.sqrt(float(limits.max) / (16 * (size + 1)))
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(moved)), axis=(0, 1), initial=0)
    # In this form a σ of NaN stays NaN, and the result shows it; so does an infinite
    # one, for which all samples would be alike.
    sigma = jnp.where(sigma * farthest < largest, largest / farthest, sigma)
    sigma = jnp.where(sigma == jnp.inf, jnp.nan, sigma)
    return (moved / sigma).reshape(x.shape[0], size)


def gaussian_gram(x: jax.Array, *, sigma: jax.Array | float) -> jax.Array:
    """Gram matrix of the Gaussian kernel, exp(−|x_i − x_j|²/(2σ²))/n.

    Args:
        x: (n, …); features are flattened. bfloat16 and float16 become float32.
        sigma: width in units of x, a scalar > 0; see the bandwidth rules.

    Returns:
        (n, n), trace 1.

    Raises:
        ValueError: `sigma` is not a scalar, or a static one is not above 0.

    Examples:
        >>> x = jnp.array([[0.0], [0.0], [99.0], [99.0]])
        >>> print(info.gaussian_gram(x, sigma=1.0))
        [[0.25 0.25 0.   0.  ]
         [0.25 0.25 0.   0.  ]
         [0.   0.   0.25 0.25]
         [0.   0.   0.25 0.25]]
    """
    check_widths(sigma)
    flat = as_rows(x)
    width = jnp.asarray(sigma, flat.dtype)
    if width.shape != ():
        raise ValueError(
            f"sigma must be a scalar, got shape {width.shape}; for a width of each "
            "feature divide the features by them first"
        )
    scaled = _in_widths(flat[:, :, None], width[None])
    return jnp.exp(-_pairwise(scaled) / 2) / flat.shape[0]


def channel_gram(features: jax.Array, *, sigma: jax.Array | float) -> jax.Array:
    """Hadamard product of the Gaussian Grams of each channel of a feature map.

    Π_c exp(−d_c²/(2σ_c²)) = exp(−Σ_c d_c²/(2σ_c²)): one Gaussian Gram of features that
    are divided by their channel's width, so it costs one.

    Args:
        features: (n, h, w, c).
        sigma: widths > 0 in units of the features, a scalar or (c,).

    Returns:
        (n, n), trace 1.

    Raises:
        ValueError: `features` is not (n, h, w, c), `sigma` fits neither form, or a
            static one is not above 0.

    Source: Yu, Wickstrøm, Jenssen & Príncipe, arXiv 1804.06537, eq. 12.

    Examples:
        >>> maps = jnp.zeros((2, 4, 4, 3))
        >>> print(info.channel_gram(maps, sigma=1.0))
        [[0.5 0.5]
         [0.5 0.5]]
    """
    check_widths(sigma)
    shape = jnp.shape(features)
    if len(shape) != 4:
        raise ValueError(
            f"features must have shape (n, h, w, c), got {shape}; for (n, d) "
            "use gaussian_gram"
        )
    flat = as_rows(features)
    widths = jnp.asarray(sigma, flat.dtype)
    if widths.shape not in ((), shape[3:]):
        raise ValueError(
            f"sigma must be a scalar or have shape {shape[3:]}, one width a "
            f"channel, got shape {widths.shape}"
        )
    n, h, w, c = shape
    pixels = flat.reshape(n, h * w, c)
    scaled = _in_widths(pixels, jnp.broadcast_to(widths, (c,)))
    return jnp.exp(-_pairwise(scaled) / 2) / n


def linear_gram(x: jax.Array) -> jax.Array:
    """Gram matrix of the linear kernel of centred features, (x̄ x̄ᵀ)/tr(x̄ x̄ᵀ).

    Its eigenvalues are those of the features' covariance, as shares of the variance.

    Args:
        x: (n, …); features are flattened. bfloat16 and float16 become float32.

    Returns:
        (n, n), trace 1; its diagonal is not constant, which joint entropies and
        mutual information need for their bounds. Where all samples are alike, the
        matrix of 1/n, as a Gaussian Gram is then; NaN where a feature is NaN or
        infinite.

    Raises:
        ValueError: `x` has no sample axis.

    Examples:
        >>> print(info.linear_gram(jnp.array([[0.0], [2.0]])))
        [[ 0.5 -0.5]
         [-0.5  0.5]]
    """
    flat = as_rows(x)
    n = flat.shape[0]
    moved, _ = _in_range(flat)
    centred = moved - jnp.mean(moved, axis=0)
    product = _product(centred, centred)
    total = jnp.trace(product)
    alike = jnp.full((n, n), 1 / n, flat.dtype)
    return jnp.where(total == 0, alike, product / jnp.where(total == 0, 1, total))


def label_gram(labels: jax.Array) -> jax.Array:
    """Gram matrix of the delta kernel: 1/n where two labels are equal, else 0.

    Args:
        labels: (n,), integers.

    Returns:
        (n, n), trace 1, in JAX's default float type.

    Raises:
        ValueError: `labels` is not (n,) or not of integers.

    Examples:
        >>> print(info.label_gram(jnp.array([7, 7, 8, 8])))
        [[0.25 0.25 0.   0.  ]
         [0.25 0.25 0.   0.  ]
         [0.   0.   0.25 0.25]
         [0.   0.   0.25 0.25]]
    """
    labels = check_labels(labels)
    same = labels[:, None] == labels[None, :]
    return same.astype(jnp.result_type(float)) / labels.shape[0]


def check_labels(labels: jax.Array) -> jax.Array:
    """Labels as an array of one integer for each sample.

    Args:
        labels: (n,), integers. NumPy's that are too large for JAX's type, such as
            hashes, are replaced by the places of their values in ascending order.

    Raises:
        ValueError: they are not.
    """
    labels = _on_host(labels, "labels")
    given: Any = _on_host(labels, "labels")
    if _is_cut(given) and given.dtype.kind in "iu" and given.size:
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(given.dtype))
        if not limits.min <= given.min() <= given.max() <= limits.max:
            places = np.unique(given, return_inverse=True)[1]
            given = places.reshape(given.shape)
    labels = jnp.asarray(given)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels must be integers, got {labels.dtype}; use the index of the class"
        )
    if labels.ndim != 1 or labels.shape[0] < 1:
        raise ValueError(
            f"labels must have shape (n,) with n ≥ 1, got {labels.shape}; one-hot "
            "labels become integers by argmax"
        )
    return labels


def normalize_gram(kernel: jax.Array) -> jax.Array:
    """Gram matrix of any positive semi-definite kernel matrix.

    A_ij = K_ij / (n √(K_ii K_jj)), so every diagonal entry is 1/n. A sample with
    K_ii = 0 resembles only itself; one of NaN or infinity is NaN.

    Args:
        kernel: (n, n), symmetric, positive semi-definite.

    Returns:
        (n, n), trace 1.

    Raises:
        ValueError: `kernel` is not square.

    Source: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459, eq. 8.

    Examples:
        >>> print(info.normalize_gram(jnp.array([[4.0, 3.0], [3.0, 9.0]])))
        [[0.5  0.25]
         [0.25 0.5 ]]
    """
    kernel = check_gram(kernel, name="kernel")
    n = kernel.shape[0]
    diagonal = jnp.diagonal(kernel)
    roots = jnp.sqrt(jnp.where(diagonal <= 0, 1, diagonal))
    # One root after the other: their product can overflow where neither does.
    scaled = kernel / roots[:, None] / roots[None, :]
    own = jnp.where(jnp.isfinite(diagonal), 1, jnp.nan)
    return jnp.where(jnp.eye(n, dtype=bool), own, scaled) / n


def check_gram(gram: jax.Array, *, name: str = "gram") -> jax.Array:
    """A square matrix in at least float32.

    Args:
        gram: (n, n).
        name: of the argument, for the message.

    Raises:
        ValueError: it is not square.
    """
    gram = jnp.asarray(gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.shape[0] < 1:
        raise ValueError(
            f"{name} must be a square matrix (n, n), got shape {gram.shape}; for a "
            "batch of them use jax.vmap"
        )
    return gram.astype(jnp.promote_types(gram.dtype, jnp.float32))


def check_trace(*grams: jax.Array) -> None:
    """Refuse Grams whose trace is not 1, outside `jit`, where it can be asked.

    Args:
        grams: (n, n) each.

    Raises:
        ValueError: a trace is more than a hundredth away from 1. NaN and infinity pass:
            they show in the result.
    """
    for gram in grams:
        if isinstance(gram, jax.core.Tracer) or not gram.is_fully_addressable:
            continue
        with jax.ensure_compile_time_eval():  # one that a traced function closes over
            total = float(jnp.trace(gram))
        if math.isfinite(total) and abs(total - 1) > 0.01:
            raise ValueError(
                f"a Gram must have trace 1, got {total:.6g}; normalize_gram makes one "
                "of a kernel matrix"
            )


def check_grams(*grams: jax.Array) -> tuple[jax.Array, ...]:
    """Square matrices of one size in at least float32.

    Args:
        grams: (n, n) each.

    Raises:
        ValueError: there is none, one is not square, or sizes differ.
    """
    if not grams:
        raise ValueError("at least one Gram matrix is needed, got none")
    checked = tuple(check_gram(gram) for gram in grams)
    sizes = [gram.shape[0] for gram in checked]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"Gram matrices must be of the same samples, got sizes {sizes}"
        )
    return checked


def check_gram_stack(grams: jax.Array) -> jax.Array:
    """A stack of square matrices in at least float32.

    Args:
        grams: (l, n, n).

    Raises:
        ValueError: `grams` is not (l, n, n).
    """
    grams = jnp.asarray(grams)
    if grams.ndim != 3 or grams.shape[1] != grams.shape[2] or 0 in grams.shape:
        raise ValueError(
            f"grams must have shape (l, n, n), got {grams.shape}; jnp.stack makes it "
            "of single ones"
        )
    return grams.astype(jnp.promote_types(grams.dtype, jnp.float32))
