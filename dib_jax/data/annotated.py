"""Pictures annotated in the form of Pascal VOC or YOLO, written as array files.

A picture is scaled so that its longer side is `size` and padded with black at its right
and bottom to a square; its boxes go with it. The class of its largest box is its label.
"""

import os
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from dib_jax.data.kind import Split, take
from dib_jax.data.messages import Report, blaming
from dib_jax.data.pictures import inside
from dib_jax.data.split import split_rows

_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_CLASS_FILES = ("classes.txt", "obj.names")
_YAML_FILES = ("data.yaml", "data.yml")
# The folders of the splits in an export for YOLO.
_SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}
_SIDES = ("xmin", "ymin", "xmax", "ymax")  # in Pascal VOC
_SLACK = 1e-4  # of a side; boxes are written with a few digits

_Pictures = dict[str, list[Path]]  # by stem


class Annotated(NamedTuple):
    """The annotation of a picture.

    Attributes:
        path: the file of the picture.
        source: the file of the annotation.
        names: names (VOC) or numbers (YOLO) of the boxes' classes.
        boxes: (k, 4) as x1, y1, x2, y2, in pixels (VOC) or in units of the sides.
        relative: whether the boxes are in units of the sides.
    """

    path: Path
    source: Path
    names: Sequence[str | int]
    boxes: np.ndarray
    relative: bool


class _Picture(NamedTuple):
    """A picture as it is stored: its boxes (k, 4) in pixels, their classes' numbers."""

    pixels: np.ndarray
    boxes: np.ndarray
    numbers: list[int]
    label: int


