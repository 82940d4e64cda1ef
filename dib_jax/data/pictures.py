"""Pictures: `images` uint8 (n, h, w, c), with labels and perhaps boxes.

A network gets them standardised: each channel minus its mean over the training split,
divided by its standard deviation there. Their patches may be whitened after that.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dib_jax.data import kind
from dib_jax.data.kind import Augmentation, Kind, Split, Views

_BOX_SLACK = 1e-3  # pixels; a box scaled in float32 may end that far outside


def check(arrays: Split, *, source: str, num_classes: int | None = None) -> Split:
    """One split with the dtypes of `Dataset`, its shapes and label range checked.

    Args:
        arrays: `images` and `labels`, optionally `boxes`, `box_labels`, `groups`.
        source: where they come from (a path, or set and split), for messages.
        num_classes: labels lie in 0..num_classes−1; None: only ≥ 0 is asked.

    Raises:
        ValueError: an array is missing, or has a wrong dtype, shape or label.
    """
    kind.check_present(arrays, "images", "labels", source=source)
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
    height, width, channels = images.shape[1:]
    if channels > 4 and (height == 3 or (height in (1, 4) and width == channels)):
        raise ValueError(
            f"{source}: images of shape {images.shape} seem to have their channels "
            "first; write np.moveaxis(images, 1, -1)"
        )
    if images.size and images.max() == 1:
        raise ValueError(
            f"{source}: images hold only 0 and 1, and white is 255; multiply by it"
        )
    count = len(images)
    labels = kind.check_labels(
        arrays, count, "image", source=source, num_classes=num_classes
    )
    split: Split = {"images": images, **labels}
    boxes, box_labels = arrays.get("boxes"), arrays.get("box_labels")
    shape = None if boxes is None else boxes.shape
    if boxes is not None:
        if boxes.dtype.kind not in "fiu":
            raise ValueError(f"{source}: boxes must be float32, got {boxes.dtype}")
        if boxes.ndim not in (2, 3) or (boxes.shape[0], boxes.shape[-1]) != (count, 4):
            raise ValueError(
                f"{source}: boxes must have shape ({count}, 4) or ({count}, m, 4), got "
                f"{shape}"
            )
        split["boxes"] = boxes.astype(np.float32, copy=False)
        if boxes.ndim == 3 and box_labels is None:
            raise ValueError(
                f"{source}: boxes of shape {shape} need box_labels (n, m), -1 for none"
            )
    if box_labels is not None:
        if shape is None or box_labels.shape != shape[:-1]:
            raise ValueError(
                f"{source}: box_labels of shape {box_labels.shape} do not go with "
                f"boxes of shape {shape}"
            )
        if box_labels.dtype.kind not in "iu":
            raise ValueError(
                f"{source}: box_labels must be integers, got {box_labels.dtype}"
            )
        kind.check_range(box_labels, source, "box_labels", -1, num_classes)
        if box_labels.ndim == 1:  # of a list of one box
            split["boxes"], box_labels = split["boxes"][:, None], box_labels[:, None]
        split["box_labels"] = box_labels.astype(np.int32, copy=False)
    return split


def check_boxes(split: Split, *, source: str, skip_bad_boxes: bool = False) -> Split:
    """A split whose boxes are finite, inside their picture and have an area.

    Boxes with a `box_labels` of −1 are none and are not looked at.

    Args:
        split: as made by `check`.
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
    good = inside(boxes, [width, height], slack=_BOX_SLACK)
    there = np.ones(boxes.shape[:-1], bool)
    if "box_labels" in split:
        there = split["box_labels"] >= 0
    if there.any() and boxes[there].max() <= 1 < min(width, height):
        raise ValueError(
            f"{source}: boxes lie in 0..1, as shares of the sides do; multiply them by "
            f"the width and height, {width} and {height}"
        )
    good |= ~there
    sound = np.all(good.reshape(len(boxes), -1), axis=1)
    if sound.all():
        return split
    if skip_bad_boxes:
        return kind.take(split, sound)
    row = int(np.argmin(sound))
    box = boxes[row] if boxes.ndim == 2 else boxes[row][np.argmin(good[row])]
    raise ValueError(
        f"{source}: boxes must be finite x1 < x2 and y1 < y2 inside the picture of "
        f"{width}x{height} pixels, row {row} holds "
        f"{[round(float(side), 4) for side in box]}; {int((~sound).sum())} bad row(s); "
        "dataset.skip_bad_boxes=True leaves them out"
    )


