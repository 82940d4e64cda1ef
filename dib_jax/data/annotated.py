"""Pictures annotated in the form of Pascal VOC or YOLO, written as array files.

A picture is scaled so that its longer side is `size` and padded with black at its right
and bottom to a square; its boxes go with it. The class of its largest box is its label.
"""

import os
import pathlib
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image

from dib_jax.data.kind import Split
from dib_jax.data.messages import one_line
from dib_jax.data.split import split_rows

_PICTURES = frozenset(
    {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_CLASS_FILES = ("classes.txt", "obj.names")
_YAML_FILES = ("data.yaml", "data.yml")
# The folders of the splits in an export for YOLO.
_SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}
_SLACK = 1e-4  # of a side; boxes are written with a few digits


class Annotated(NamedTuple):
    """The annotation of a picture.

    Attributes:
        path: the file of the picture.
        source: the file of the annotation.
        names: names (VOC) or numbers (YOLO) of the boxes' classes.
        boxes: (k, 4) as x1, y1, x2, y2, in pixels (VOC) or in units of the sides.
        relative: whether the boxes are in units of the sides.
    """

    path: pathlib.Path
    source: pathlib.Path
    names: tuple[str | int, ...]
    boxes: np.ndarray
    relative: bool


class _Picture(NamedTuple):
    """A picture as it is stored: its boxes (k, 4) in pixels, their classes' numbers."""

    pixels: np.ndarray
    boxes: np.ndarray
    numbers: list[int]
    label: int


def write_annotated(
    source: pathlib.Path,
    folder: pathlib.Path,
    *,
    size: int = 256,
    classes: Sequence[str] = (),
    test_fraction: float = 0.2,
    skip_bad_boxes: bool = False,
    report: Callable[[str], None] = print,
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
    notes = {"class_names": class_names, "description": description}
    _write(splits, folder, {key: np.array(text) for key, text in notes.items()})
    counts = ", ".join(f"{split} {len(v['labels'])}" for split, v in splits.items())
    report(f"{folder}: {counts}; classes {', '.join(class_names)}")


def _annotations(folder: pathlib.Path) -> list[Annotated]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    pictures: dict[str, list[pathlib.Path]] = {}
    for path in files:
        if path.suffix.lower() in _PICTURES:
            pictures.setdefault(path.stem, []).append(path)
    xml = [path for path in files if path.suffix.lower() == ".xml"]
    if xml:
        return [_read_voc(path, pictures) for path in xml]
    return [
        _read_yolo(path, pictures)
        for path in files
        if path.suffix.lower() == ".txt"
        and path.stem in pictures
        and path.name not in _CLASS_FILES
    ]


def _picture_of(
    annotation: pathlib.Path,
    pictures: dict[str, list[pathlib.Path]],
    file_name: str = "",
) -> pathlib.Path:
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


def _read_voc(path: pathlib.Path, pictures: dict[str, list[pathlib.Path]]) -> Annotated:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not an XML file, or truncated ({error})") from error
    picture = _picture_of(path, pictures, (root.findtext("filename") or "").strip())
    names, boxes = [], []
    for number, entry in enumerate(root.findall("object")):
        name = (entry.findtext("name") or "").strip()
        sides = [
            entry.findtext(f"bndbox/{side}")
            for side in ("xmin", "ymin", "xmax", "ymax")
        ]
        try:
            boxes.append([float(side or "none") for side in sides])
        except ValueError:
            raise ValueError(
                f"{path}: object {number} has no bndbox of four numbers, but {sides}"
            ) from None
        if not name:
            raise ValueError(f"{path}: object {number} has no name")
        names.append(name)
    array = np.array(boxes, np.float64).reshape(-1, 4)
    return Annotated(picture, path, tuple(names), array, relative=False)


def _read_yolo(
    path: pathlib.Path, pictures: dict[str, list[pathlib.Path]]
) -> Annotated:
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
    array = np.array(boxes, np.float64).reshape(-1, 4)
    return Annotated(picture, path, tuple(numbers), array, relative=True)


def _class_names(
    source: pathlib.Path, found: dict[str, list[Annotated]]
) -> tuple[str, ...]:
    for file_name in (*_CLASS_FILES, *_YAML_FILES):
        for path in sorted(source.rglob(file_name)):
            if file_name in _YAML_FILES:
                return _yaml_names(path)
            lines = path.read_text(encoding="utf-8").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    names = {n for entries in found.values() for entry in entries for n in entry.names}
    if any(isinstance(name, int) for name in names):
        raise ValueError(
            f"{source}: YOLO files only number the classes, and there is no "
            f"{_CLASS_FILES[0]} with a name a line and no {_YAML_FILES[0]}; write one, "
            "or give --classes=A,B,…"
        )
    return tuple(sorted(map(str, names)))


def _yaml_names(path: pathlib.Path) -> tuple[str, ...]:
    """The entry `names` of a YOLO export: a list, or a mapping from 0 on."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a YAML file, or damaged ({one_line(error)})"
        ) from None
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
    report: Callable[[str], None],
) -> list[_Picture]:
    """The pictures of a split that have boxes, scaled and padded."""
    found = []
    empty = bad = 0
    for entry in entries:
        numbers = _numbers(entry, class_names)
        if not numbers:
            empty += 1
            continue
        image = _open(entry.path)
        sides = np.array([image.width, image.height] * 2, np.float64)
        relative = entry.boxes if entry.relative else entry.boxes / sides
        message = _bad_box(entry, relative, image.size)
        if message and not skip_bad_boxes:
            raise ValueError(
                f"{message}; --skip_bad_boxes=True leaves such pictures out"
            )
        if message:
            bad += 1
            continue
        scale = size / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        pixels = np.zeros((size, size, 3), np.uint8)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        pixels[:height, :width] = np.asarray(image)
        boxes = np.clip(relative, 0, 1) * [width, height, width, height]
        areas = (relative[:, 2] - relative[:, 0]) * (relative[:, 3] - relative[:, 1])
        found.append(_Picture(pixels, boxes, numbers, numbers[int(areas.argmax())]))
    if empty or bad:
        report(f"left out: {empty} picture(s) without boxes, {bad} with a bad box")
    if not found:
        raise ValueError(f"{entries[0].source.parent}: no picture with a sound box")
    return found


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
    numbers = range(len(class_names))
    known: dict[str | int, int] = {number: number for number in numbers}
    known |= {name: class_names.index(name) for name in class_names}
    for name in entry.names:
        if name not in known:
            raise ValueError(
                f"{entry.source}: unknown class {name!r}; the classes are "
                f"{', '.join(class_names)}"
            )
    return [known[name] for name in entry.names]


def _open(path: pathlib.Path) -> Image.Image:
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except Exception as error:  # Pillow raises nearly any type
        raise ValueError(
            f"{path}: no picture, or truncated ({one_line(error)})"
        ) from error


def _bad_box(entry: Annotated, relative: np.ndarray, size: tuple[int, int]) -> str:
    low, high = relative[:, :2], relative[:, 2:]
    sound = (low >= -_SLACK) & (high <= 1 + _SLACK) & (low < high)  # false for NaN
    good = sound.all(axis=1)
    if good.all():
        return ""
    number = int(good.argmin())
    return (
        f"{entry.source}: box {number} has no area or leaves the picture of "
        f"{size[0]}x{size[1]} pixels: {[float(side) for side in entry.boxes[number]]}"
    )


def _held_out(train: Split, fraction: float) -> dict[str, Split]:
    groups = _identical(train["images"])
    rows = split_rows(train["labels"], groups, fraction=fraction, seed=0)
    train = {**train, "groups": groups}
    return {
        split: {key: value[chosen] for key, value in train.items()}
        for split, chosen in zip(("train", "test"), rows, strict=True)
    }


def _identical(images: np.ndarray) -> np.ndarray:
    """For each picture the first row that holds the same one."""
    first: dict[bytes, int] = {}
    contents = (image.tobytes() for image in images)
    return np.array([first.setdefault(c, row) for row, c in enumerate(contents)])


def _write(
    splits: dict[str, Split], folder: pathlib.Path, notes: dict[str, np.ndarray]
) -> None:
    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        for split, arrays in splits.items():
            np.savez(unfinished / f"{split}.npz", allow_pickle=False, **arrays, **notes)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
