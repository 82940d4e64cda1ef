"""Matrix-based Rényi α-entropy of Gram matrices and quantities from it, in bits.

Sources: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459 (entropy); Yu, Sánchez
Giraldo, Jenssen & Príncipe, arXiv 1808.07912 (several variables).
"""

import functools
import numbers
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dib_jax.information.gram import (
    check_gram,
    check_gram_stack,
    check_grams,
    check_labels,
    check_trace,
    label_gram,
)
from dib_jax.information.spectral import (
    DEFAULT_ALPHA,
    check_alpha,
    entropy_of,
    entropy_of_blocks,
    entropy_of_spectrum,
)


def renyi_entropy(gram: jax.Array, *, alpha: float = DEFAULT_ALPHA) -> jax.Array:
    """Rényi entropy of order α of a Gram matrix, in bits.

    S_α(A) = log2(Σ_i λ_i^α) / (1 − α); at α = 1 its limit, von Neumann's entropy, and
    at ∞ −log2 λ_max.

    Args:
        gram: (n, n), symmetric, positive semi-definite, trace 1 (`normalize_gram`).
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar of gram's dtype, from 0 (all samples alike) to log2 n (all distinct).

    Raises:
        ValueError: `alpha` is not such a number, `gram` is not square, or, outside
            `jit`, its trace is not 1.

    Source: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459.

    Examples:
        >>> gram = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> print(info.renyi_entropy(gram, alpha=2.0))
        1.0
    """
    alpha, gram = check_alpha(alpha), check_gram(gram)
    check_trace(gram)
    return entropy_of(gram, alpha)


def effective_rank(gram: jax.Array) -> jax.Array:
    """The number of equal eigenvalues that have the entropy of this spectrum.

    2^S_1(A) = exp(−Σ λ_i ln λ_i). Of `linear_gram(x)` it is the effective rank of the
    features' covariance.

    Args:
        gram: (n, n), symmetric, positive semi-definite, trace 1.

    Returns:
        Scalar, from 1 to the rank of `gram`.

    Raises:
        ValueError: as `renyi_entropy`.

    Source: Roy & Vetterli, The effective rank, EUSIPCO 2007, for the singular values of
    a matrix; here for the eigenvalues of a covariance.

    Examples:
        >>> gram = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> print(info.effective_rank(gram).round(3))
        2.0
    """
    return jnp.exp2(renyi_entropy(gram, alpha=1.0))


def joint_entropy(*grams: jax.Array, alpha: float = DEFAULT_ALPHA) -> jax.Array:
    """Joint entropy: S_α of the Hadamard product, normalised to trace 1, in bits.

    Args:
        grams: (n, n) each, as for `renyi_entropy`, of the same samples in one order. Of
            two or more the traces do not matter. Only with a constant diagonal, which
            Gaussian and label Grams have and `linear_gram` has not, is a joint entropy
            never below that of a part.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar, from 0 to log2 n.

    Raises:
        ValueError: `alpha` is not such a number, sizes differ, or there is no Gram.

    Source: Yu, Sánchez Giraldo, Jenssen & Príncipe, arXiv 1808.07912, eq. 7.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> b = info.label_gram(jnp.array([0, 1, 0, 1]))
        >>> print(info.joint_entropy(a, b, alpha=2.0))
        2.0
    """
    if len(grams) == 1:
        return renyi_entropy(grams[0], alpha=alpha)
    alpha = check_alpha(alpha)
    return entropy_of(hadamard(*check_grams(*grams)), alpha)


def hadamard(*grams: jax.Array) -> jax.Array:
    """Hadamard product of Grams, normalised to trace 1.

    Args:
        grams: (n, n) each, at least one.
    """
    if len(grams) == 1:
        return grams[0]
    n = grams[0].shape[0]
    # Unit diagonals, so that a product of many entries 1/n does not underflow.
    product = functools.reduce(operator.mul, (gram * n for gram in grams))
    return product / jnp.trace(product)


