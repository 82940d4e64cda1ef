"""Dependence by centred kernels: HSIC, normalised HSIC, CKA.

They work on n · Gram, the kernel matrix with unit diagonal. 0/0 is 0 in all three.
Asked as `<=`, so that NaN is no 0/0: it stays NaN.
"""

import functools
import math
import numbers
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dib_jax.information.decompositions import matmul, solve_positive
from dib_jax.information.gram import (
    as_rows,
    check_gram,
    check_gram_stack,
    check_grams,
    check_trace,
    check_widths,
    gaussian_gram,
    linear_gram,
)


def _centred_kernel(gram: jax.Array) -> jax.Array:
    """H (n · Gram) H with H = I − 1/n."""
    kernel = gram * gram.shape[0]
    rows = jnp.mean(kernel, axis=0)
    return kernel - rows[None, :] - rows[:, None] + jnp.mean(rows)


def _u_centred_kernel(gram: jax.Array) -> jax.Array:
    """n · Gram without its diagonal, centred so that products estimate without bias."""
    n = gram.shape[0]
    if n < 4:
        raise ValueError(f"unbiased=True needs at least 4 samples, got {n}")
    off_diagonal = 1 - jnp.eye(n, dtype=gram.dtype)
    kernel = gram * n * off_diagonal
    rows = jnp.sum(kernel, axis=0)
    mean = jnp.sum(rows) / ((n - 1) * (n - 2))
    rows = rows / (n - 2)
    return (kernel - rows[None, :] - rows[:, None] + mean) * off_diagonal


def hsic(a: jax.Array, b: jax.Array, *, unbiased: bool = False) -> jax.Array:
    """Hilbert–Schmidt independence criterion, tr(H K_a H K_b)/(n − 1)².

    Args:
        a: (n, n), a Gram; K_a = n · a.
        b: (n, n), likewise, of the same samples.
        unbiased: the U-statistic in its place, whose mean over samples of any size is
            that of all the data: tr(Ũ_a Ũ_b)/(n (n − 3)), where Ũ is K with its
            diagonal set to 0 and centred for that. Static.

    Returns:
        Scalar ≥ 0; 0 for n = 1. Unbiased it may be below 0.

    Raises:
        ValueError: sizes differ, `unbiased` with less than 4 samples, or, outside
            `jit`, a trace is not 1.

    Source: Gretton, Bousquet, Smola & Schölkopf, ALT 2005, definition 2; unbiased Song,
    Smola, Gretton, Bedo & Borgwardt, JMLR 13, 2012, eq. 5.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> b = info.label_gram(jnp.array([0, 1, 0, 1]))
        >>> print(info.hsic(a, a) * 9, info.hsic(a, b))
        4.0 0.0
    """
    a, b = check_grams(a, b)
    check_trace(a, b)
    centre = _centring(unbiased)
    return _hsic(centre(a), centre(b), unbiased=unbiased)


def _centring(unbiased: bool) -> Callable[[jax.Array], jax.Array]:
    return _u_centred_kernel if unbiased else _centred_kernel


def _hsic(
    centred_a: jax.Array, centred_b: jax.Array, *, unbiased: bool = False
) -> jax.Array:
    n = centred_a.shape[0]
    return jnp.sum(centred_a * centred_b) / (
        n * (n - 3) if unbiased else max(n - 1, 1) ** 2
    )


def cka(a: jax.Array, b: jax.Array, *, unbiased: bool = False) -> jax.Array:
    """Centred kernel alignment, hsic(a, b)/√(hsic(a, a) hsic(b, b)).

    Of independent samples it is above 0, 0.2 for instance for 32 of them, and 0 in the
    mean if `unbiased`.

    Args:
        a: (n, n), a Gram.
        b: (n, n), likewise, of the same samples.
        unbiased: of the unbiased `hsic`; static.

    Returns:
        Scalar from 0 to 1, unbiased from −1; 0 where one of the two is constant, or
        n = 1.

    Raises:
        ValueError: sizes differ, or `unbiased` with less than 4 samples.

    Source: Kornblith, Norouzi, Lee & Hinton, arXiv 1905.00414, section 3; unbiased
    Nguyen, Raghu & Kornblith, arXiv 2010.15327, eq. 2.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> b = info.label_gram(jnp.array([0, 1, 0, 1]))
        >>> print(info.cka(a, a).round(3), info.cka(a, b))
        1.0 0.0
    """
    a, b = check_grams(a, b)
    return _cka(a[None], b[None], unbiased=unbiased)


