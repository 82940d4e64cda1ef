"""Estimated Rényi entropies of large Gram matrices, in bits.

Eigenvalues of (n, n) cost O(n³); these estimates cost O(n² (rank + probes · steps)),
all in matrix products. No other function chooses them silently.

Subspace iteration finds the largest eigenvalues. Random probes see the spectral density
of the others (Lanczos quadrature); the two moments that need no eigenvalue, the trace
and the Frobenius norm, correct every probe.
"""

import functools
import math
import numbers
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from dib_jax.information.decompositions import eigh, matmul, qr, solve_lower
from dib_jax.information.entropy import hadamard
from dib_jax.information.gram import check_gram, check_grams, check_trace
from dib_jax.information.spectral import (
    DEFAULT_ALPHA,
    check_alpha,
    entropy_of,
    entropy_of_spectrum,
    slopes_of_spectrum,
)

# Passes of the subspace iteration, and Lanczos steps of a probe.
_PASSES = 3
_STEPS = 12


class Estimate(NamedTuple):
    """An estimated number of bits.

    Attributes:
        bits: scalar, with a gradient.
        error: standard error of `bits`, without a gradient; 0 where `bits` is exact. It
            combines the spread of the probes with the change that half of their steps
            and a cruder account of the subspace's error make.

    Examples:
        >>> found = info.Estimate(bits=1.5, error=0.02)
        >>> f"{found.bits} ± {found.error} bits"
        '1.5 ± 0.02 bits'
    """

    bits: jax.Array
    error: jax.Array


def estimated_renyi_entropy(
    gram: jax.Array,
    *,
    key: jax.Array,
    alpha: float = DEFAULT_ALPHA,
    rank: int = 128,
    probes: int = 8,
) -> Estimate:
    """Rényi entropy of order α of a large Gram matrix, estimated.

    Above about n = 1000 it is faster than `renyi_entropy`. It is exact at α = 2, which
    needs no eigenvalues, and where n ≤ 2 · rank. For α below 1 the smallest eigenvalues
    dominate, and `error` is too small.

    The gradient uses the derivative at the largest eigenvalues and a straight line
    through the derivative at the others; the positions of the probes add no noise to
    it. First order only.

    Args:
        gram: (n, n), symmetric, positive semi-definite, trace 1 (`normalize_gram`).
        key: random key of the probes; the same key, the same estimate.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.
        rank: how many of the largest eigenvalues are found one by one; static.
        probes: how many random vectors see the others, ≥ 2; static.

    Returns:
        The estimate and its standard error.

    Raises:
        ValueError: `alpha` is not such a number, `gram` is not square, `rank` or
            `probes` is too small, or, outside `jit`, the trace is not 1.

    Source: top eigenvalues and a tail after Dong et al., arXiv 2211.16784; Lanczos
    quadrature after Ubaru, Chen & Saad, SIAM J. Matrix Anal. Appl. 38, 2017; for the
    Rényi functional Gong et al., arXiv 2112.13720.

    Examples:
        >>> gram = info.label_gram(jnp.arange(64) % 4)
        >>> key = jax.random.key(0)
        >>> found = info.estimated_renyi_entropy(gram, key=key, rank=8, probes=4)
        >>> print(found.bits.round(2))
        2.0
    """
    _check_sizes(rank, probes)
    alpha, gram = check_alpha(alpha), check_gram(gram)
    check_trace(gram)
    return _estimate(gram, alpha, key, int(rank), int(probes))


def estimated_mutual_information(
    a: jax.Array,
    b: jax.Array,
    *,
    key: jax.Array,
    alpha: float = DEFAULT_ALPHA,
    rank: int = 128,
    probes: int = 8,
) -> Estimate:
    """Mutual information I_α(A; B) of large Gram matrices, estimated.

    Three times `estimated_renyi_entropy`, with the same probes.

    Args:
        a: (n, n), as for `renyi_entropy`.
        b: (n, n), likewise, of the same samples.
        key: random key of the probes; the same key, the same estimate.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.
        rank: how many of the largest eigenvalues are found one by one; static.
        probes: how many random vectors see the others, ≥ 2; static.

    Returns:
        The estimate, and the root of the sum of the squared errors of its terms.

    Raises:
        ValueError: as `estimated_renyi_entropy`, or sizes differ.

    Examples:
        >>> gram = info.label_gram(jnp.arange(64) % 4)
        >>> key, options = jax.random.key(0), {"rank": 8, "probes": 4}
        >>> found = info.estimated_mutual_information(gram, gram, key=key, **options)
        >>> print(found.bits.round(2))
        2.0
    """
    _check_sizes(rank, probes)
    alpha = check_alpha(alpha)
    a, b = check_grams(a, b)
    check_trace(a, b)
    terms = [
        _estimate(gram, alpha, key, int(rank), int(probes))
        for gram in (a, b, hadamard(a, b))
    ]
    error = jnp.sqrt(sum(term.error**2 for term in terms[1:]) + terms[0].error ** 2)
    return Estimate(terms[0].bits + terms[1].bits - terms[2].bits, error)


