"""What stands beside pictures: YOLO, Pascal VOC, COCO, a table, or folders of classes.

A form is read by one function, which returns the annotations that belong to a picture
of the folder, and reports what it leaves out.
"""

import contextlib
import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dib_jax.data.folders import read_json, read_text, read_xml
from dib_jax.data.messages import Report, blaming
from dib_jax.data.picture_files import is_picture
from dib_jax.data.picture_folder import (
    ROLES,
    Folder,
    class_name,
    counted,
    pictures_named,
    split_named,
    split_of,
)

CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_SIDES = ("xmin", "ymin", "xmax", "ymax")  # in Pascal VOC and in tables
# Columns of tables, in small letters.
_LABELS = ("label", "class", "class_name", "classname", "category", "target")
_SPLITS = ("split", "set", "subset", "partition")
_PARTS = ROLES | {"mask", "masks"}  # folders that are no classes


class Annotated(NamedTuple):
    """The annotation of a picture.

    Attributes:
        path: the file of the picture.
        source: the file of the annotation, or the folder of the class.
        names: names or (YOLO) numbers of the boxes' classes, or of the picture's one.
        boxes: (k, 4) as x1, y1, x2, y2; None where the picture as a whole is of a
            class.
        relative: whether the boxes are in units of the sides; else in pixels.
        sides: width and height that the annotation states; None where it does not.
        split: the split that the annotation states, or "".
    """

    path: Path
    source: Path
    names: Sequence[str | int]
    boxes: np.ndarray | None
    relative: bool = False
    sides: tuple[int, int] | None = None
    split: str = ""


# Pictures, and why a file that goes with them is not read.
_Strays = list[tuple[list[Path], ValueError]]


def read_annotations(folder: Folder, report: Report) -> tuple[str, list[Annotated]]:
    """The form of the annotations in a folder, in words, and the annotations.

    Args:
        folder: what was brought.
        report: is called with each line for the user.

    Raises:
        ValueError: they are of several forms, one is damaged, or a picture has two.
    """
    strays: _Strays = []
    found = {name: read(folder, strays, report) for name, read in _FORMS.items()}
    found = {name: entries for name, entries in found.items() if entries}
    covered = {entry.path for entries in found.values() for entry in entries}
    for pictures, error in strays:
        if not covered.intersection(pictures):
            raise error
    if strays:
        report(f"left out: {counted('other file', [error for _, error in strays])}")
    if len(found) > 1:
        kinds = " and ".join(
            f"{len(entries)} of {name}, e.g. {entries[0].source}"
            for name, entries in found.items()
        )
        raise ValueError(
            f"{folder.root}: annotations in several forms, {kinds}; move all but one "
            "away"
        )
    ((name, entries),) = found.items() or [("classes by folder", [])]
    if not entries:
        entries = _class_folders(folder, report)
    first: dict[Path, Path] = {}
    for entry in entries:
        if entry.path in first:
            raise ValueError(
                f"{entry.path}: has two annotations, {first[entry.path]} and "
                f"{entry.source}; move one away"
            )
        first[entry.path] = entry.source
    return name, [
        entry._replace(
            names=[class_name(x) if isinstance(x, str) else x for x in entry.names]
        )
        for entry in entries
    ]


@contextlib.contextmanager
def _noted(strays: _Strays, pictures: list[Path]) -> Iterator[None]:
    """What cannot be read may be something else beside a picture of another form."""
    try:
        yield
    except ValueError as error:
        strays.append((pictures, error))


def _only(hits: list[Path], by: Path | str) -> Path:
    """The picture that is meant, where there is one at least."""
    if len(hits) > 1:
        raise ValueError(
            f"{by}: must belong to one picture, and can to "
            f"{' or '.join(map(str, hits[:2]))}"
        )
    return hits[0]


def _yolo(folder: Folder, strays: _Strays, report: Report) -> list[Annotated]:
    entries, alone, keypoints = [], [], _numbers_of_keypoints(folder)
    for path in folder.files(".txt"):
        if path.name.lower() in CLASS_FILES:
            continue
        if hits := pictures_named(folder, path.stem, path, nearby=True):
            with _noted(strays, hits):
                entries.append(_yolo_file(path, _only(hits, path), keypoints))
        elif _is_row_of_numbers(path):
            alone.append(path)
    if alone:
        report(f"left out: {counted('label file', alone)} without a picture")
    return entries


