"""Rényi's functional of the spectrum of a Gram matrix, and its derivative.

S_α(A) = log2(Σ λ_i^α)/(1 − α) for the eigenvalues λ of a (n, n) trace-1 matrix, with
its limits at α = 1 (von Neumann) and ∞. The derivative needs no derivative of
eigenvectors, which is not finite at equal eigenvalues: d tr φ(A) = ⟨φ′(A), dA⟩.

The gradient with respect to A is given up to a multiple of the identity, which is
orthogonal to every change that keeps the trace.
"""

import functools
import math
import numbers
from typing import NoReturn

import jax
import jax.numpy as jnp

from dib_jax.information.decompositions import eigh, eigvalsh, matmul

# As in the papers: near Shannon's entropy, whose order is 1.
DEFAULT_ALPHA = 1.01
# Within this distance of 1 the sum of λ^α is taken as 1 + Σ λ (λ^(α−1) − 1).
_NEAR_ONE = 0.25
# Below order 1 eigenvalues of at most so many units of rounding count as 0: the power
# makes much of what is nothing but rounding.
_UNRESOLVED = 10
# Orders whose sums of powers are taken from products of matrices.
_BY_PRODUCTS = (2, 3, 4)


def check_alpha(alpha: float) -> float:
    """The order as a Python float.

    Args:
        alpha: a Python number > 0, or `math.inf`.

    Raises:
        ValueError: it is not such a number.
    """
    is_number = isinstance(alpha, numbers.Real) and not isinstance(alpha, bool)
    if not is_number or not alpha > 0:  # refuses NaN too
        raise ValueError(
            f"alpha must be a positive Python number or math.inf, got {alpha!r}; "
            "under jit, close over it or name it in static_argnames"
        )
    if alpha == math.inf:
        return math.inf
    # Beyond these the entropy is that at the limit, and float32 has no such number.
    return float(min(max(alpha, 1e-30), 1e30))


def entropy_of(gram: jax.Array, alpha: float) -> jax.Array:
    """S_α(A) in bits, value and gradient from one eigendecomposition.

    Args:
        gram: (n, n), symmetric, positive semi-definite, trace 1.
        alpha: the order, as `check_alpha` returns it.

    Returns:
        Scalar.
    """
    return entropy_of_blocks((gram,), alpha)


def entropy_of_blocks(blocks: tuple[jax.Array, ...], alpha: float) -> jax.Array:
    """S_α in bits of a block diagonal matrix.

    Args:
        blocks: (…, m, m) each, m may differ; symmetric, positive semi-definite, the sum
            of all traces 1. Blocks may be padded with zeros.
        alpha: the order, as `check_alpha` returns it.

    Returns:
        Scalar.
    """
    if alpha == 2:
        # Differentiated as it stands; no eigenvalues, and second derivatives are right.
        squares = [jnp.sum(block * block) for block in blocks]
        return -jnp.log2(sum(squares[1:], start=squares[0]))
    if alpha in _BY_PRODUCTS:
        return _by_products(int(alpha), blocks)
    return _by_spectrum(alpha, blocks)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _by_products(alpha: int, blocks: tuple[jax.Array, ...]) -> jax.Array:
    power = jnp.zeros((), blocks[0].dtype)
    for block in blocks:
        square = matmul(block, block)
        # As two statements: one fused expression is ten times slower on a CPU.
        power += jnp.sum(square * (block if alpha == 3 else square))
    return jnp.log2(power) / (1 - alpha)


@_by_products.defjvp
def _by_products_jvp(
    alpha: int,
    primals: tuple[tuple[jax.Array, ...]],
    tangents: tuple[tuple[jax.Array, ...]],
) -> tuple[jax.Array, jax.Array]:
    (blocks,), (changes,) = primals, tangents
    entropy = _by_products(alpha, blocks)
    change_of_power = jnp.zeros((), blocks[0].dtype)
    for block, change in zip(blocks, changes, strict=True):
        square = matmul(block, block)
        derivative = square if alpha == 3 else matmul(square, block)
        change_of_power += jnp.sum(derivative * change)
    # d/dA tr A^α = α A^(α−1); tr A^α follows from the entropy.
    scale = alpha / (1 - alpha) / math.log(2) * jnp.exp2(-(1 - alpha) * entropy)
    return entropy, scale * change_of_power


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _by_spectrum(alpha: float, blocks: tuple[jax.Array, ...]) -> jax.Array:
    spectra = [eigvalsh(block) for block in blocks]
    return entropy_of_spectrum(_joined(spectra), alpha)


def _joined(spectra: list[jax.Array]) -> jax.Array:
    return jnp.concatenate([spectrum.reshape(-1) for spectrum in spectra])


