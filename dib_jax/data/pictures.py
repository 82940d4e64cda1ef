"""Pictures: `images` uint8 (n, h, w, c), with labels and perhaps boxes.

A network gets them standardised: each channel minus its mean over the training split,
divided by its standard deviation there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dib_jax.data.kind import (
    Augmentation,
    Kind,
    Split,
    check_labels,
    check_range,
)

_BOX_SLACK = 1e-3  # pixels; a box scaled in float32 may end that far outside


def check(
    arrays: Mapping[str, np.ndarray], *, source: str, num_classes: int | None = None
) -> Split:
    """One split with the dtypes of `Dataset`, its shapes and label range checked.

    Args:
        arrays: `images` and `labels`, optionally `boxes`, `box_labels`, `groups`.
        source: where they come from (a path, or set and split), for messages.
        num_classes: labels lie in 0..num_classes−1; None: only ≥ 0 is asked.

    Raises:
        ValueError: an array is missing, or has a wrong dtype, shape or label.
    """
    for name in ("images", "labels"):
        if name not in arrays:
            raise ValueError(
                f"{source}: no array {name!r}; a split needs images, labels"
            )
    images = arrays["images"]
    if images.dtype != np.uint8:
        raise ValueError(
            f"{source}: images must be uint8 with values 0..255, got {images.dtype}"
        )
    if images.ndim != 4 or 0 in images.shape[1:]:
        hint = ": add the channel axis, images[..., None]" if images.ndim == 3 else ""
        raise ValueError(
            f"{source}: images must have shape (n, h, w, c), got {images.shape}{hint}"
        )
    count = len(images)
    split: Split = {
        "images": images,
        **check_labels(
            arrays, source=source, count=count, each="image", num_classes=num_classes
        ),
    }
    boxes, box_labels = arrays.get("boxes"), arrays.get("box_labels")
    if boxes is not None:
        if boxes.dtype.kind not in "fiu":
            raise ValueError(f"{source}: boxes must be float32, got {boxes.dtype}")
        fits = boxes.ndim in (2, 3) and boxes.shape[0] == count and boxes.shape[-1] == 4
        if not fits:
            raise ValueError(
                f"{source}: boxes must have shape ({count}, 4) or ({count}, m, 4), got "
                f"{boxes.shape}"
            )
        split["boxes"] = boxes.astype(np.float32, copy=False)
    if boxes is not None and boxes.ndim == 3 and box_labels is None:
        raise ValueError(
            f"{source}: boxes of shape {boxes.shape} need box_labels (n, m), -1 for "
            "none"
        )
    if box_labels is not None:
        if boxes is None or box_labels.shape != boxes.shape[:-1]:
            shape = None if boxes is None else boxes.shape
            raise ValueError(
                f"{source}: box_labels of shape {box_labels.shape} do not go with "
                f"boxes of shape {shape}"
            )
        if box_labels.dtype.kind not in "iu":
            raise ValueError(
                f"{source}: box_labels must be integers, got {box_labels.dtype}"
            )
        check_range(box_labels, source, "box_labels", -1, num_classes)
        split["box_labels"] = box_labels.astype(np.int32, copy=False)
    return split


def check_boxes(split: Split, *, source: str, skip_bad_boxes: bool = False) -> Split:
    """A split whose boxes are finite, inside their picture and have an area.

    Boxes with a `box_labels` of −1 are none and are not looked at.

    Args:
        split: as made by `check_split`.
        source: where it comes from, for messages.
        skip_bad_boxes: leave rows with a bad box out instead of raising.

    Raises:
        ValueError: the split has no boxes, or one is bad and not to be skipped.
    """
    if "boxes" not in split:
        raise ValueError(
            f"{source}: no array 'boxes'; a task that uses boxes needs them, float32 "
            "(n, 4) as x1, y1, x2, y2 in pixels, or (n, m, 4) with box_labels"
        )
    height, width = split["images"].shape[1:3]
    boxes = split["boxes"]
    x1, y1, x2, y2 = (boxes[..., side] for side in range(4))
    good = (  # false for NaN
        (x1 >= -_BOX_SLACK) & (x2 <= width + _BOX_SLACK) & (x1 < x2)
        & (y1 >= -_BOX_SLACK) & (y2 <= height + _BOX_SLACK) & (y1 < y2)
    )  # fmt: skip
    if "box_labels" in split:
        good |= split["box_labels"] < 0
    sound = good.reshape(len(boxes), -1).all(axis=1)
    if sound.all():
        return split
    if skip_bad_boxes:
        return {key: value[sound] for key, value in split.items()}
    row = int(np.argmin(sound))
    box = boxes[row] if boxes.ndim == 2 else boxes[row][np.argmin(good[row])]
    raise ValueError(
        f"{source}: boxes must be finite x1 < x2 and y1 < y2 inside the picture of "
        f"{width}x{height} pixels, row {row} holds "
        f"{[round(float(side), 4) for side in box]}; {int((~sound).sum())} bad row(s); "
        "dataset.skip_bad_boxes=True leaves them out"
    )


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, with which pictures are normalised.

    Args:
        images: uint8 (n, h, w, c), the training split.

    Returns:
        Two float32 arrays (c,), in units of 255; the deviation of a constant channel
        is 1.
    """
    levels = np.arange(256) / 255
    # By counting grey levels: exact, and no float copy of the data set is made.
    counts = np.stack(
        [
            np.bincount(images[..., channel].ravel(), minlength=256)
            for channel in range(images.shape[-1])
        ]
    )
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    deviation = np.sqrt(np.maximum(weights @ levels**2 - mean**2, 1e-12))
    return (
        np.asarray(mean, np.float32),
        np.asarray(np.where(deviation < 1e-4, 1.0, deviation), np.float32),
    )


def _common(train: Split) -> dict[str, np.ndarray]:
    mean, deviation = channel_statistics(train["images"])
    return {"mean": mean, "deviation": deviation}


def _standardize(samples: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    images = samples["images"].astype(np.float32)
    return (images / 255 - common["mean"]) / common["deviation"]


def _augment(text: str, class_names: tuple[str, ...]) -> Augmentation:
    from dib_jax.data.augment import augment, check_mirrored  # they import jax

    check_mirrored(text, class_names)
    return augment(text)


PICTURES = Kind(
    name="pictures",
    content=("images",),
    check=check,
    common=_common,
    prepare=_standardize,
    augment=_augment,
)