def _is_row_of_numbers(path: Path) -> bool:
    with path.open("rb") as file:
        words = file.readline(1000).split()
    try:
        return len([float(word) for word in words]) > 4
    except ValueError:
        return False


def _numbers_of_keypoints(folder: Folder) -> set[int]:
    """How many numbers of a row tell of keypoints, behind the box: `kpt_shape`."""
    counts = set()
    for path, content in folder.tables.items():
        if (shape := content.get("kpt_shape")) is None:
            continue
        if not isinstance(shape, list) or not all(str(x).isdecimal() for x in shape):
            raise ValueError(
                f"{path}: kpt_shape must be the number of keypoints and of numbers for "
                f"each, got {str(shape)[:80]}"
            )
        counts.add(math.prod(map(int, shape)))
    return counts


def _yolo_file(path: Path, picture: Path, keypoints: set[int]) -> Annotated:
    numbers, boxes = [], []
    for row, line in enumerate(read_text(path).splitlines()):
        words = line.split()
        if not words:
            continue
        try:
            number, sides = int(words[0]), [float(word) for word in words[1:]]
            if len(sides) - 4 in keypoints:
                sides = sides[:4]
            if len(sides) > 5 and not len(sides) % 2:  # an outline: x, y, x, y, …
                xs, ys = sides[::2], sides[1::2]
                box = [min(xs), min(ys), max(xs), max(ys)]
            else:
                x, y, width, height = sides
                box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        except ValueError:
            raise ValueError(
                f"{path}: row {row} must be a class number and x, y, width, height in "
                f"units of the sides, got {line.strip()[:80]!r}"
            ) from None
        numbers.append(number)
        boxes.append(box)
    return Annotated(picture, path, numbers, np.reshape(boxes, (-1, 4)), relative=True)


def _voc(folder: Folder, strays: _Strays, report: Report) -> list[Annotated]:
    entries, alone = [], []
    for path in folder.files(".xml"):
        if hits := pictures_named(folder, path.stem, path, nearby=True):
            with _noted(strays, hits):
                entries.append(_voc_file(path, hits))
        else:
            alone.append(path)
    if alone:
        report(f"left out: {counted('XML file', alone)} without a picture")
    return entries


def _voc_file(path: Path, hits: list[Path]) -> Annotated:
    root = read_xml(path)
    if root.tag != "annotation":
        raise ValueError(
            f"{path}: an XML file with <{root.tag}>, where Pascal VOC has <annotation>"
        )
    file_name = (root.findtext("filename") or "").strip()
    # Masks may lie beside the pictures under the same name.
    hits = [hit for hit in hits if hit.name == file_name] or hits
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
    array = np.reshape(boxes, (-1, 4))
    stated = [root.findtext(f"size/{side}") for side in ("width", "height")]
    return Annotated(
        _only(hits, path), path, names, array, sides=_stated(path, *stated)
    )


def _stated(path: Path, width: object, height: object) -> tuple[int, int] | None:
    """The sides that an annotation states; many programs write 0 for none."""
    try:
        sides = int(float(str(width or 0))), int(float(str(height or 0)))
    except (ValueError, OverflowError):
        raise ValueError(
            f"{path}: states a size of {width} by {height}, which are no numbers"
        ) from None
    return sides if all(sides) else None


def _coco(folder: Folder, strays: _Strays, report: Report) -> list[Annotated]:
    entries: list[Annotated] = []
    known: set[str] = set()
    for path in folder.files(".json"):
        try:
            content = read_json(path)
        except ValueError as error:
            report(str(error))
            continue
        keys = {"images", "annotations", "categories"}
        if isinstance(content, dict) and keys <= content.keys():
            errors = (KeyError, TypeError, ValueError, AttributeError)
            with blaming(f"{path}: not as COCO has it", errors):
                entries += _coco_file(folder, path, content, report)
                known |= {str(kind["name"]) for kind in content["categories"]}
    unused = sorted(known - {str(name) for entry in entries for name in entry.names})
    if entries and unused:
        report(f"categories without a box, which are no classes: {', '.join(unused)}")
    return entries


