"""What a data set is here, and the checks that each one passes on load.

Every message names the file (or set and split), the first bad row counted from 0, the
value there and how many rows are bad.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Split = dict[str, np.ndarray]

_BOX_SLACK = 1e-3  # pixels; a box scaled in float32 may end that far outside


class Dataset(NamedTuple):
    """A data set in memory, in three splits.

    A split maps names to arrays of one length n: `images` uint8 (n, h, w, c), `labels`
    int32 (n,), and where the set has them `boxes` float32 (n, 4) as x1, y1, x2, y2 in
    pixels, or (n, m, 4) with `box_labels` int32 (n, m), −1 for none; `groups` int64
    (n,), whose members never fall on both sides of a split.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    description: str
    skipped: int = 0


def check_split(
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
    images, labels = arrays["images"], arrays["labels"]
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
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"{source}: labels must be integers, got {labels.dtype}; class names "
            "belong in class_names"
        )
    if labels.shape != (count,):
        raise ValueError(
            f"{source}: labels must have shape ({count},), one per image, got "
            f"{labels.shape}"
        )
    _check_range(labels, source, "labels", 0, num_classes)
    split: Split = {"images": images, "labels": labels.astype(np.int32, copy=False)}

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
        _check_range(box_labels, source, "box_labels", -1, num_classes)
        split["box_labels"] = box_labels.astype(np.int32, copy=False)

    groups = arrays.get("groups")
    if groups is not None:
        if groups.dtype.kind not in "iu" or groups.shape != (count,):
            raise ValueError(
                f"{source}: groups must be integers of shape ({count},), got "
                f"{groups.dtype} {groups.shape}"
            )
        split["groups"] = groups.astype(np.int64, copy=False)
    return split


def check_dataset(dataset: Dataset) -> Dataset:
    """The data set itself, if its splits go together.

    Raises:
        ValueError: a needed split is empty, the pictures' shapes differ, there are
            fewer than two classes, or a group lies in two splits.
    """
    name = dataset.name
    if len(set(dataset.class_names)) < 2:
        raise ValueError(
            f"data set {name!r} must have at least two classes, got class_names "
            f"{list(dataset.class_names)}"
        )
    splits = {key: getattr(dataset, key) for key in ("train", "validation", "test")}
    for key in ("train", "test"):
        if not len(splits[key]["labels"]):
            raise ValueError(f"data set {name!r}: its {key} split is empty")
    labels = dataset.train["labels"]
    if (labels == labels[0]).all():
        raise ValueError(
            f"data set {name!r}: its train split must hold at least two classes, all "
            f"{len(labels)} labels are {labels[0]}"
        )
    shape = dataset.train["images"].shape[1:]
    owner: dict[int, str] = {}
    for key, split in splits.items():
        if split and split["images"].shape[1:] != shape:
            raise ValueError(
                f"data set {name!r}: images of train have shape {shape}, those of "
                f"{key} {split['images'].shape[1:]}; they must be alike"
            )
        for group in np.unique(split["groups"]).tolist() if "groups" in split else ():
            if owner.setdefault(group, key) != key:
                raise ValueError(
                    f"data set {name!r}: group {group} lies in {owner[group]} and in "
                    f"{key}; keep a group on one side, or number the groups of each "
                    "file apart"
                )
    return dataset


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


def check_groups(
    splits: Sequence[Split], skip_groups: Sequence[int], *, name: str
) -> None:
    """See that groups which are to be left out are there.

    Args:
        splits: those that they are left out of.
        skip_groups: numbers in `groups`.
        name: of the data set, for messages.

    Raises:
        ValueError: the data set has no groups, or not all of these.
    """
    if not skip_groups:
        return
    found = [split["groups"] for split in splits if "groups" in split]
    if not found:
        raise ValueError(
            f"dataset.skip_groups: data set {name!r} has no groups, so none can be "
            f"left out; set it to (), got {tuple(skip_groups)}"
        )
    known = np.unique(np.concatenate(found))
    missing = [group for group in skip_groups if group not in known]
    if missing:
        raise ValueError(
            f"dataset.skip_groups: there is no group {missing[0]} in the training data "
            f"of {name!r}, whose {len(known)} groups have numbers from {known[0]} to "
            f"{known[-1]}"
        )


def without_groups(split: Split, skip_groups: Sequence[int]) -> Split:
    """A split without the samples of some groups.

    Args:
        split: as made by `check_split`; returned as it is where it has no groups.
        skip_groups: numbers in `groups`.
    """
    if not skip_groups or "groups" not in split:
        return split
    stays = ~np.isin(split["groups"], skip_groups)
    return {key: value[stays] for key, value in split.items()}


def _check_range(
    labels: np.ndarray, source: str, name: str, low: int, num_classes: int | None
) -> None:
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