def label_joint_entropy(
    gram: jax.Array,
    labels: jax.Array,
    *,
    alpha: float = DEFAULT_ALPHA,
    num_classes: int | None = None,
    class_size: int | None = None,
) -> jax.Array:
    """Joint entropy with class labels, `joint_entropy(gram, label_gram(labels))`.

    Sorted by class, the joint Gram is block diagonal: C small eigenvalue problems
    replace a large one. Concrete labels are sorted here; classes of similar size (up to
    the same power of 2) are padded to the largest of them. Labels that are traced, as
    arguments of a jitted function are, take the dense Gram, unless both sizes are
    given. Then every class is padded to `class_size`, so that the work is
    C · class_size³, which is least for even classes and up to C times too much for
    uneven ones. A batch with a larger class, or a label outside of 0..C−1, is computed
    by the dense Gram; under `vmap` of traced labels both are computed.

    Args:
        gram: (n, n), as for `renyi_entropy`.
        labels: (n,), integers.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.
        num_classes: C, for traced labels, which are 0..C−1; static. With `class_size`.
        class_size: for traced labels, the size of the largest class in all but rare
            batches; static. With `num_classes`.

    Returns:
        Scalar, in bits, from 0 to log2 n.

    Raises:
        ValueError: `alpha` is not such a number, sizes differ, labels are not integers,
            or only one of the two sizes is given.

    Source: Yu, Sánchez Giraldo, Jenssen & Príncipe, arXiv 1808.07912, eq. 7.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 1, 0, 1]))
        >>> print(info.label_joint_entropy(a, jnp.array([0, 0, 1, 1]), alpha=2.0))
        2.0
    """
    alpha = check_alpha(alpha)
    gram = check_gram(gram)
    with jax.ensure_compile_time_eval():  # keeps concrete labels concrete under jit
        labels = check_labels(labels)
    n = gram.shape[0]
    if labels.shape[0] != n:
        raise ValueError(
            f"gram and labels must be of the same samples, got {n} and "
            f"{labels.shape[0]}"
        )
    sizes = {"num_classes": num_classes, "class_size": class_size}
    for name, size in sizes.items():
        if size is not None and (not isinstance(size, numbers.Integral) or size < 1):
            raise ValueError(f"{name} must be an integer ≥ 1 or None, got {size!r}")
    if (num_classes is None) != (class_size is None):
        raise ValueError(
            "give num_classes and class_size together, or neither, got "
            f"{num_classes!r} and {class_size!r}"
        )
    if alpha == 2:  # no eigenvalues, so nothing is gained by smaller ones
        return _dense(gram, labels, alpha)
    if not isinstance(labels, jax.core.Tracer):
        members = _members_by_size(labels.tolist())
        return entropy_of_blocks(tuple(_blocks(gram, m) for m in members), alpha)
    if num_classes is None or class_size is None:
        return _dense(gram, labels, alpha)
    return _of_traced_labels(alpha, num_classes, min(class_size, n), gram, labels)


def _dense(gram: jax.Array, labels: jax.Array, alpha: float) -> jax.Array:
    return entropy_of(hadamard(gram, label_gram(labels).astype(gram.dtype)), alpha)


def _cases(
    alpha: float, num_classes: int, class_size: int, labels: jax.Array
) -> tuple[jax.Array, Callable[..., jax.Array], Callable[..., jax.Array]]:
    """Whether every class fits its block, and the entropy by blocks and without."""
    n = labels.shape[0]
    counts = jnp.bincount(labels, length=num_classes)
    known = (labels >= 0) & (labels < num_classes)
    fits = jnp.all(known) & jnp.all(counts <= class_size)

    def by_blocks(gram: jax.Array) -> jax.Array:
        order = jnp.argsort(labels)
        classes = labels[order]
        places = jnp.arange(n) - (jnp.cumsum(counts) - counts)[classes]
        # n stands for nobody. Where a class does not fit, this branch is not taken.
        members = jnp.full((num_classes, class_size), n)
        members = members.at[classes, places].set(order, mode="drop")
        return entropy_of_blocks((_blocks(gram, members),), alpha)

    def dense(gram: jax.Array) -> jax.Array:
        return _dense(gram, labels, alpha)

    return fits, by_blocks, dense


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _of_traced_labels(
    alpha: float,
    num_classes: int,
    class_size: int,
    gram: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    return jax.lax.cond(*_cases(alpha, num_classes, class_size, labels), gram)


@_of_traced_labels.defjvp
def _of_traced_labels_jvp(
    alpha: float,
    num_classes: int,
    class_size: int,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array, object],
) -> tuple[jax.Array, jax.Array]:
    (gram, labels), (change, _) = primals, tangents
    fits, *entropies = _cases(alpha, num_classes, class_size, labels)
    # Gradients within the branches: otherwise `cond` stores several (n, n) for the one
    # that is not taken, which costs more than the blocks.
    entropy, gradient = jax.lax.cond(fits, *map(jax.value_and_grad, entropies), gram)
    return entropy, jnp.sum(gradient * change)