def _check_sizes(rank: int, probes: int) -> None:
    for name, size, least in (("rank", rank, 1), ("probes", probes, 2)):
        if (
            isinstance(size, bool)
            or not isinstance(size, numbers.Integral)
            or size < least
        ):
            raise ValueError(f"{name} must be an integer ≥ {least}, got {size!r}")


def _estimate(
    gram: jax.Array, alpha: float, key: jax.Array, rank: int, probes: int
) -> Estimate:
    if alpha == 2 or gram.shape[0] <= 2 * rank:
        return Estimate(entropy_of(gram, alpha), jnp.zeros((), gram.dtype))
    bits, error = _by_probes(alpha, rank, probes, gram, key)
    return Estimate(bits, error)


class _Spectrum(NamedTuple):
    """Largest eigenvalues of a Gram, and quadratures of the others.

    Attributes:
        vectors: (n, rank), eigenvectors of the largest eigenvalues.
        top: (rank,), the largest eigenvalues.
        nodes: (probes, steps), where each probe's quadrature puts the others.
        weights: (probes, steps), how many eigenvalues it puts there.
        coarse: nodes and weights after half of the steps.
    """

    vectors: jax.Array
    top: jax.Array
    nodes: jax.Array
    weights: jax.Array
    coarse: tuple[jax.Array, jax.Array]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _by_probes(
    alpha: float, rank: int, probes: int, gram: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _bits(alpha, _spectrum(gram, key, rank, probes))


@_by_probes.defjvp
def _by_probes_jvp(
    alpha: float,
    rank: int,
    probes: int,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array, object],
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    (gram, key), (change, _) = primals, tangents
    bits, error, gradient = _with_gradient(alpha, rank, probes, gram, key)
    return (bits, error), (jnp.sum(gradient * change), jnp.zeros_like(error))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _with_gradient(
    alpha: float, rank: int, probes: int, gram: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    spectrum = _spectrum(gram, key, rank, probes)
    nodes = jnp.concatenate([spectrum.top, spectrum.nodes.reshape(-1)])
    weights = jnp.concatenate(
        [jnp.ones_like(spectrum.top), spectrum.weights.reshape(-1) / probes]
    )
    slopes = slopes_of_spectrum(nodes, alpha, weights)
    # On the tail a straight line c + m λ replaces f′, fitted by least squares with the
    # eigenvalues as weights: then f′(A) is c + m A there, without eigenvectors.
    masses = jnp.maximum(weights * nodes, 0)[rank:]
    tail, values = nodes[rank:], slopes[rank:]
    total = jnp.maximum(jnp.sum(masses), jnp.finfo(gram.dtype).tiny)
    centre = jnp.sum(masses * tail) / total
    height = jnp.sum(masses * values) / total
    spread = jnp.sum(masses * (tail - centre) ** 2)
    steepness = jnp.sum(masses * (tail - centre) * (values - height))
    m = jnp.where(spread > 0, steepness / jnp.where(spread > 0, spread, 1), 0)
    c = height - m * centre
    rest = slopes[:rank] - c - m * spectrum.top
    vectors = spectrum.vectors
    # Without c I: a change of A that preserves the trace is orthogonal to it.
    gradient = m * gram + matmul(vectors * rest, vectors.T)
    return *_bits(alpha, spectrum), gradient


@_with_gradient.defjvp
def _no_second_derivative(
    alpha: float, rank: int, probes: int, primals: object, tangents: object
) -> NoReturn:
    raise ValueError("second derivatives of an estimated entropy are not available")


def _bits(alpha: float, spectrum: _Spectrum) -> tuple[jax.Array, jax.Array]:
    def of_one(nodes: jax.Array, weights: jax.Array) -> jax.Array:
        return entropy_of_spectrum(
            jnp.concatenate([spectrum.top, nodes]),
            alpha,
            jnp.concatenate([jnp.ones_like(spectrum.top), weights]),
        )

    each = jax.vmap(of_one)(spectrum.nodes, spectrum.weights)
    bits = jnp.mean(each)
    spread = jnp.std(each, ddof=1) / math.sqrt(each.shape[0])
    return bits, jnp.hypot(spread, bits - jnp.mean(jax.vmap(of_one)(*spectrum.coarse)))


def _spectrum(gram: jax.Array, key: jax.Array, rank: int, probes: int) -> _Spectrum:
    gram = jax.lax.stop_gradient(gram)
    n, dtype = gram.shape[0], gram.dtype
    key_start, key_probes = jax.random.split(key)
    basis = jax.random.normal(key_start, (n, rank), dtype)
    for _ in range(_PASSES):
        basis = qr(matmul(gram, basis))[0]
    image = matmul(gram, basis)
    top, turn = eigh(matmul(basis.T, image))
    vectors = matmul(basis, turn)
    starts = jax.random.rademacher(key_probes, (n, probes), dtype)
    starts = starts - matmul(vectors, matmul(vectors.T, starts))
    norms = jnp.linalg.norm(starts, axis=0)
    tiny = jnp.finfo(dtype).tiny
    diagonal, beside = _lanczos(gram, vectors, starts / jnp.maximum(norms, tiny))
    squares = jnp.sum(image * image)
    # Half of what couples the subspace and the rest counts for the rest, none of it in
    # the coarse view: the difference shows the error of the unfinished subspace.
    between = squares - jnp.sum(top * top)
    square = jnp.sum(gram * gram) - squares

    def after(steps: int, square: jax.Array) -> tuple[jax.Array, jax.Array]:
        known = [jnp.asarray(n - rank, dtype), jnp.trace(gram) - jnp.sum(top), square]
        nodes, shares = jax.vmap(_quadrature)(diagonal[:steps].T, beside[:steps].T)
        # A Gram of low rank has no tail, only rounding errors.
        nodes = jnp.where(nodes > 10 * jnp.finfo(dtype).eps * top[-1], nodes, 0)
        corrected = functools.partial(_corrected, jnp.stack(known))
        return nodes, jax.vmap(corrected)(nodes, shares * norms[:, None] ** 2)

    coarse = after(_STEPS // 2, square - between)
    return _Spectrum(vectors, top, *after(_STEPS, square), coarse=coarse)


def _lanczos(
    gram: jax.Array, vectors: jax.Array, starts: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Tridiagonal matrices of the tail, from unit vectors (n, probes).

    Returns:
        Their diagonals and off-diagonals, (steps, probes) each.
    """
    n, probes = starts.shape
    dtype = gram.dtype
    tiny = jnp.finfo(dtype).tiny

    def outside(block: jax.Array) -> jax.Array:
        return block - matmul(vectors, matmul(vectors.T, block))

    basis = jnp.zeros((_STEPS, n, probes), dtype).at[0].set(starts)

    def step(
        index: jax.Array, state: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        basis, diagonal, beside = state
        image = outside(matmul(gram, outside(basis[index])))
        diagonal = diagonal.at[index].set(jnp.sum(image * basis[index], axis=0))
        # Against all earlier ones, twice: Lanczos vectors lose orthogonality.
        for _ in range(2):
            shares = jnp.einsum("snp,np->sp", basis, image)
            image = image - jnp.einsum("snp,sp->np", basis, shares)
        length = jnp.linalg.norm(image, axis=0)
        ended = length <= 10 * jnp.finfo(dtype).eps * jnp.abs(diagonal[0])
        length = jnp.where(ended, 0, length)
        following = jnp.where(ended, 0, image / jnp.maximum(length, tiny))
        basis = basis.at[index + 1].set(following, mode="drop")
        return basis, diagonal, beside.at[index].set(length)

    zeros = jnp.zeros((_STEPS, probes), dtype)
    _, diagonal, beside = jax.lax.fori_loop(0, _STEPS, step, (basis, zeros, zeros))

    return diagonal, beside


def _quadrature(diagonal: jax.Array, beside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nodes of Gauss's quadrature and their shares, from a tridiagonal matrix."""
    off = jnp.diag(beside[:-1], 1)
    nodes, vectors = eigh(jnp.diag(diagonal) + off + off.T)
    return jnp.maximum(nodes, 0), vectors[0] ** 2


def _corrected(moments: jax.Array, nodes: jax.Array, weights: jax.Array) -> jax.Array:
    """Weights of one probe, with the least change that gives them the true moments."""
    largest = jnp.max(nodes)
    is_tail = largest > 0
    largest = jnp.where(is_tail, largest, 1)
    powers = (nodes / largest)[None, :] ** jnp.arange(3)[:, None]
    scaled = moments / largest ** jnp.arange(3)
    missing = scaled - powers @ weights
    # The smallest change u √w with P (u √w) = missing: a regression on 1, λ and λ². By
    # QR: the normal equations would square the condition number.
    roots = jnp.sqrt(weights)
    q, r = qr((powers * roots).T)
    diagonal = jnp.diagonal(r)
    least = 1e-5 * jnp.abs(diagonal[0])
    # Fewer than three distinct nodes cannot match all three moments.
    r = r + jnp.diag(jnp.where(jnp.abs(diagonal) > least, 0, jnp.inf))
    u = q @ solve_lower(r.T, missing)
    return weights + jnp.where(is_tail, roots * u, 0)
