"""Folders of pictures with annotations or classes, written as array files.

A picture with boxes is scaled so that its longer side is `size` and padded with black
at its right and bottom to a square; its boxes go with it, and the class of the largest
one is its label. A picture that is of a class as a whole is stretched to a square.
"""

import contextlib
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tqdm
from PIL import Image

from dib_jax.data.annotations import Annotated
from dib_jax.data.brought import read_brought
from dib_jax.data.dataset import lacking_classes
from dib_jax.data.kind import Split, take
from dib_jax.data.messages import Report, one_line
from dib_jax.data.picture_files import (
    UnreadablePictureError,
    fit,
    fitted_size,
    is_turned,
    read_picture,
)
from dib_jax.data.pictures import inside
from dib_jax.data.split import split_rows

_SIDE = 256  # of the stored pictures, where nothing is said
_NAMED = 20  # of the pictures that cannot be read
_SLACK = 1e-4  # of a side; boxes are written with a few digits


class _Pictures(NamedTuple):
    """Pictures of a split: (n, size, size, 3), boxes (k, 4) in pixels, and classes."""

    images: np.ndarray
    boxes: list[np.ndarray]
    numbers: list[list[int]]


class _Skipped(NamedTuple):
    """What is left out instead of refused."""

    bad_boxes: bool
    unreadable: bool


