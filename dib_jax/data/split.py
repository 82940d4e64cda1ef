"""Hold out a part of a data set: stratified by label, groups undivided."""

import math
import numbers

import numpy as np


def split_rows(
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    fraction: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stay and rows that are held out, each in ascending order.

    Classes are visited in a random order. In each, shuffled groups (without `groups`,
    single rows) are held out as long as that brings the number of rows held out so far
    nearer to its share; the difference that remains is carried to the next class. A
    group counts for its most frequent label. At least one group of every class stays.

    Args:
        labels: (n,) integers.
        groups: (n,) integers, or None.
        fraction: the part to hold out, 0 ≤ fraction < 1.
        seed: same labels, groups, fraction and seed give the same rows.

    Returns:
        (rows that stay, rows held out), which together are 0..n−1.

    Raises:
        ValueError: `fraction` is out of range, or would hold out nothing though it is
            above 0.
    """
    check_fraction(fraction)
    count = len(labels)
    rows = np.arange(count)
    if fraction == 0:
        return rows, rows[:0]

    random = np.random.default_rng(seed % 2**63)  # seeds may be negative
    if groups is None:
        group_of_row, sizes, group_labels = rows, np.ones(count, int), labels
    else:
        _, group_of_row, sizes = np.unique(
            groups, return_inverse=True, return_counts=True
        )
        group_labels = _majority(labels, group_of_row, len(sizes))
    held = np.zeros(len(sizes), bool)
    carry = 0.0
    for label in random.permutation(np.unique(group_labels)):
        members = random.permutation(np.flatnonzero(group_labels == label))
        carry += fraction * float(sizes[members].sum())
        for group in members[1:]:  # the first one stays, whatever the fraction
            if sizes[group] <= 2 * carry:
                held[group] = True
                carry -= float(sizes[group])
    held_rows = held[group_of_row]
    if not held_rows.any():
        least = math.ceil(1000 * float(sizes.min()) / (2 * count)) / 1000
        raise ValueError(
            f"val_fraction={fraction} of {count} samples in {len(sizes)} groups leaves "
            f"the validation split empty: use 0 for none, or at least {least}, with "
            "two groups in a class"
        )
    return rows[~held_rows], rows[held_rows]


def check_fraction(fraction: float) -> None:
    """Raise a ValueError unless 0 ≤ fraction < 1."""
    number = isinstance(fraction, numbers.Real) and not isinstance(fraction, bool)
    if not number or not 0 <= fraction < 1:
        raise ValueError(
            "val_fraction must be a number from 0 up to, not including, 1, got "
            f"{fraction!r}"
        )


def _majority(labels: np.ndarray, group_of_row: np.ndarray, count: int) -> np.ndarray:
    """The most frequent label of each group, the smallest of several."""
    names, index = np.unique(labels, return_inverse=True)
    pairs, frequency = np.unique(
        group_of_row.astype(np.int64) * len(names) + index, return_counts=True
    )
    order = np.lexsort((pairs, -frequency))
    found, first = np.unique(pairs[order] // len(names), return_index=True)
    result = np.empty(count, names.dtype)
    result[found] = names[pairs[order][first] % len(names)]
    return result