def _coco_file(
    folder: Folder, path: Path, content: dict[str, Any], report: Report
) -> Iterator[Annotated]:
    for key in ("categories", "images"):  # else a box could be of either
        for number, count in Counter(x["id"] for x in content[key]).items():
            if count > 1:
                raise ValueError(f"{count} {key} have the id {number!r}")
    names = {kind["id"]: str(kind["name"]) for kind in content["categories"]}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two categories of one name: {list(names.values())}")
    objects: dict[Any, list[dict[str, Any]]] = {x["id"]: [] for x in content["images"]}
    crowds, lost = 0, 0
    for one in content["annotations"]:
        if one.get("iscrowd"):
            crowds += 1
        elif one["category_id"] not in names:
            raise ValueError(
                f"an annotation is of category {one['category_id']!r}, and the "
                f"categories are {', '.join(map(repr, names))}"
            )
        elif one["image_id"] in objects:
            objects[one["image_id"]].append(one)
        else:
            lost += 1
    if lost and not any(objects.values()):
        wrong = content["annotations"][-1]["image_id"]
        raise ValueError(f"no annotation is of an id in images; the last: {wrong!r}")
    if lost:
        report(f"{path}: left out: {lost} box(es) of pictures that it does not list")
    if crowds:
        report(f"{path}: left out: {crowds} box(es) around crowds")
    split, missing = split_of(folder.root, path, by_name=True), []
    for image in content["images"]:
        file_name = image["file_name"]
        hits = pictures_named(folder, file_name, path, split=split)
        if not hits:
            missing.append(file_name)
            continue
        mine = objects[image["id"]]
        boxes = np.array([one["bbox"] for one in mine], float).reshape(len(mine), 4)
        boxes[:, 2:] += boxes[:, :2]
        yield Annotated(
            _only(hits, f"{path}: {file_name}"),
            path,
            [names[one["category_id"]] for one in mine],
            boxes,
            sides=_stated(path, image.get("width"), image.get("height")),
            split=split,
        )
    if missing:
        report(f"{path}: left out: {counted('name', missing)} without a picture")


def _tables(folder: Folder, strays: _Strays, report: Report) -> list[Annotated]:
    entries: list[Annotated] = []
    for path in folder.files(".csv", ".tsv"):
        lines = read_text(path).splitlines()
        first = lines[0] if lines else ""
        delimiter = max(",;\t", key=first.count)
        with blaming(f"{path}: not a table", csv.Error):
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(row)]
        if rows:
            entries += _table(folder, path, rows, report)
    return entries


def _table(
    folder: Folder, path: Path, rows: list[list[str]], report: Report
) -> list[Annotated]:
    """The pictures in a table; none if it is not one of pictures and labels."""
    split = split_of(folder.root, path, by_name=True)

    def hits(name: str) -> list[Path]:
        return pictures_named(folder, name.strip(), path, split=split)

    head = [name.strip().casefold() for name in rows[0]]
    named = Counter(
        i for row in rows for i, name in enumerate(row[: len(head)]) if hits(name)
    )
    if not named:
        return []
    # Numbers can be names of pictures and labels.
    place = max(
        named, key=lambda i: (head[i] not in _LABELS, _endings(rows, i), named[i])
    )
    if hits(rows[0][place]):  # no headings
        head = [f"column {i}" for i in range(len(head))]
    else:
        rows = rows[1:]
    labels = [i for i, name in enumerate(head) if name in _LABELS and i != place]
    if len(head) == 2:
        labels = [1 - place]
    if len(labels) != 1:
        report(
            f"{path}: names pictures, but no one column is named "
            f"{', '.join(_LABELS[:-1])} or {_LABELS[-1]}: {', '.join(head)}"
        )
        return []
    column = {name: i for i, name in enumerate(head)}
    has_boxes = column.keys() >= set(_SIDES)
    found: dict[Path, Annotated] = {}
    missing = []
    for number, row in enumerate(rows):
        where = f"{path}: row {number}"
        if len(row) != len(head):
            raise ValueError(f"{where}: has {len(row)} cells of {len(head)}: {row}")
        row = [cell.strip() for cell in row]
        if not (pictures := hits(row[place])):
            missing.append(row[place])
            continue
        if not row[labels[0]]:
            raise ValueError(f"{where}: {row[place]} has no label")
        entry = Annotated(
            _only(pictures, f"{where}, {row[place]}"),
            path,
            [row[labels[0]]],
            None,
            split=_split_in(row, column, where) or split,
        )
        if has_boxes:
            with blaming(f"{where}: no box of four numbers", ValueError):
                box = np.array([[float(row[column[side]]) for side in _SIDES]])
            sides = [row[column[s]] if s in column else 0 for s in ("width", "height")]
            entry = entry._replace(boxes=box, sides=_stated(path, *sides))
        found[entry.path] = _merged(found.get(entry.path), entry, where)
    if missing:
        report(f"{path}: left out: {counted('row', missing)} without a picture")
    return list(found.values())


