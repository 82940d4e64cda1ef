"""Matrix-based Rényi α-entropy of Gram matrices and what is made of it, in bits.

Sources: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459 (entropy); Yu, Sánchez
Giraldo, Jenssen & Príncipe, arXiv 1808.07912 (several variables).
"""

import functools
import operator

import jax
import jax.numpy as jnp

from dib_jax.information.gram import check_gram, check_grams
from dib_jax.information.spectral import check_alpha, entropy_of


def renyi_entropy(gram: jax.Array, *, alpha: float) -> jax.Array:
    """Rényi entropy of order α of a Gram matrix, in bits.

    S_α(A) = log2(Σ_i λ_i^α) / (1 − α); at α = 1 its limit, von Neumann's entropy, and
    at ∞ −log2 λ_max.

    Args:
        gram: (n, n), symmetric, positive semi-definite, trace 1 (`normalize_gram`).
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar of gram's dtype, from 0 (all samples alike) to log2 n (all distinct).

    Raises:
        ValueError: `alpha` is not such a number, or `gram` is not square.

    Source: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459.
    """
    return entropy_of(check_gram(gram), check_alpha(alpha))


def joint_entropy(*grams: jax.Array, alpha: float) -> jax.Array:
    """Joint entropy: S_α of the Hadamard product, normalised to trace 1, in bits.

    Args:
        grams: (n, n) each, as for `renyi_entropy`, of the same samples in one order.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar, from 0 to log2 n.

    Raises:
        ValueError: `alpha` is not such a number, sizes differ, or there is no Gram.

    Source: Yu, Sánchez Giraldo, Jenssen & Príncipe, arXiv 1808.07912, eq. 7.
    """
    alpha = check_alpha(alpha)
    return entropy_of(_hadamard(*check_grams(*grams)), alpha)


def _hadamard(*grams: jax.Array) -> jax.Array:
    if len(grams) == 1:
        return grams[0]
    n = grams[0].shape[0]
    # Unit diagonals, so that a product of many entries 1/n does not underflow.
    product = functools.reduce(operator.mul, (gram * n for gram in grams))
    return product / jnp.trace(product)


def conditional_entropy(a: jax.Array, b: jax.Array, *, alpha: float) -> jax.Array:
    """Conditional entropy S_α(A | B) = S_α(A, B) − S_α(B), in bits.

    Args:
        a: (n, n), as for `renyi_entropy`.
        b: (n, n), likewise, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar, ≥ 0.

    Raises:
        ValueError: `alpha` is not such a number, or sizes differ.

    Source: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459, eq. 14.
    """
    alpha = check_alpha(alpha)
    a, b = check_grams(a, b)
    return entropy_of(_hadamard(a, b), alpha) - entropy_of(b, alpha)


def mutual_information(a: jax.Array, b: jax.Array, *, alpha: float) -> jax.Array:
    """Mutual information I_α(A; B) = S_α(A) + S_α(B) − S_α(A, B), in bits.

    With its gradient it takes three eigendecompositions; its gradient alone, one
    argument constant, takes two; at α = 2 none.

    Args:
        a: (n, n), as for `renyi_entropy`.
        b: (n, n), likewise, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar; for α well above 1 it can be slightly negative.

    Raises:
        ValueError: `alpha` is not such a number, or sizes differ.

    Source: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459; as a loss, Yu, Yu &
    Príncipe, arXiv 2102.00533, eq. 10.
    """
    alpha = check_alpha(alpha)
    a, b = check_grams(a, b)
    joint = entropy_of(_hadamard(a, b), alpha)
    return entropy_of(a, alpha) + entropy_of(b, alpha) - joint


def total_correlation(*grams: jax.Array, alpha: float) -> jax.Array:
    """Total correlation Σ_i S_α(A_i) − S_α(A_1, …, A_k), in bits.

    Args:
        grams: (n, n) each, as for `renyi_entropy`, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar; 0 for one Gram, `mutual_information` for two.

    Raises:
        ValueError: `alpha` is not such a number, sizes differ, or there is no Gram.

    Source: Watanabe, IBM J. Res. Dev. 4, 1960; with matrices, Yu et al.,
    arXiv 2101.10160.
    """
    alpha = check_alpha(alpha)
    checked = check_grams(*grams)
    marginals = sum(entropy_of(gram, alpha) for gram in checked)
    return marginals - entropy_of(_hadamard(*checked), alpha)


def dual_total_correlation(*grams: jax.Array, alpha: float) -> jax.Array:
    """Dual total correlation S_α(A_1..k) − Σ_i S_α(A_i | the others), in bits.

    Args:
        grams: (n, n) each, as for `renyi_entropy`, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar; 0 for one Gram, `mutual_information` for two.

    Raises:
        ValueError: `alpha` is not such a number, sizes differ, or there is no Gram.

    Source: Han, Information and Control 36, 1978; with matrices, Yu et al.,
    arXiv 2101.10160.
    """
    alpha = check_alpha(alpha)
    checked = check_grams(*grams)
    joint = entropy_of(_hadamard(*checked), alpha)
    if len(checked) == 1:
        return joint - joint
    rests = [
        entropy_of(_hadamard(*checked[:index], *checked[index + 1 :]), alpha)
        for index in range(len(checked))
    ]
    return sum(rests) - (len(checked) - 1) * joint


def mutual_information_matrix(grams: jax.Array, *, alpha: float) -> jax.Array:
    """Mutual information between all pairs of variables, in bits.

    Args:
        grams: (l, n, n), as for `renyi_entropy`, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        (l, l), symmetric; entry (i, j) is I_α(A_i; A_j). The diagonal is
        2 S(A) − S(A∘A), which need not be the largest of its row.

    Raises:
        ValueError: `alpha` is not such a number, or `grams` is not (l, n, n).
    """
    alpha = check_alpha(alpha)
    grams = jnp.asarray(grams)
    if grams.ndim != 3 or grams.shape[1] != grams.shape[2] or 0 in grams.shape:
        raise ValueError(
            f"grams must have shape (l, n, n), got {grams.shape}; jnp.stack makes it "
            "of single ones"
        )
    grams = grams.astype(jnp.promote_types(grams.dtype, jnp.float32))
    length = grams.shape[0]
    rows, columns = jnp.triu_indices(length)

    def entropy(gram: jax.Array) -> jax.Array:
        return entropy_of(gram, alpha)

    # One pair after the other: a batch of decompositions is not faster, and would hold
    # l² matrices at once.
    single = jax.lax.map(entropy, grams)
    joint = jax.lax.map(
        lambda pair: entropy(_hadamard(grams[pair[0]], grams[pair[1]])), (rows, columns)
    )
    values = single[rows] + single[columns] - joint
    upper = jnp.zeros((length, length), values.dtype).at[rows, columns].set(values)
    return upper.at[columns, rows].set(values)
