"""Decompositions of matrices, safe in batches on a CPU.

There jaxlib's LAPACK calls split a batch among the threads that run the program, and
wait for them. As many such calls as there are threads occupy all of them while they
wait, and the program never ends: with jaxlib 0.10.2 on two cores, native stacks show
every worker inside LAPACK's call, waiting for its share. A call on one matrix waits for
nothing. So on a CPU the matrices of a batch are decomposed one by one, elsewhere in one
call.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

_Arrays = TypeVar("_Arrays")  # one array, or a tuple of them


def _one_by_one(
    signature: str,
) -> Callable[[Callable[..., _Arrays]], Callable[..., _Arrays]]:
    """Decorate a function of one matrix to take many, (…, n, m), one by one on a CPU.

    Args:
        signature: as `jnp.vectorize` takes it.
    """

    def decorate(function: Callable[..., _Arrays]) -> Callable[..., _Arrays]:
        mapped = jax.custom_batching.custom_vmap(function)

        @mapped.def_vmap
        def rule(
            size: int, batched: list[bool], *arguments: jax.Array
        ) -> tuple[_Arrays, _Arrays]:
            axes = [0 if is_batched else None for is_batched in batched]

            def in_turn(*arguments: jax.Array) -> _Arrays:
                stacks = tuple(
                    x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
                    for x, is_batched in zip(arguments, batched, strict=True)
                )
                return jax.lax.map(lambda one: mapped(*one), stacks)

            result = jax.lax.platform_dependent(
                *arguments, cpu=in_turn, default=jax.vmap(function, in_axes=axes)
            )
            return result, jax.tree.map(lambda _: True, result)

        return functools.wraps(function)(jnp.vectorize(mapped, signature=signature))

    return decorate


@_one_by_one("(n,n)->(n),(n,n)")
def eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, ascending, and eigenvectors as columns, of symmetric (…, n, n)."""
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return values, vectors


@_one_by_one("(n,n)->(n)")
def eigvalsh(matrix: jax.Array) -> jax.Array:
    """Eigenvalues, ascending, of symmetric (…, n, n)."""
    return jnp.linalg.eigvalsh(matrix, symmetrize_input=False)


@_one_by_one("(n,m)->(n,k),(k,m)")
def qr(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Reduced QR decomposition of (…, n, m)."""
    q, r = jnp.linalg.qr(matrix)
    return q, r


@_one_by_one("(n,n),(n)->(n)")
def solve_lower(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Solutions x of L x = right, L lower triangular."""
    return jax.scipy.linalg.solve_triangular(matrix, right, lower=True)


@jax.custom_jvp
def solve_positive(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Solutions (…, n, m) of M x = right, M (…, n, n) positive definite."""
    return _solve_positive(matrix, right)


@_one_by_one("(n,n),(n,m)->(n,m)")
def _solve_positive(matrix: jax.Array, right: jax.Array) -> jax.Array:
    factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
    return jax.scipy.linalg.cho_solve(factor, right)


@solve_positive.defjvp
def _solve_positive_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (matrix, right), (change, change_of_right) = primals, tangents
    # By the inverse: JAX transposes a product of the changes, but not their solution.
    identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1]), matrix.shape)
    both = solve_positive(
        matrix, jnp.concatenate([right, identity.astype(matrix.dtype)], axis=-1)
    )
    x, inverse = jnp.split(both, [right.shape[-1]], axis=-1)
    return x, matmul(inverse, change_of_right - matmul(change, x))


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product at full precision on every platform."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