def _members_by_size(labels: list[int]) -> list[jax.Array]:
    """The samples of each class, (classes, size) with n for nobody, by size."""
    classes: dict[int, list[int]] = {}
    for sample, label in enumerate(labels):
        classes.setdefault(label, []).append(sample)
    by_power: dict[int, list[list[int]]] = {}
    for members in classes.values():
        # Sizes from above 2^(p−1) to 2^p go together.
        by_power.setdefault((len(members) - 1).bit_length(), []).append(members)
    nobody = len(labels)
    found = []
    for similar in by_power.values():
        size = max(map(len, similar))
        rows = [members + [nobody] * (size - len(members)) for members in similar]
        found.append(jnp.array(rows))
    return found


def _blocks(gram: jax.Array, members: jax.Array) -> jax.Array:
    """(classes, size, size): a block for each class, padded with zeros."""
    n = gram.shape[0]
    somebody = members < n
    members = jnp.where(somebody, members, 0)
    blocks = gram[members[:, :, None], members[:, None, :]]
    pairs = somebody[:, :, None] & somebody[:, None, :]
    # Entries between classes do not count, unless one is no number.
    total = jnp.where(jnp.isfinite(gram).all(), jnp.trace(gram), jnp.nan)
    return jnp.where(pairs, blocks, 0) / total


def label_mutual_information(
    gram: jax.Array,
    labels: jax.Array,
    *,
    alpha: float = DEFAULT_ALPHA,
    num_classes: int | None = None,
    class_size: int | None = None,
) -> jax.Array:
    """Mutual information with labels, `mutual_information(gram, label_gram(labels))`.

    The joint term is `label_joint_entropy`; the entropy of the labels follows from the
    shares of the classes, without eigenvalues.

    Args:
        gram: (n, n), as for `renyi_entropy`.
        labels: (n,), integers.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.
        num_classes: as for `label_joint_entropy`.
        class_size: as for `label_joint_entropy`.

    Returns:
        Scalar, in bits; for α well above 1 it can be slightly negative.

    Raises:
        ValueError: as `label_joint_entropy`, or, outside `jit`, the trace of `gram` is
            not 1.

    Source: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459.

    Examples:
        >>> labels = jnp.array([0, 0, 1, 1])
        >>> gram = info.label_gram(labels)
        >>> print(info.label_mutual_information(gram, labels, alpha=2.0))
        1.0
    """
    alpha = check_alpha(alpha)
    joint = label_joint_entropy(
        gram, labels, alpha=alpha, num_classes=num_classes, class_size=class_size
    )
    gram, labels = check_gram(gram), check_labels(labels)
    check_trace(gram)
    same = labels[:, None] == labels[None, :]
    # Each class once, at its first sample.
    is_first = jnp.argmax(same, axis=1) == jnp.arange(labels.shape[0])
    shares = jnp.where(is_first, jnp.mean(same, axis=1, dtype=gram.dtype), 0)
    return entropy_of(gram, alpha) + entropy_of_spectrum(shares, alpha) - joint


def conditional_entropy(
    a: jax.Array, b: jax.Array, *, alpha: float = DEFAULT_ALPHA
) -> jax.Array:
    """Conditional entropy S_α(A | B) = S_α(A, B) − S_α(B), in bits.

    Args:
        a: (n, n), as for `renyi_entropy`.
        b: (n, n), likewise, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar, ≥ 0 where the diagonal of `a` is constant; see `joint_entropy`.

    Raises:
        ValueError: `alpha` is not such a number, sizes differ, or, outside `jit`, a
            trace is not 1.

    Source: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459, eq. 14.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> b = info.label_gram(jnp.array([0, 1, 0, 1]))
        >>> print(info.conditional_entropy(a, b, alpha=2.0))
        1.0
    """
    alpha = check_alpha(alpha)
    a, b = check_grams(a, b)
    check_trace(a, b)
    return entropy_of(hadamard(a, b), alpha) - entropy_of(b, alpha)


