"""A folder that somebody brings, as annotated pictures in splits with named classes.

Where two things in it should go together and do not, it is refused; what is left out is
counted and said.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dib_jax.data.annotations import CLASS_FILES, Annotated, read_annotations
from dib_jax.data.dataset import SPLITS, none_label
from dib_jax.data.folders import read_text
from dib_jax.data.messages import Report
from dib_jax.data.picture_folder import (
    Folder,
    class_name,
    counted,
    given_splits,
    look_into,
    split_named,
    split_of,
)


class Brought(NamedTuple):
    """What a folder holds.

    Attributes:
        splits: the annotations of each split, `train` at least.
        class_names: in the order of their numbers.
        summary: what was taken for what, in a line.
    """

    splits: dict[str, list[Annotated]]
    class_names: tuple[str, ...]
    summary: str


def read_brought(source: Path, classes: str | Sequence[str], report: Report) -> Brought:
    """The annotations in a folder, by split.

    Args:
        source: the folder.
        classes: names in the order of their numbers, or a text of them with commas
            between; empty: those that it tells, or those found, sorted.
        report: is called with each line for the user.

    Raises:
        ValueError: it holds no annotated picture, a file of it cannot be read, or what
            it says of splits or classes does not go together.
    """
    folder = look_into(source)
    notes: list[str] = []
    form, entries = read_annotations(folder, notes.append)
    if not entries:
        more = f"; {notes[0]}" if notes else ""
        raise ValueError(
            f"{source}: no annotated pictures in it; it must hold pictures, and beside "
            "them Pascal VOC (.xml), YOLO (.txt) or COCO (.json) files, a table of "
            f"names and labels (.csv), or two or more folders of classes{more}"
        )
    if len({entry.boxes is None for entry in entries}) > 1:
        raise ValueError(f"{source}: some pictures have boxes, and others only a class")
    splits, how = _by_split(folder, entries, notes.append)
    class_names, origin = _class_names(folder, entries, classes, notes.append)
    for note in notes:
        report(note)
    summary = f"{len(entries)} pictures read as {form}; {how}; the class names {origin}"
    return Brought(splits, class_names, summary)


def _by_split(
    folder: Folder, entries: list[Annotated], report: Report
) -> tuple[dict[str, list[Annotated]], str]:
    given, files = given_splits(folder, report)
    found: dict[str, list[Annotated]] = {split: [] for split in ("", *SPLITS)}
    for entry in entries:
        found[given.get(entry.path) or _own_split(folder.root, entry)].append(entry)
    rest = found.pop("")
    named = ", ".join(split for split in SPLITS if found[split])
    paths = {entry.path for entry in entries}
    bare = [path for path in folder.pictures if path not in paths]
    for split in SPLITS:
        there = [] if found[split] else bare
        lost = [p for p in there if split == (given.get(p) or split_of(folder.root, p))]
        if lost:
            raise ValueError(
                f"{folder.root}: {counted('picture', lost)} of {split} and no "
                "annotation for any; add annotations, or move these pictures away"
            )
    if rest and "train" in given.values():
        report(f"left out: {counted('picture', [e.path for e in rest])} in no list")
    elif rest and named:
        raise ValueError(
            f"{folder.root}: {counted('picture', [e.path for e in rest])} in no split, "
            f"while others are in {named}; put them into a folder of a split, or away"
        )
    elif rest:
        found["train"] = rest
    if not found["train"]:
        raise ValueError(f"{folder.root}: has pictures of {named} and none of train")
    if bare:
        report(f"left out: {counted('picture', bare)} without annotation or class")
    for path in folder.folders:
        split = split_named(path.name)
        if split and not found[split]:
            report(f"{path}: no picture of {split} in it")
    how = "no splits in it"
    if files:
        how = f"splits from {', '.join(str(f.relative_to(folder.root)) for f in files)}"
    elif named:
        how = "splits from names of folders or annotations"
    return {split: some for split, some in found.items() if some}, how


def _own_split(root: Path, entry: Annotated) -> str:
    """The split of a picture by its folder or its annotation."""
    places = {split_of(root, entry.path): entry.path, entry.split: entry.source}
    places |= {split_of(root, entry.source): entry.source}
    places.pop("", None)
    if len(places) > 1:
        raise ValueError(
            f"{entry.path}: of two splits, "
            + " and ".join(f"{split} by {path}" for split, path in places.items())
        )
    return next(iter(places), "")


def _class_names(
    folder: Folder,
    entries: list[Annotated],
    classes: str | Sequence[str],
    report: Report,
) -> tuple[tuple[str, ...], str]:
    """The names of the classes, and where they are from."""
    if isinstance(classes, str):
        classes = classes.split(",")
    if classes:
        return _checked([name.strip() for name in classes], "--classes"), "as given"
    lists = {
        path: _checked(read_text(path).strip().splitlines(), str(path))
        for path in folder.others
        if path.name.lower() in CLASS_FILES
    }
    names = {name for entry in entries for name in entry.names}
    numbered = any(isinstance(name, int) for name in names)
    for path, content in folder.tables.items():
        if "names" in content or (numbered and not lists):
            lists[path] = _yaml_names(path, content)
    for path, found in lists.items():
        first = next(iter(lists))
        if found != lists[first]:
            raise ValueError(
                f"{first} names the classes {list(lists[first])}, and {path} "
                f"{list(found)}; delete the one that is wrong, or give --classes=A,B,…"
            )
    if lists:
        return next(iter(lists.values())), f"from {next(iter(lists))}"
    if numbered:
        raise ValueError(
            f"{folder.root}: YOLO files only number the classes, and there is no "
            f"{CLASS_FILES[0]} with a name a line and no data.yaml; write one, or give "
            "--classes=A,B,…"
        )
    texts = list(map(str, names))
    if void := none_label(texts):
        count = sum(void in map(str, entry.names) for entry in entries)
        raise ValueError(
            f"{folder.root}: {count} picture(s) of a class {void!r}, which often means "
            f"none; move them away, or give --classes={','.join(sorted(texts))}"
        )
    alike = Counter(text.casefold() for text in texts)
    if twice := sorted(text for text in texts if alike[text.casefold()] > 1):
        report(f"classes that differ in capitals alone: {', '.join(twice)}")
    key = int if all(text.isdecimal() for text in texts) else str
    return tuple(sorted(texts, key=key)), "are those found"


def _checked(names: list[str], source: str) -> tuple[str, ...]:
    """Names of classes that are different and not empty."""
    names = [class_name(name) for name in names]
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            problem = "is empty" if not name else f"is {name!r} again"
            raise ValueError(f"{source}: the name of class {number} {problem}")
    if not names:
        raise ValueError(f"{source}: names no class")
    return tuple(names)


def _yaml_names(path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """The entry `names` of a YOLO export: a list, or a mapping from 0 on."""
    names = content.get("names")
    if isinstance(names, dict) and set(names) == set(map(str, range(len(names)))):
        names = [names[str(number)] for number in range(len(names))]
    if not names or not isinstance(names, list) or not all(
        isinstance(name, str) for name in names
    ):  # fmt: skip
        raise ValueError(
            f"{path}: names must be a list of class names, or a mapping of 0, 1, … to "
            f"them, got {str(names)[:80]}; mend it, or give --classes=A,B,…"
        )
    count = content.get("nc", str(len(names)))
    if count != str(len(names)):
        raise ValueError(f"{path}: has {len(names)} names, and nc says {count} classes")
    return _checked(names, str(path))