@_by_spectrum.defjvp
def _by_spectrum_jvp(
    alpha: float,
    primals: tuple[tuple[jax.Array, ...]],
    tangents: tuple[tuple[jax.Array, ...]],
) -> tuple[jax.Array, jax.Array]:
    (blocks,), (changes,) = primals, tangents
    entropy, gradients = _value_and_gradient(alpha, blocks)
    products = [jnp.sum(g * c) for g, c in zip(gradients, changes, strict=True)]
    return entropy, sum(products, start=jnp.zeros((), entropy.dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value_and_gradient(
    alpha: float, blocks: tuple[jax.Array, ...]
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    pairs = [eigh(block) for block in blocks]
    spectrum = _joined([values for values, _ in pairs])
    slopes = slopes_of_spectrum(spectrum, alpha)
    gradients, start = [], 0
    for values, vectors in pairs:
        slope = slopes[start : start + values.size].reshape(values.shape)
        start += values.size
        gradients.append(
            matmul(vectors * slope[..., None, :], jnp.swapaxes(vectors, -1, -2))
        )
    return entropy_of_spectrum(spectrum, alpha), tuple(gradients)


@_value_and_gradient.defjvp
def _no_second_derivative(alpha: float, primals: object, tangents: object) -> NoReturn:
    raise ValueError(
        f"second derivatives of the Rényi entropy are not available at alpha={alpha}; "
        f"alpha = {', '.join(map(str, _BY_PRODUCTS))} have them"
    )


def entropy_of_spectrum(
    spectrum: jax.Array, alpha: float, weights: jax.Array | None = None
) -> jax.Array:
    """S_α in bits from the eigenvalues.

    Args:
        spectrum: (n,), sum 1; eigenvalues that rounding made negative count as 0, and
            for α < 1 those of up to 10 units of rounding of the largest.
        alpha: the order, as `check_alpha` returns it.
        weights: (n,), how often each eigenvalue counts; None for once.

    Returns:
        Scalar.
    """
    spectrum = _resolved(spectrum, alpha)
    if alpha == math.inf:
        return -jnp.log2(jnp.max(spectrum))
    # Asked so that NaN is no 0 and stays NaN.
    zero = spectrum <= 0
    logs = jnp.log(jnp.where(zero, 1, spectrum))
    masses = spectrum if weights is None else weights * spectrum
    if alpha == 1:
        return -jnp.sum(masses * logs) / math.log(2)
    if abs(alpha - 1) < _NEAR_ONE:
        # The sum is 1 + O(α − 1), and the quotient by 1 − α would magnify its rounding.
        rest = jnp.sum(masses * jnp.expm1((alpha - 1) * logs))
        return jnp.log1p(rest) / ((1 - alpha) * math.log(2))
    logs = jnp.where(zero, -jnp.inf, logs)
    # As a sum of logarithms: λ^α leaves float32 at large α.
    total = jax.nn.logsumexp(alpha * logs, b=weights)
    return total / ((1 - alpha) * math.log(2))


def _resolved(spectrum: jax.Array, alpha: float) -> jax.Array:
    """Eigenvalues (n,), 0 in place of what is nothing but rounding."""
    units = _UNRESOLVED if alpha < 1 else 0
    least = units * jnp.finfo(spectrum.dtype).eps * jnp.max(spectrum)
    # Asked so that NaN stays NaN.
    return jnp.where(spectrum <= least, 0, spectrum)


def slopes_of_spectrum(
    spectrum: jax.Array, alpha: float, weights: jax.Array | None = None
) -> jax.Array:
    """∂S_α/∂λ_i, up to one constant for all i.

    Eigenvalues below the resolution of the decomposition are raised to it: for α ≤ 1
    the derivative may grow without bound there.

    Args:
        spectrum: (n,), sum 1.
        alpha: the order, as `check_alpha` returns it.
        weights: (n,), how often each eigenvalue counts; None for once. The result is
            the derivative per count.

    Returns:
        (n,).
    """
    largest = jnp.max(spectrum)
    if alpha == math.inf:
        top = (spectrum == largest).astype(spectrum.dtype)
        return -top / jnp.sum(top) / (largest * math.log(2))
    floor = jnp.finfo(spectrum.dtype).eps * largest
    logs = jnp.log(jnp.maximum(spectrum, floor))
    if alpha == 1:
        return -logs / math.log(2)
    factor = alpha / ((1 - alpha) * math.log(2))
    if abs(alpha - 1) < _NEAR_ONE:
        # λ^(α−1) − 1 instead of λ^(α−1): the constant would cancel the digits.
        entropy = entropy_of_spectrum(spectrum, alpha, weights)
        total = jnp.exp2((1 - alpha) * entropy)
        return factor * jnp.expm1((alpha - 1) * logs) / total
    # In units of the largest eigenvalue: exp of α times a logarithm loses α's digits.
    logs = logs - jnp.log(largest)
    resolved = _resolved(spectrum, alpha) > 0
    powers = jnp.exp(alpha * jnp.where(resolved, logs, -jnp.inf))
    if weights is not None:
        powers = weights * powers
    return factor * jnp.exp((alpha - 1) * logs) / (largest * jnp.sum(powers))
