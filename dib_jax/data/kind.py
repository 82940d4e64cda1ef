"""What the arrays of a data set mean: the one place that knows.

Who trains sees samples as a pytree of arrays of one length, and calls these functions.
A new kind of sample (pictures, vectors, graphs) is one file beside this one.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Split = dict[str, np.ndarray]
# PRNG key, samples, how often they were augmented before → samples of the same shapes
# and dtypes, on the device.
Augmentation = Callable[[Any, Any, Any], Any]


class View(NamedTuple):
    """A changed copy of samples, over which outputs are averaged.

    Attributes:
        weight: of its outputs; those of all views add up to 1.
        change: samples → samples of the same shapes and dtypes, on the device.
    """

    weight: float
    change: Callable[[Any], Any]


Views = tuple[View, ...]


def _no_views(text: str, class_names: tuple[str, ...]) -> Views:
    raise ValueError(f"got {text!r}; only pictures have views, set it to ''")


class Kind(NamedTuple):
    """The meaning of a split's arrays, as functions.

    Attributes:
        name: in messages and in inputs.json.
        content: names of the arrays that make up the network's input.
        check: (arrays, source=…, num_classes=…) → the split with its dtypes, or a
            ValueError that names the source, the first bad row and its value.
        common: training split → dict of arrays that all samples share, for `prepare`.
        prepare: (samples, common) → the network's input (n, …).
        augment: text of `dataset.augment`, class names → (key, samples, times) →
            samples, `times` being how often they were augmented before; a ValueError
            where that cannot be.
        views: text of `dataset.views`, class names → the copies of a sample whose
            outputs are averaged; a ValueError where that cannot be.
        measured: (the network's input, common) → arrays (n, …) that information about
            the input is about; the input itself, where nothing else is said.
    """

    name: str
    content: tuple[str, ...]
    check: Callable[..., Split]
    common: Callable[[Split], dict[str, np.ndarray]]
    prepare: Callable[[Any, Any], Any]
    augment: Callable[[str, tuple[str, ...]], Augmentation]
    measured: Callable[[Any, Any], Any] = lambda inputs, common: inputs
    views: Callable[[str, tuple[str, ...]], Views] = _no_views


def size(split: Mapping[str, Any]) -> int:
    """How many samples a split has; 0 for one without arrays.

    Args:
        split: arrays of one length.
    """
    return len(next(iter(split.values()), ()))


def take(split: Split, rows: np.ndarray) -> Split:
    """Some samples of a split.

    Args:
        split: arrays of one length n.
        rows: their numbers, or n booleans.
    """
    return {name: array[rows] for name, array in split.items()}


def check_present(arrays: Mapping[str, Any], *names: str, source: str) -> None:
    """Refuse a split in which an array is missing.

    Args:
        arrays: those that are there.
        *names: those that must be.
        source: where they come from, for messages.

    Raises:
        ValueError: one is missing.
    """
    for name in names:
        if name not in arrays:
            raise ValueError(
                f"{source}: no array {name!r}; a split needs {', '.join(names)}"
            )


def check_labels(
    arrays: Split, count: int, each: str, *, source: str, num_classes: int | None
) -> Split:
    """The labels and groups of a split with their dtypes.

    Args:
        arrays: `labels` and optionally `groups`.
        count: how many there must be.
        each: what each label is of, for messages.
        source: where they come from, for messages.
        num_classes: labels lie in 0..num_classes−1; None: only ≥ 0 is asked.

    Raises:
        ValueError: they have a wrong dtype or shape, or a label is out of range.
    """
    labels = arrays["labels"]
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"{source}: labels must be integers, got {labels.dtype}; class names "
            "belong in class_names"
        )
    if labels.shape != (count,):
        raise ValueError(
            f"{source}: labels must have shape ({count},), one per {each}, got "
            f"{labels.shape}"
        )
    check_range(labels, source, "labels", 0, num_classes)
    split: Split = {"labels": labels.astype(np.int32, copy=False)}
    if "groups" in arrays:
        groups = arrays["groups"]
        if groups.dtype.kind not in "iu" or groups.shape != (count,):
            raise ValueError(
                f"{source}: groups must be integers of shape ({count},), got "
                f"{groups.dtype} {groups.shape}"
            )
        split["groups"] = groups.astype(np.int64, copy=False)
    return split


def check_range(
    labels: np.ndarray, source: str, name: str, low: int, num_classes: int | None
) -> None:
    """Refuse labels out of range.

    Args:
        labels: integers (n, …).
        source: where they come from, for messages.
        name: of the array.
        low: the smallest that is allowed.
        num_classes: the number above the largest; None: any that fits int32.

    Raises:
        ValueError: a label is out of range.
    """
    high = math.inf if num_classes is None else num_classes - 1
    bad = (labels < low) | (labels > min(high, np.iinfo(np.int32).max))
    if not bad.any():
        return
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    value = labels[rows[0]][bad[rows[0]]].flat[0]
    allowed = f"{low}..{high}" if num_classes else f">= {low} (and fit int32)"
    raise ValueError(
        f"{source}: {name} must be {allowed}, row {rows[0]} holds {value}; {len(rows)} "
        "bad row(s)"
    )