def write_annotated(
    source: Path,
    folder: Path,
    *,
    size: int = 256,
    classes: Sequence[str] = (),
    test_fraction: float = 0.2,
    skip_bad_boxes: bool = False,
    report: Report = print,
) -> None:
    """Write a folder of annotated pictures as a data set.

    Annotations are looked for in the whole folder: `<stem>.xml` (Pascal VOC) or
    `<stem>.txt` (YOLO) for each picture `<stem>.png`, `.jpg` and so on. Folders
    `train`, `test` and `valid` in it are the splits; without `test`, a part of each
    class is held out, drawn once and for all. Identical pictures stay on one side.

    Args:
        source: the folder of pictures and annotations.
        folder: where `train.npz` and `test.npz` go; it must not exist, and appears only
            when it is whole.
        size: side of the stored pictures, in pixels.
        classes: names in the order of their numbers; empty: those of classes.txt or
            data.yaml (one of which YOLO needs), or those found (VOC), sorted.
        test_fraction: the part that becomes the test split where there is none.
        skip_bad_boxes: leave pictures with a bad box out instead of raising.
        report: is called with each line for the user.

    Raises:
        FileNotFoundError: there is no folder `source`.
        FileExistsError: `folder` exists already.
        ValueError: `source` holds no annotated picture, a picture or an annotation
            cannot be read, a class is unknown, a box has no area or leaves its picture.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"--source: there is no folder {source}")
    if folder.exists():
        raise FileExistsError(
            f"{folder} is there already; move it away, or choose another name"
        )
    if not 8 <= size <= 4096:
        raise ValueError(f"--size: got {size}; must be 8 to 4096 pixels")
    found = {
        split: [entry for name in names for entry in _annotations(source / name)]
        for split, names in _SPLIT_FOLDERS.items()
    }
    if not found["train"]:
        found = {"train": _annotations(source)}
    if not found["train"]:
        raise ValueError(
            f"{source}: no annotated pictures in it; it must hold pictures and, of the "
            "same name, Pascal VOC files (.xml) or YOLO files (.txt)"
        )
    class_names = tuple(classes) or _class_names(source, found)
    pictures = {
        split: _pictures(entries, class_names, size, skip_bad_boxes, report)
        for split, entries in found.items()
        if entries
    }
    most = max(len(one.boxes) for split in pictures.values() for one in split)
    splits = {split: _stacked(found, most) for split, found in pictures.items()}
    if "test" not in splits:
        splits |= _held_out(splits["train"], test_fraction)
    description = f"pictures of {source.name}, longer side {size}, padded to a square"
    _write(splits, folder, class_names=class_names, description=description)
    counts = ", ".join(f"{split} {len(v['labels'])}" for split, v in splits.items())
    report(f"{folder}: {counts}; classes {', '.join(class_names)}")


def _annotations(folder: Path) -> list[Annotated]:
    pictures: _Pictures = {}
    xml, text = [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        suffix = path.suffix.lower()
        if suffix in _PICTURES:
            pictures.setdefault(path.stem, []).append(path)
        elif suffix == ".xml":
            xml.append(path)
        elif suffix == ".txt" and path.name not in _CLASS_FILES:
            text.append(path)
    if xml:
        return [_read_voc(path, pictures) for path in xml]
    return [_read_yolo(path, pictures) for path in text if path.stem in pictures]


def _picture_of(annotation: Path, pictures: _Pictures, file_name: str = "") -> Path:
    found = pictures.get(annotation.stem, [])
    if len(found) > 1:  # masks may lie beside the pictures under the same name
        found = [path for path in found if path.name == file_name] or found
    if len(found) != 1:
        there = " and ".join(map(str, found)) or "none"
        raise ValueError(
            f"{annotation}: it must belong to one picture named {annotation.stem}, "
            f"there is {there}"
        )
    return found[0]


def _read_voc(path: Path, pictures: _Pictures) -> Annotated:
    with blaming(f"{path}: not an XML file, or truncated", ElementTree.ParseError):
        root = ElementTree.parse(path).getroot()
    picture = _picture_of(path, pictures, (root.findtext("filename") or "").strip())
    names, boxes = [], []
    for number, entry in enumerate(root.findall("object")):
        name = (entry.findtext("name") or "").strip()
        sides = [entry.findtext(f"bndbox/{side}") for side in _SIDES]
        try:
            boxes.append([float(side or "none") for side in sides])
        except ValueError:
            raise ValueError(
                f"{path}: object {number} has no bndbox of four numbers, but {sides}"
            ) from None
        if not name:
            raise ValueError(f"{path}: object {number} has no name")
        names.append(name)
    return Annotated(picture, path, names, np.reshape(boxes, (-1, 4)), relative=False)


def _read_yolo(path: Path, pictures: _Pictures) -> Annotated:
    picture = _picture_of(path, pictures)
    numbers, boxes = [], []
    for row, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        words = line.split()
        if not words:
            continue
        try:
            number = int(words[0])
            x, y, width, height = map(float, words[1:])
        except ValueError:
            raise ValueError(
                f"{path}: row {row} must be a class number and x, y, width, height in "
                f"units of the sides, got {line.strip()!r}"
            ) from None
        numbers.append(number)
        boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return Annotated(picture, path, numbers, np.reshape(boxes, (-1, 4)), relative=True)


def _class_names(source: Path, found: dict[str, list[Annotated]]) -> tuple[str, ...]:
    for file_name in (*_CLASS_FILES, *_YAML_FILES):
        for path in sorted(source.rglob(file_name)):
            if file_name in _YAML_FILES:
                return _yaml_names(path)
            lines = map(str.strip, path.read_text(encoding="utf-8").splitlines())
            return tuple(filter(None, lines))
    names = {n for entries in found.values() for entry in entries for n in entry.names}
    if any(isinstance(name, int) for name in names):
        raise ValueError(
            f"{source}: YOLO files only number the classes, and there is no "
            f"{_CLASS_FILES[0]} with a name a line and no {_YAML_FILES[0]}; write one, "
            "or give --classes=A,B,…"
        )
    return tuple(sorted(map(str, names)))


def _yaml_names(path: Path) -> tuple[str, ...]:
    """The entry `names` of a YOLO export: a list, or a mapping from 0 on."""
    damage = (yaml.YAMLError, UnicodeDecodeError)
    with blaming(f"{path}: not a YAML file, or damaged", damage):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    plain = isinstance(names, list) and all(
        isinstance(name, str | int | float) and str(name).strip() for name in names
    )
    if not names or not plain:
        raise ValueError(
            f"{path}: names must be a list of class names, or a mapping of 0, 1, … to "
            f"them, got {str(names)[:80]}; mend it, or give --classes=A,B,…"
        )
    return tuple(str(name).strip() for name in names)


def _pictures(
    entries: list[Annotated],
    class_names: tuple[str, ...],
    size: int,
    skip_bad_boxes: bool,
    report: Report,
) -> list[_Picture]:
    """The pictures of a split that have boxes, scaled and padded."""
    found = []
    empty = bad = 0
    for entry in entries:
        numbers = _numbers(entry, class_names)
        if not numbers:
            empty += 1
            continue
        problem = f"{entry.path}: no picture, or truncated"
        with blaming(problem), Image.open(entry.path) as opened:
            image = opened.convert("RGB")
        relative = entry.boxes if entry.relative else entry.boxes / (image.size * 2)
        sound = inside(relative, (1, 1), slack=_SLACK)
        if sound.all():
            found.append(_scaled(image, relative, numbers, size))
        elif skip_bad_boxes:
            bad += 1
        else:
            number = int(sound.argmin())
            raise ValueError(
                f"{entry.source}: box {number} has no area or leaves the picture of "
                f"{image.width}x{image.height} pixels: {entry.boxes[number].tolist()}; "
                "--skip_bad_boxes=True leaves such pictures out"
            )
    if empty or bad:
        report(f"left out: {empty} picture(s) without boxes, {bad} with a bad box")
    if not found:
        raise ValueError(f"{entries[0].source.parent}: no picture with a sound box")
    return found


def _scaled(
    image: Image.Image, relative: np.ndarray, numbers: list[int], size: int
) -> _Picture:
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    pixels = np.zeros((size, size, 3), np.uint8)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels[:height, :width] = np.asarray(image)
    boxes = np.clip(relative, 0, 1) * [width, height, width, height]
    areas = np.prod(relative[:, 2:] - relative[:, :2], axis=1)
    return _Picture(pixels, boxes, numbers, numbers[int(areas.argmax())])


def _stacked(pictures: list[_Picture], most: int) -> Split:
    """A split with room for `most` boxes in each picture."""
    count = len(pictures)
    split: Split = {
        "images": np.stack([picture.pixels for picture in pictures]),
        "labels": np.array([picture.label for picture in pictures], np.int32),
        "boxes": np.full((count, most, 4), -1, np.float32),
        "box_labels": np.full((count, most), -1, np.int32),
    }
    for row, picture in enumerate(pictures):
        split["boxes"][row, : len(picture.boxes)] = picture.boxes
        split["box_labels"][row, : len(picture.boxes)] = picture.numbers
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
                f"{', '.join(class_names)}"
            )
        numbers.append(known.index(name))
    return numbers


def _held_out(train: Split, fraction: float) -> dict[str, Split]:
    """A split in two, both with `groups`: those of the same picture."""
    first: dict[bytes, int] = {}
    contents = (image.tobytes() for image in train["images"])
    groups = np.array([first.setdefault(c, row) for row, c in enumerate(contents)])
    rows, held = split_rows(train["labels"], groups, fraction=fraction, seed=0)
    train = {**train, "groups": groups}
    return {"train": take(train, rows), "test": take(train, held)}


def _write(splits: dict[str, Split], folder: Path, **notes: Any) -> None:
    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        for split, arrays in splits.items():
            np.savez(unfinished / f"{split}.npz", allow_pickle=False, **arrays, **notes)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
