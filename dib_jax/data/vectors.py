"""Vectors: `features` float (n, d), with labels; measurements in columns.

A network gets them standardised: each column minus its mean over the training split,
divided by its standard deviation there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dib_jax.data.kind import Augmentation, Kind, Split, check_labels, check_present


def check(arrays: Split, *, source: str, num_classes: int | None = None) -> Split:
    """One split with its dtypes, its shapes, values and label range checked.

    Args:
        arrays: `features` and `labels`, optionally `groups`.
        source: where they come from (a path, or set and split), for messages.
        num_classes: labels lie in 0..num_classes−1; None: only ≥ 0 is asked.

    Raises:
        ValueError: an array is missing, or has a wrong dtype, shape, value or label.
    """
    check_present(arrays, "features", "labels", source=source)
    features = arrays["features"]
    if features.dtype.kind not in "fiu":
        raise ValueError(f"{source}: features must be numbers, got {features.dtype}")
    if features.ndim != 2 or not features.shape[1]:
        raise ValueError(
            f"{source}: features must have shape (n, d), got {features.shape}"
        )
    features = features.astype(np.float32, copy=False)
    rows, columns = np.nonzero(~np.isfinite(features))
    if len(rows):
        raise ValueError(
            f"{source}: features must be finite float32, row {rows[0]} holds "
            f"{features[rows[0], columns[0]]} in column {columns[0]}; "
            f"{len(np.unique(rows))} bad row(s)"
        )
    labels = check_labels(
        arrays, len(features), "vector", source=source, num_classes=num_classes
    )
    return {"features": features, **labels}


def _common(train: Split) -> dict[str, np.ndarray]:
    mean = train["features"].mean(axis=0, dtype=np.float64)
    deviation = train["features"].std(axis=0, dtype=np.float64)
    return {
        "mean": mean.astype(np.float32),
        "deviation": np.where(deviation > 0, deviation, 1).astype(np.float32),
    }


def _standardize(samples: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    features = samples["features"].astype(np.float32)
    return (features - common["mean"]) / common["deviation"]


def _augment(text: str, class_names: tuple[str, ...]) -> Augmentation:
    raise ValueError(f"got {text!r}; vectors have no augmentation, set it to ''")


VECTORS = Kind("vectors", ("features",), check, _common, _standardize, _augment)