def inside(boxes: np.ndarray, sides: Sequence[float], *, slack: float) -> np.ndarray:
    """Which boxes have an area and lie in their picture; none with a NaN does.

    Args:
        boxes: (…, 4) as x1, y1, x2, y2.
        sides: width and height of the picture.
        slack: how far outside a box may end.

    Returns:
        Booleans (…).
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    limit = np.add(sides, slack).astype(boxes.dtype)
    return np.all((low >= -slack) & (high <= limit) & (low < high), axis=-1)


def _common(train: Split) -> dict[str, np.ndarray]:
    """Mean and deviation of each channel in units of 255; that of a constant is 1."""
    levels = np.arange(256) / 255
    # By counting grey levels: exact, and no float copy of the data set is made.
    channels = np.moveaxis(train["images"], -1, 0)
    counts = np.stack(
        [np.bincount(values.ravel(), minlength=256) for values in channels]
    )
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    deviation = np.sqrt(np.maximum(weights @ levels**2 - mean**2, 1e-12))
    deviation = np.where(deviation < 1e-4, 1.0, deviation)
    return {"mean": mean.astype(np.float32), "deviation": deviation.astype(np.float32)}


def _standardize(samples: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    images = samples["images"].astype(np.float32)
    x = (images / 255 - common["mean"]) / common["deviation"]
    if "directions" not in common:
        return x
    return _along(x, common["directions"])


def whitened(kind: Kind, side: int) -> Kind:
    """Pictures whose patches are whitened: the network's input is their coordinates.

    Patches of side × side pixels, one at each place, are written in the basis of the
    principal directions of the training split's patches, each divided by its standard
    deviation. Each direction comes twice, with both signs: a ReLU or GELU that follows
    then loses nothing. A layer that is learnt in closed form, without labels.

    Args:
        kind: of the samples.
        side: of the patches, in pixels.

    Returns:
        The kind with (n, h − side + 1, w − side + 1, 2 · side² · c) as input.

    Raises:
        ValueError: the samples are no pictures, or smaller than a patch.

    Source: Jordan, arXiv 2404.00498, section 3.2; with ± by Shah, in the code of
    hlb-CIFAR10.
    """
    if kind.name != PICTURES.name:
        raise ValueError(
            f"dataset.whiten: got {side}; {kind.name} have no patches, set it to 0"
        )
    return kind._replace(common=functools.partial(_common_of_patches, side=side))


# Directions of less variance, in units of that of a pixel, are not amplified.
_LEAST_VARIANCE = 5e-4
_PATCHES = 500_000  # about how many are looked at: 50 MB of 12 numbers


def _common_of_patches(train: Split, *, side: int) -> dict[str, np.ndarray]:
    common = _common(train)
    images = train["images"]
    height, width = images.shape[1:3]
    if side > min(height, width):
        raise ValueError(
            f"dataset.whiten: got {side}; pictures of {width}x{height} pixels have no "
            "such patch"
        )
    some = images[:: -(-len(images) * height * width // _PATCHES)]
    x = _standardize({"images": some}, common)
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))
    # (n, h', w', c, rows, columns) → patches with channels last, as kernels have them.
    patches = np.moveaxis(windows, 3, -1).reshape(-1, side * side * x.shape[-1])
    # Of one column, grey pixels, `cov` is a number.
    covariance = np.atleast_2d(np.cov(patches, rowvar=False, dtype=np.float64))
    variances, vectors = np.linalg.eigh(covariance)
    kernel = vectors / np.sqrt(variances + _LEAST_VARIANCE)
    kernel = np.concatenate([kernel, -kernel], axis=1)
    directions = kernel.reshape(side, side, x.shape[-1], -1)
    return common | {"directions": directions.astype(np.float32)}


def _along(x: Any, directions: Any) -> Any:
    import jax  # late: data are looked at without it

    return jax.lax.conv_general_dilated(
        x, directions, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _augment(text: str, class_names: tuple[str, ...]) -> Augmentation:
    from dib_jax.data.augment import augment, check_mirrored  # they import jax

    check_mirrored(text, class_names)
    return augment(text)


def _views(text: str, class_names: tuple[str, ...]) -> Views:
    from dib_jax.data.views import views  # as above

    return views(text, class_names)


PICTURES = Kind(
    "pictures", ("images",), check, _common, _standardize, _augment, views=_views
)