def _endings(rows: list[list[str]], column: int) -> int:
    """How many cells of a column have the ending of a picture."""
    return sum(is_picture(Path(row[column])) for row in rows if column < len(row))


def _split_in(row: list[str], column: dict[str, int], where: str) -> str:
    for name in _SPLITS:
        if name in column:
            word = row[column[name]]
            if word and not split_named(word):
                raise ValueError(f"{where}: {name} is {word!r}, which is no split")
            return split_named(word) if word else ""
    return ""


def _merged(known: Annotated | None, entry: Annotated, where: str) -> Annotated:
    """The entry of a picture with one row more."""
    if known is None:
        return entry
    for what, here, above in (
        ("split", entry.split, known.split),
        ("size", entry.sides, known.sides),
    ):
        if here != above:
            raise ValueError(
                f"{where}: the {what} of {entry.path.name} is {here or 'not given'!r} "
                f"here and {above or 'not given'!r} above"
            )
    if entry.boxes is None or known.boxes is None:
        if known.names != entry.names:
            raise ValueError(
                f"{where}: {entry.path.name} is {entry.names[0]!r} here and "
                f"{known.names[0]!r} above; a picture has one class"
            )
        return known
    return known._replace(
        names=[*known.names, *entry.names],
        boxes=np.concatenate([known.boxes, entry.boxes]),
    )


def _class_folders(folder: Folder, report: Report) -> list[Annotated]:
    """Pictures whose class is the first folder below that of the set or the split."""
    words = {
        path: [
            word
            for word in path.relative_to(folder.root).parts[:-1]
            if not split_named(word)
        ]
        for path in (*folder.pictures, *folder.others)
    }
    inside = [words[path] for path in folder.pictures if words[path]]
    shared = 0  # folders around all the classes
    while len({some[shared] for some in inside}) == 1:
        shared += 1
        inside = [some for some in inside if len(some) > shared]
    classes = {some[shared] for some in inside}
    if parts := sorted(name for name in classes if name.casefold() in _PARTS):
        raise ValueError(
            f"{folder.root}: no annotation was found, and the folder {parts[0]} "
            "does not look like a class; rename it if it is"
        )
    entries = [
        Annotated(path, path.parent, [words[path][shared]], None)
        for path in folder.pictures
        if len(words[path]) > shared
    ]
    other = [
        path
        for path in folder.others
        if len(words[path]) > shared and words[path][shared] in classes
    ]
    if other:
        report(f"left out: {counted('file', other)} of no known picture format")
    for path in folder.folders:
        names = [w for w in path.relative_to(folder.root).parts if not split_named(w)]
        if len(names) == shared + 1 and names[shared] not in classes:
            report(f"{path}: no picture in it, so no class")
    if deep := sum(len(some) > shared + 1 for some in inside):
        report(f"{deep} pictures in folders within a class's are taken as of the class")
    return entries


_FORMS = {"YOLO": _yolo, "Pascal VOC": _voc, "COCO": _coco, "a table": _tables}