def mutual_information(
    a: jax.Array, b: jax.Array, *, alpha: float = DEFAULT_ALPHA
) -> jax.Array:
    """Mutual information I_α(A; B) = S_α(A) + S_α(B) − S_α(A, B), in bits.

    With its gradient it takes three eigendecompositions; its gradient alone, one
    argument constant, takes two; at α = 2 none.

    Args:
        a: (n, n), as for `renyi_entropy`.
        b: (n, n), likewise, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar; for α well above 1 it can be slightly negative. Without constant
        diagonals it can be above an entropy, see `joint_entropy`.

    Raises:
        ValueError: `alpha` is not such a number, sizes differ, or, outside `jit`, a
            trace is not 1.

    Source: Sánchez Giraldo, Rao & Príncipe, arXiv 1211.2459; as a loss, Yu, Yu &
    Príncipe, arXiv 2102.00533, eq. 10.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> b = info.label_gram(jnp.array([0, 1, 0, 1]))
        >>> print(info.mutual_information(a, a, alpha=2.0))
        1.0
        >>> print(info.mutual_information(a, b, alpha=2.0))
        0.0
    """
    alpha = check_alpha(alpha)
    a, b = check_grams(a, b)
    check_trace(a, b)
    joint = entropy_of(hadamard(a, b), alpha)
    return entropy_of(a, alpha) + entropy_of(b, alpha) - joint


def total_correlation(*grams: jax.Array, alpha: float = DEFAULT_ALPHA) -> jax.Array:
    """Total correlation Σ_i S_α(A_i) − S_α(A_1, …, A_k), in bits.

    Args:
        grams: (n, n) each, as for `renyi_entropy`, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar; 0 for one Gram, `mutual_information` for two.

    Raises:
        ValueError: `alpha` is not such a number, sizes differ, there is no Gram, or,
            outside `jit`, a trace is not 1.

    Source: Watanabe, IBM J. Res. Dev. 4, 1960; with matrices, Yu et al.,
    arXiv 2101.10160.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> print(info.total_correlation(a, a, a, alpha=2.0))
        2.0
    """
    alpha = check_alpha(alpha)
    checked = check_grams(*grams)
    check_trace(*checked)
    marginals = sum(entropy_of(gram, alpha) for gram in checked)
    return marginals - entropy_of(hadamard(*checked), alpha)


def dual_total_correlation(
    *grams: jax.Array, alpha: float = DEFAULT_ALPHA
) -> jax.Array:
    """Dual total correlation S_α(A_1..k) − Σ_i S_α(A_i | the others), in bits.

    Args:
        grams: (n, n) each, as for `renyi_entropy`, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        Scalar; 0 for one Gram, `mutual_information` for two.

    Raises:
        ValueError: `alpha` is not such a number, sizes differ, there is no Gram, or,
            outside `jit`, a trace is not 1.

    Source: Han, Information and Control 36, 1978; with matrices, Yu et al.,
    arXiv 2101.10160.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> print(info.dual_total_correlation(a, a, a, alpha=2.0))
        1.0
    """
    alpha = check_alpha(alpha)
    checked = check_grams(*grams)
    check_trace(*checked)
    joint = entropy_of(hadamard(*checked), alpha)
    if len(checked) == 1:
        return joint - joint
    rests = [
        entropy_of(hadamard(*checked[:index], *checked[index + 1 :]), alpha)
        for index in range(len(checked))
    ]
    return sum(rests) - (len(checked) - 1) * joint


def mutual_information_matrix(
    grams: jax.Array, *, alpha: float = DEFAULT_ALPHA
) -> jax.Array:
    """Mutual information between all pairs of variables, in bits.

    Args:
        grams: (l, n, n), as for `renyi_entropy`, of the same samples.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.

    Returns:
        (l, l), symmetric; entry (i, j) is I_α(A_i; A_j). The diagonal is
        2 S(A) − S(A∘A), which need not be the largest of its row.

    Raises:
        ValueError: `alpha` is not such a number, `grams` is not (l, n, n), or, outside
            `jit`, a trace is not 1.

    Examples:
        >>> a = info.label_gram(jnp.array([0, 0, 1, 1]))
        >>> b = info.label_gram(jnp.array([0, 1, 0, 1]))
        >>> print(info.mutual_information_matrix(jnp.stack([a, b]), alpha=2.0))
        [[1. 0.]
         [0. 1.]]
    """
    alpha = check_alpha(alpha)
    grams = check_gram_stack(grams)
    check_trace(*grams)
    length = grams.shape[0]
    rows, columns = jnp.triu_indices(length)

    def entropy(gram: jax.Array) -> jax.Array:
        return entropy_of(gram, alpha)

    # One pair after the other: a batch of decompositions is not faster, and would hold
    # l² matrices at once.
    single = jax.lax.map(entropy, grams)
    joint = jax.lax.map(
        lambda pair: entropy(hadamard(grams[pair[0]], grams[pair[1]])), (rows, columns)
    )
    values = single[rows] + single[columns] - joint
    upper = jnp.zeros((length, length), values.dtype).at[rows, columns].set(values)
    return upper.at[columns, rows].set(values)