def minibatch_cka(a: jax.Array, b: jax.Array) -> jax.Array:
    """CKA of many samples from Grams of minibatches of them.

    mean hsic(a_i, b_i)/√(mean hsic(a_i, a_i) · mean hsic(b_i, b_i)), each unbiased: so
    the number of samples in a minibatch does not matter to what it tends to.

    Args:
        a: (m, n, n), a Gram for each of m minibatches.
        b: (m, n, n), likewise, of the same samples.

    Returns:
        Scalar from −1 to 1; 0 where one of the two is constant.

    Raises:
        ValueError: shapes differ, or there are less than 4 samples in a minibatch.

    Source: Nguyen, Raghu & Kornblith, arXiv 2010.15327, eq. 3.

    Examples:
        >>> x = jax.random.normal(jax.random.key(0), (8, 16, 2))
        >>> grams = jax.vmap(info.linear_gram)(x)
        >>> print(info.minibatch_cka(grams, grams).round(3))
        1.0
    """
    a, b = check_gram_stack(a), check_gram_stack(b)
    if a.shape != b.shape:
        raise ValueError(
            "Gram matrices must be of the same samples in the same minibatches, got "
            f"shapes {a.shape} and {b.shape}"
        )
    return _cka(a, b, unbiased=True)


def _cka(a: jax.Array, b: jax.Array, *, unbiased: bool) -> jax.Array:
    """CKA of (m, n, n) and (m, n, n), each HSIC a mean over m."""
    centred_a, centred_b = (jax.vmap(_centring(unbiased))(each) for each in (a, b))

    def mean(one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.mean(
            jax.vmap(functools.partial(_hsic, unbiased=unbiased))(one, other)
        )

    squares = [mean(centred_a, centred_a), mean(centred_b, centred_b)]
    constant = [square <= _least(a.dtype) for square in squares]
    roots = [
        jnp.sqrt(jnp.where(flat, 1, square))
        for flat, square in zip(constant, squares, strict=True)
    ]
    # Of a constant kernel and one of NaN it is NaN.
    known = constant[0] & (squares[1] >= 0) | constant[1] & (squares[0] >= 0)
    return jnp.where(known, 0, mean(centred_a, centred_b) / roots[0] / roots[1])


def _least(dtype: jnp.dtype) -> float:
    """Below the rounding of the centring a kernel is constant."""
    return float(jnp.finfo(dtype).eps * 8) ** 2


def cka_matrix(grams: jax.Array, *, unbiased: bool = False) -> jax.Array:
    """Centred kernel alignment of all pairs, from one matrix product.

    Args:
        grams: (l, n, n), Grams of the same samples.
        unbiased: as for `cka`.

    Returns:
        (l, l), symmetric to rounding; entry (i, j) is `cka(grams[i], grams[j])`.

    Raises:
        ValueError: `grams` is not (l, n, n), or `unbiased` with less than 4 samples.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> b = info.label_gram(jnp.array([0, 1, 0, 1]))
        >>> print(info.cka_matrix(jnp.stack([a, b])).round(3))
        [[1. 0.]
         [0. 1.]]
    """
    grams = check_gram_stack(grams)
    centred = jax.vmap(_centring(unbiased))(grams)
    n = grams.shape[1]
    flat = centred.reshape(len(grams), -1)
    flat = flat / (math.sqrt(n * (n - 3)) if unbiased else max(n - 1, 1))
    squares = jnp.sum(flat * flat, axis=1, keepdims=True)
    constant = squares <= _least(grams.dtype)
    units = jnp.where(constant, 0, flat / jnp.sqrt(jnp.where(constant, 1, squares)))
    return matmul(units, units.T)


def linear_cka(x: jax.Array, y: jax.Array, *, unbiased: bool = False) -> jax.Array:
    """Linear CKA of features, `cka(linear_gram(x), linear_gram(y))`.

    With centred features |Xᵀ Y|²/(|Xᵀ X| |Yᵀ Y|), Frobenius norms: the same for
    features that are turned, shifted or scaled.

    Args:
        x: (n, …); features are flattened.
        y: (n, …), likewise, of the same samples; another number of features is fine.
        unbiased: as for `cka`.

    Returns:
        Scalar from 0 to 1, unbiased from −1; 0 where one of the two is constant.

    Raises:
        ValueError: sizes differ, or `unbiased` with less than 4 samples.

    Source: Kornblith, Norouzi, Lee & Hinton, arXiv 1905.00414, section 3.

    Examples:
        >>> x = jnp.array([[0.0], [1.0], [5.0], [2.0]])
        >>> print(info.linear_cka(x, -3 * x).round(3))
        1.0
    """
    return cka(linear_gram(x), linear_gram(y), unbiased=unbiased)


def normalized_hsic(a: jax.Array, b: jax.Array, *, epsilon: float = 1e-5) -> jax.Array:
    """Normalised HSIC tr(R_a R_b), R = K̄ (K̄ + ε n I)⁻¹ with K̄ = H K H.

    Args:
        a: (n, n), a Gram; K_a = n · a.
        b: (n, n), likewise, of the same samples.
        epsilon: regularisation ε, > 0; below the resolution of the Grams' dtype (4 eps,
            5e-7 in float32) it is raised to that.

    Returns:
        Scalar from 0 to n − 1.

    Raises:
        ValueError: sizes differ, `epsilon` is not above 0, or, outside `jit`, a trace
            is not 1.

    Source: Ma, Lewis & Kleijn, arXiv 1908.01580, eq. 3; Fukumizu, Gretton, Sun &
    Schölkopf, NeurIPS 2007.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> print(info.normalized_hsic(a, a, epsilon=0.01).round(2))
        0.96
    """
    a, b = check_grams(a, b)
    check_trace(a, b)
    smoothed = smoother(a, epsilon=epsilon), smoother(b, epsilon=epsilon)
    return jnp.sum(smoothed[0] * smoothed[1].T)


def smoother(gram: jax.Array, *, epsilon: float = 1e-5) -> jax.Array:
    """R = K̄ (K̄ + ε n I)⁻¹ of a Gram, for many `normalized_hsic` with one solution each.

    Args:
        gram: (n, n); K̄ = H n·gram H.
        epsilon: as for `normalized_hsic`.

    Returns:
        (n, n), symmetric to rounding.

    Raises:
        ValueError: `gram` is not square, or `epsilon` is not above 0.
    """
    if isinstance(epsilon, numbers.Real) and not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be > 0, got {epsilon!r}")
    centred = _centred_kernel(check_gram(gram))
    n = centred.shape[0]
    # With less, rounding makes the matrix indefinite: it has no Cholesky factor.
    least = jnp.maximum(epsilon, 4 * float(jnp.finfo(centred.dtype).eps))
    ridge = centred + least * n * jnp.eye(n, dtype=centred.dtype)
    return solve_positive(ridge, centred)


def aligned_bandwidth(
    x: jax.Array, target_gram: jax.Array, *, candidates: jax.Array | Sequence[float]
) -> jax.Array:
    """The candidate width whose Gaussian Gram aligns best with a target's Gram.

    Args:
        x: (n, …); features are flattened.
        target_gram: (n, n), e.g. `label_gram(labels)`.
        candidates: (m,), widths > 0 in units of x.

    Returns:
        σ, one of the candidates, the first of the best ones; NaN where an alignment is.
        No gradient.

    Raises:
        ValueError: sizes differ, there is no candidate, or a static one is not above 0.

    Source: centred alignment of Cortes, Mohri & Rostamizadeh, JMLR 13, 2012.

    Examples:
        >>> x = jnp.array([[0.0], [0.1], [3.0], [3.1]])
        >>> gram = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> print(info.aligned_bandwidth(x, gram, candidates=[0.01, 1.0, 100.0]))
        1.0
    """
    check_widths(candidates, name="candidates")
    x = jax.lax.stop_gradient(as_rows(x))
    target_gram = jax.lax.stop_gradient(target_gram)
    widths = jax.lax.stop_gradient(
        jnp.asarray(candidates, jnp.result_type(x.dtype, jnp.float32))
    )
    if widths.ndim != 1 or widths.size == 0:
        raise ValueError(
            f"candidates must be one or more widths (m,), got shape {widths.shape}"
        )
    scores = jax.lax.map(
        lambda sigma: cka(gaussian_gram(x, sigma=sigma), target_gram), widths
    )
    return jnp.where(jnp.isnan(scores).any(), jnp.nan, widths[jnp.argmax(scores)])
