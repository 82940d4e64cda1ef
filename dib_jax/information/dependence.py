"""Dependence by centred kernels: HSIC, normalised HSIC, CKA.

They work on n · Gram, the kernel matrix with unit diagonal. 0/0 is 0 in all three.
"""

import math
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dib_jax.information.decompositions import matmul, solve_positive
from dib_jax.information.gram import (
    check_gram,
    check_gram_stack,
    check_grams,
    check_widths,
    gaussian_gram,
    linear_gram,
)


def _centred_kernel(gram: jax.Array) -> jax.Array:
    """H (n · Gram) H with H = I − 1/n."""
    kernel = gram * gram.shape[0]
    rows = jnp.mean(kernel, axis=0)
    return kernel - rows[None, :] - rows[:, None] + jnp.mean(rows)


def hsic(a: jax.Array, b: jax.Array) -> jax.Array:
    """Hilbert–Schmidt independence criterion, tr(H K_a H K_b)/(n − 1)².

    Args:
        a: (n, n), a Gram; K_a = n · a.
        b: (n, n), likewise, of the same samples.

    Returns:
        Scalar ≥ 0; 0 for n = 1.

    Raises:
        ValueError: sizes differ.

    Source: Gretton, Bousquet, Smola & Schölkopf, ALT 2005, definition 2.
    """
    a, b = check_grams(a, b)
    return _hsic(_centred_kernel(a), _centred_kernel(b))


def _hsic(centred_a: jax.Array, centred_b: jax.Array) -> jax.Array:
    n = centred_a.shape[0]
    return jnp.sum(centred_a * centred_b) / max(n - 1, 1) ** 2


def cka(a: jax.Array, b: jax.Array) -> jax.Array:
    """Centred kernel alignment, hsic(a, b)/√(hsic(a, a) hsic(b, b)).

    Args:
        a: (n, n), a Gram.
        b: (n, n), likewise, of the same samples.

    Returns:
        Scalar from 0 to 1; 0 where one of the two is constant, or n = 1.

    Raises:
        ValueError: sizes differ.

    Source: Kornblith, Norouzi, Lee & Hinton, arXiv 1905.00414, section 3.
    """
    a, b = check_grams(a, b)
    centred_a, centred_b = _centred_kernel(a), _centred_kernel(b)
    squares = [_hsic(centred_a, centred_a), _hsic(centred_b, centred_b)]
    # Below the rounding of the centring a kernel is constant.
    least = (jnp.finfo(a.dtype).eps * 8) ** 2
    varied = (squares[0] > least) & (squares[1] > least)
    roots = [jnp.sqrt(jnp.where(varied, square, 1)) for square in squares]
    return jnp.where(varied, _hsic(centred_a, centred_b) / roots[0] / roots[1], 0)


def cka_matrix(grams: jax.Array) -> jax.Array:
    """Centred kernel alignment of all pairs, from one matrix product.

    Args:
        grams: (l, n, n), Grams of the same samples.

    Returns:
        (l, l), symmetric to rounding; entry (i, j) is `cka(grams[i], grams[j])`.

    Raises:
        ValueError: `grams` is not (l, n, n).
    """
    grams = check_gram_stack(grams)
    centred = jax.vmap(_centred_kernel)(grams)
    squares = jax.vmap(_hsic)(centred, centred)[:, None]
    varied = squares > (jnp.finfo(grams.dtype).eps * 8) ** 2
    flat = centred.reshape(len(grams), -1) / max(grams.shape[1] - 1, 1)
    units = jnp.where(varied, flat / jnp.sqrt(jnp.where(varied, squares, 1)), 0)
    return matmul(units, units.T)


def linear_cka(x: jax.Array, y: jax.Array) -> jax.Array:
    """Linear CKA of features, `cka(linear_gram(x), linear_gram(y))`.

    With centred features |Xᵀ Y|²/(|Xᵀ X| |Yᵀ Y|), Frobenius norms: the same for
    features that are turned, shifted or scaled.

    Args:
        x: (n, …); features are flattened.
        y: (n, …), likewise, of the same samples; another number of features is fine.

    Returns:
        Scalar from 0 to 1; 0 where one of the two is constant.

    Raises:
        ValueError: sizes differ.

    Source: Kornblith, Norouzi, Lee & Hinton, arXiv 1905.00414, section 3.
    """
    return cka(linear_gram(x), linear_gram(y))


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
        ValueError: sizes differ, or `epsilon` is not above 0.

    Source: Ma, Lewis & Kleijn, arXiv 1908.01580, eq. 3; Fukumizu, Gretton, Sun &
    Schölkopf, NeurIPS 2007.
    """
    a, b = check_grams(a, b)
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
        σ, one of the candidates, the first of the best ones. No gradient.

    Raises:
        ValueError: sizes differ, there is no candidate, or a static one is not above 0.

    Source: centred alignment of Cortes, Mohri & Rostamizadeh, JMLR 13, 2012.
    """
    check_widths(candidates, name="candidates")
    x = jax.lax.stop_gradient(jnp.asarray(x))
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
    return widths[jnp.argmax(scores)]