def write_annotated(
    source: Path,
    folder: Path,
    *,
    size: int | None = None,
    classes: str | Sequence[str] = (),
    test_fraction: float | None = None,
    skip_bad_boxes: bool = False,
    skip_unreadable: bool = False,
    report: Report = print,
    complete: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write a folder of pictures as a data set.

    Read are YOLO and Pascal VOC files of a picture's name, COCO's JSON, tables of names
    and labels (CSV), and else folders of classes. The split of a picture is that in
    data.yaml, in a list such as `ImageSets/Main/train.txt` or in the table, or that of
    a folder named like a split; without a test split a part of each class is held out,
    drawn once and for all. Identical pictures stay on one side.

    Args:
        source: the folder of pictures and annotations.
        folder: where `train.npz` and `test.npz` go; it must not exist, and appears only
            when it is whole.
        size: side of the stored pictures, in pixels; None for 256, or for the longest
            side of all pictures where that is less.
        classes: names in the order of their numbers, or a text of them with commas
            between; empty: those of classes.txt or data.yaml (one of which YOLO
            needs), or those found, sorted.
        test_fraction: the part that becomes the test split where there is none; None
            for 0.2.
        skip_bad_boxes: leave pictures with a bad box out instead of raising.
        skip_unreadable: leave pictures that cannot be read out instead of raising.
        report: is called with each line for the user.
        complete: is called with a folder of the same name that holds the set, before it
            appears in its place.

    Raises:
        FileNotFoundError: there is no folder `source`.
        FileExistsError: `folder` exists already.
        ValueError: `source` holds no annotated picture, a picture or an annotation
            cannot be read, a class is unknown, a box has no area or leaves its picture,
            or what the folder says of splits or classes does not go together.
    """
    _check(source, folder, size)
    source = Path(os.path.abspath(source))  # links in it stay
    notes: list[str] = []
    brought = read_brought(source, classes, notes.append)
    names = brought.class_names
    if size is None:
        size = _longest_side([e.path for some in brought.splits.values() for e in some])
    skipped = _Skipped(skip_bad_boxes, skip_unreadable)
    pictures = {
        split: _pictures(entries, names, size, skipped, notes.append)
        for split, entries in brought.splits.items()
    }
    most = max(len(one) for split in pictures.values() for one in split.numbers)
    splits = {split: _stacked(found, most) for split, found in pictures.items()}
    if "test" not in splits:
        part = 0.2 if test_fraction is None else test_fraction
        splits |= _held_out(splits["train"], part)
        notes.append(f"no test split in it: {part:g} of train is held out")
    elif test_fraction is not None:
        notes.append("--test_fraction is not used, for there is a test split")
    if lacking := lacking_classes(splits, names):
        notes.append(lacking)
    has_boxes = "boxes" in splits["train"]
    made = f"longer side {size}, padded" if has_boxes else f"side {size}, stretched"
    _write(
        splits,
        folder,
        complete,
        class_names=names,
        description=f"pictures of {source.name}, {made} to a square",
    )
    counts = ", ".join(f"{split} {len(v['labels'])}" for split, v in splits.items())
    first = f"{folder}: {counts}; classes {', '.join(names)}"
    for line in (first, brought.summary, *notes):
        report(" ".join(line.split()))  # names of files may have line ends


def _check(source: Path, folder: Path, size: int | None) -> None:
    if not source.is_dir():
        hint = "; unpack it, and give the folder" if source.is_file() else ""
        raise FileNotFoundError(f"--source: there is no folder {source}{hint}")
    if folder.exists():
        raise FileExistsError(
            f"{folder} is there already; move it away, or choose another name"
        )
    if size is not None and not 8 <= size <= 4096:
        raise ValueError(f"--size: got {size}; must be 8 to 4096 pixels")


def _longest_side(paths: list[Path]) -> int:
    """That of all pictures, 8 to 256."""
    longest = 8
    for path in paths:
        with contextlib.suppress(Exception), Image.open(path) as opened:
            longest = max(longest, *opened.size)
        if longest >= _SIDE:
            return _SIDE
    return longest


def _pictures(
    entries: list[Annotated],
    class_names: tuple[str, ...],
    size: int,
    skipped: _Skipped,
    report: Report,
) -> _Pictures:
    """The pictures of a split that have a class, scaled, and their boxes."""
    found = _Pictures(np.zeros((len(entries), size, size, 3), np.uint8), [], [])
    count: Counter[str] = Counter()
    unreadable: list[Path] = []
    shape = found.images.shape[1:]
    for entry in tqdm.tqdm(entries, unit=" pictures", disable=None, leave=False):
        numbers = _numbers(entry, class_names)
        if not numbers:
            count["without boxes"] += 1
            continue
        try:
            picture, turned = _as_annotated(entry)
        except UnreadablePictureError as error:
            if not skipped.unreadable:
                raise ValueError(
                    f"{entry.path}: no picture, or truncated ({one_line(error)}); "
                    "--skip_unreadable=True leaves such pictures out"
                ) from error
            unreadable.append(entry.path)
            continue
        pad = entry.boxes is not None
        if problem := _problem_of_boxes(entry, picture.size):
            if not skipped.bad_boxes:
                raise ValueError(
                    f"{entry.source}: {problem}; --skip_bad_boxes=True leaves such "
                    "pictures out"
                )
            count["bad"] += 1
            continue
        count["turned"] += turned
        row = len(found.numbers)
        found.images[row] = fit(picture, shape, pad=pad)
        found.numbers.append(numbers)
        if pad:
            sides = fitted_size(picture.size, shape, pad=pad) * 2
            found.boxes.append(np.clip(_relative(entry, picture.size), 0, 1) * sides)
    _tell(count, unreadable, report)
    if not found.numbers:
        raise ValueError(
            f"{entries[0].source.parent}: no picture that can be read, with a class "
            "and sound boxes"
        )
    return found._replace(images=found.images[: len(found.numbers)])


def _tell(count: Counter[str], unreadable: list[Path], report: Report) -> None:
    """Say what is left out, and what is changed."""
    if count["without boxes"] or count["bad"]:
        report(
            f"left out: {count['without boxes']} picture(s) without boxes, "
            f"{count['bad']} with a bad box"
        )
    if unreadable:
        names = ", ".join(map(str, unreadable[:_NAMED]))
        more = ", …" if len(unreadable) > _NAMED else ""
        report(f"left out: {len(unreadable)} picture(s) not to be read: {names}{more}")
    if count["turned"]:
        report(f"{count['turned']} picture(s) turned upright, as their cameras noted")


def _as_annotated(entry: Annotated) -> tuple[Image.Image, bool]:
    """The picture that whoever annotated it has seen, and whether it was turned."""
    picture, turned = read_picture(entry.path), is_turned(entry.path)
    if entry.sides in (None, picture.size):
        return picture, turned
    stored = read_picture(entry.path, upright=False)
    if entry.sides != stored.size:
        stated, real = ("x".join(map(str, s)) for s in (entry.sides, stored.size))
        raise ValueError(
            f"{entry.source}: states a picture of {stated} pixels, and {entry.path} "
            f"has {real}; mend one of them"
        )
    return stored, False


def _relative(entry: Annotated, sides: tuple[int, int]) -> np.ndarray:
    """The boxes of a picture in units of its sides."""
    boxes = np.empty((0, 4)) if entry.boxes is None else entry.boxes
    return boxes if entry.relative else boxes / (sides * 2)


def _problem_of_boxes(entry: Annotated, sides: tuple[int, int]) -> str:
    """What is wrong with the boxes of a picture, or ""."""
    if entry.boxes is None:
        return ""
    if not entry.relative and entry.boxes.max() <= 1:
        return "all boxes lie in 0..1, as shares of the sides do; pixels are needed"
    sound = inside(_relative(entry, sides), (1, 1), slack=_SLACK)
    if sound.all():
        return ""
    number = int(sound.argmin())
    return (
        f"box {number} has no area or leaves the picture of {sides[0]}x{sides[1]} "
        f"pixels: {entry.boxes[number].tolist()}"
    )


def _stacked(found: _Pictures, most: int) -> Split:
    """A split with room for `most` boxes in each picture, where it has boxes."""
    count = len(found.numbers)
    if not found.boxes:
        labels = np.array([numbers[0] for numbers in found.numbers], np.int32)
        return {"images": found.images, "labels": labels}
    split: Split = {
        "images": found.images,
        "labels": np.empty(count, np.int32),
        "boxes": np.full((count, most, 4), -1, np.float32),
        "box_labels": np.full((count, most), -1, np.int32),
    }
    for row, (boxes, numbers) in enumerate(
        zip(found.boxes, found.numbers, strict=True)
    ):
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        split["labels"][row] = numbers[int(areas.argmax())]
        split["boxes"][row, : len(boxes)] = boxes
        split["box_labels"][row, : len(boxes)] = numbers
    return split


def _numbers(entry: Annotated, class_names: tuple[str, ...]) -> list[int]:
    numbers = []
    for name in entry.names:
        known: Sequence[str | int] = class_names
        if isinstance(name, int):
            known = range(len(class_names))
        if name not in known:
            raise ValueError(
                f"{entry.source}: unknown class {name!r}; the classes are "
                f"{', '.join(map(repr, class_names))}"
            )
        numbers.append(known.index(name))
    return numbers


def _held_out(train: Split, fraction: float) -> dict[str, Split]:
    """A split in two, both with `groups`: those of the same picture."""
    first: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.data).digest() for image in train["images"])
    groups = np.array([first.setdefault(c, row) for row, c in enumerate(digests)])
    rows = held = groups[:0]
    with contextlib.suppress(ValueError):
        rows, held = split_rows(train["labels"], groups, fraction=fraction, seed=0)
    if not len(held):
        raise ValueError(
            f"--test_fraction: got {fraction}, which holds out none of {len(groups)} "
            "pictures; must be above 0 and below 1, with two pictures in a class"
        )
    train = {**train, "groups": groups}
    return {"train": take(train, rows), "test": take(train, held)}


def _write(
    splits: dict[str, Split],
    folder: Path,
    complete: Callable[[Path], None],
    **notes: Any,
) -> None:
    place = folder.with_name(f".{folder.name}") / str(os.getpid())
    unfinished = place / folder.name
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        for split, arrays in splits.items():
            np.savez(unfinished / f"{split}.npz", allow_pickle=False, **arrays, **notes)
        complete(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(place)
        with contextlib.suppress(OSError):  # another process is at it
            place.parent.rmdir()
