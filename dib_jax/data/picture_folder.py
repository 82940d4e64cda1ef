"""A folder of pictures as people bring it: what is in it, and which split is where."""

import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dib_jax.data.dataset import SPLITS
from dib_jax.data.folders import read_text, read_yaml, walk
from dib_jax.data.messages import Report
from dib_jax.data.picture_files import is_picture

# Folders that say what a file is, and not which part of the set it belongs to.
ROLES = {
    "annotation", "annotations", "annots", "image", "images", "img", "imgs",
    "jpegimages", "label", "labels", "xml", "xmls",
}  # fmt: skip
_SPLIT = re.compile(
    r"(?:(train|training|trainval)|(val|valid|validation|dev)|(test|testing))"
    r"(?:[-_ ]?(?:set|split|images?|imgs?|labels?|annotations?|(?:19|20)\d\d))?"
)
# Pascal VOC has lists for other tasks beside those in Main.
_OTHER_LISTS = ("layout", "segmentation", "action")


class Folder(NamedTuple):
    """What lies in a folder.

    Attributes:
        root: the folder.
        folders: those in it.
        pictures: files with the name of a picture.
        others: the other files.
        named: pictures by their name, and by their name without its ending.
        tables: what each YAML file holds that names splits or classes.
    """

    root: Path
    folders: list[Path]
    pictures: list[Path]
    others: list[Path]
    named: dict[str, list[Path]]
    tables: dict[Path, dict[str, Any]]

    def files(self, *suffixes: str) -> list[Path]:
        """Files that are no pictures, of some endings."""
        return [path for path in self.others if path.suffix.lower() in suffixes]


def look_into(root: Path) -> Folder:
    """All that lies in a folder, its links followed.

    Args:
        root: the folder.

    Raises:
        ValueError: a link leads nowhere, or a YAML file of the set cannot be read.
    """
    found = Folder(root, [], [], [], {}, {})
    for path in walk(root):
        if not path.exists():
            raise ValueError(f"{path}: this link leads nowhere; mend or delete it")
        kinds = found.pictures if is_picture(path) else found.others
        (found.folders if path.is_dir() else kinds).append(path)
    for path in found.pictures:
        for name in {path.name, path.stem}:
            for key in {normal(name), _folded(name)}:
                found.named.setdefault(key, []).append(path)
    for path in found.files(".yaml", ".yml"):
        is_of_the_set = path.stem.lower() in ("data", "dataset")
        try:
            content = read_yaml(path)
        except ValueError:
            if is_of_the_set:
                raise
            continue
        if isinstance(content, dict) and (is_of_the_set or "names" in content):
            found.tables[path] = content
    return found


def normal(name: str) -> str:
    """A name in the form that does not depend on who wrote it.

    A Mac writes é as two characters, others as one.

    Args:
        name: of a file or a class.
    """
    return unicodedata.normalize("NFC", name)


def class_name(text: str) -> str:
    """The name of a class on one line, without blanks around it.

    Args:
        text: as a folder, a file or a user gives it.
    """
    return " ".join(normal(text).split())


def _folded(name: str) -> str:
    return "/" + normal(name).casefold()  # no file has this name


def split_named(word: str) -> str:
    """The split that a word names, such as `Train`, `val2017` or `test_images`; or "".

    Args:
        word: the name of a folder, of a file without its ending, or of a field.
    """
    found = _SPLIT.fullmatch(word.strip().casefold())
    return SPLITS[(found.lastindex or 1) - 1] if found else ""


def split_of(root: Path, path: Path, *, by_name: bool = False) -> str:
    """The split whose folder a file lies in, or "".

    Args:
        root: folders above it do not count.
        path: of the file.
        by_name: where no folder names a split, a word of its name may.

    Raises:
        ValueError: it lies in folders of two splits.
    """
    found = {split_named(word) for word in path.relative_to(root).parts[:-1]} - {""}
    if len(found) > 1:
        raise ValueError(f"{path}: in folders of {' and of '.join(sorted(found))}")
    if by_name and not found:
        words = re.split(r"[^A-Za-z0-9]+", path.stem)
        found = {split_named(word) for word in words} - {""}
    return found.pop() if len(found) == 1 else ""


def _place(root: Path, path: Path) -> tuple[str, ...]:
    """The folders of a file, without those that only say what it is."""
    folders = [normal(word).casefold() for word in path.relative_to(root).parts[:-1]]
    return tuple(split_named(word) or word for word in folders if word not in ROLES)


def pictures_named(
    folder: Folder, name: str, by: Path, *, nearby: bool = False, split: str = ""
) -> list[Path]:
    """The pictures that a name can mean, one if it is clear.

    Args:
        folder: where to look.
        name: with or without folders, with or without ending.
        by: the file that names it.
        nearby: only those in folders that go with those of `by`.
        split: that it is of, where the name alone is not clear.
    """
    words = [w for w in re.split(r"[/\\]", normal(name)) if w not in ("", ".", "..")]
    if not words:
        return []
    found = folder.named.get(words[-1]) or folder.named.get(_folded(words[-1]), [])
    place = _place(folder.root, by)
    near = set(place)
    places = [(path, set(_place(folder.root, path))) for path in found]
    close = [path for path, other in places if near <= other or other <= near]
    if nearby:
        found = close
    if len(found) > 1 and len(words) > 1:
        shared = [_shared_end(words, folder.root, path) for path in found]
        most = max(shared)
        found = [p for p, n in zip(found, shared, strict=True) if n == most]
    if len(found) > 1:
        found = [path for path in found if path in close] or found
    if len(found) > 1 and split:
        found = [p for p in found if split_of(folder.root, p) == split] or found
    if len(found) > 1:
        found = [p for p in found if _place(folder.root, p) == place] or found
    return found


def _shared_end(words: list[str], root: Path, path: Path) -> int:
    mine, theirs = words[-2::-1], path.relative_to(root).parts[-2::-1]
    same = (a == normal(b) for a, b in zip(mine, theirs, strict=False))
    return len(list(itertools.takewhile(bool, same)))


def given_splits(folder: Folder, report: Report) -> tuple[dict[Path, str], list[Path]]:
    """The split of each picture that data.yaml or a list of pictures names.

    Lists are text files such as Pascal VOC's `ImageSets/Main/train.txt`, with a name a
    line. Folders that are named like splits are not looked at here.

    Args:
        folder: what was brought.
        report: is called with each line for the user.

    Returns:
        The splits, and the files that say so.

    Raises:
        ValueError: a picture is named for two splits, or a name means several.
    """
    given: dict[Path, str] = {}
    read: list[Path] = []  # files that name splits
    for table, content in folder.tables.items():
        for word, value in content.items():
            split = split_named(word)
            values = value if isinstance(value, list) else [value]
            for text in values if split else ():
                if not isinstance(text, str) or not text.strip():
                    continue
                place = _resolved(folder.root, table, content.get("path"), text)
                if place is None:
                    report(f"{table}: its {word}, {text}, is not in this folder")
                    continue
                read.append(place if place.is_file() else table)
                if place.is_dir():
                    inside = [p for p in folder.pictures if p.is_relative_to(place)]
                    _give(given, inside, split, table)
                    if not inside:
                        report(f"{table}: its {word}, {text}, holds no picture")
                else:
                    _give(given, _listed(folder, place, report), split, place)
    lists = [
        path
        for path in folder.files(".txt")
        if split_named(path.stem)
        and path not in read
        and path.parent.name.lower() not in _OTHER_LISTS
        and not pictures_named(folder, path.stem, path, nearby=True)
    ]
    # What stands in train or val stands in trainval again.
    for path in sorted(lists, key=lambda path: "trainval" in path.stem.lower()):
        pictures = _listed(folder, path, report)
        if "trainval" in path.stem.lower():
            pictures = [picture for picture in pictures if picture not in given]
        _give(given, pictures, split_named(path.stem), path)
        read += [path] if pictures else []
    return given, list(dict.fromkeys(read))


def _give(
    given: dict[Path, str], pictures: Iterable[Path], split: str, by: Path
) -> None:
    for picture in pictures:
        if given.setdefault(picture, split) != split:
            raise ValueError(
                f"{by}: puts {picture} into {split}, but it is in {given[picture]} too"
            )


def _resolved(root: Path, table: Path, base: object, text: str) -> Path | None:
    """A path in data.yaml, which people move and whose `../` is often one too many."""
    bases = [table.parent, root]
    if isinstance(base, str):
        bases.insert(0, table.parent / base)
    for start in bases:
        for tail in (text, re.sub(r"^(\.\./)+", "", text)):
            path = Path(os.path.normpath(start / tail))
            if path.exists() and path.is_relative_to(root):
                return path
    return None


def _listed(folder: Folder, path: Path, report: Report) -> list[Path]:
    """The pictures that a list names."""
    found: list[Path] = []
    missing: list[str] = []
    for line in filter(None, map(str.strip, read_text(path).splitlines())):
        words = (line, line.rsplit(None, 1)[0])  # a number may stand behind the name
        hits = next(filter(None, (pictures_named(folder, w, path) for w in words)), [])
        if len(hits) > 1:
            raise ValueError(f"{path}: {line} can be {' or '.join(map(str, hits[:2]))}")
        found += hits
        if not hits:
            missing.append(line)
    if missing:
        report(f"{path}: {counted('name', missing)} of no picture")
    return found


def counted(what: str, things: Sequence[object]) -> str:
    """How many there are, and which is the first: "2 pictures (x, …)".

    Args:
        what: they are, as a word whose plural ends in s.
        things: at least one.
    """
    if len(things) == 1:
        return f"1 {what} ({things[0]})"
    return f"{len(things)} {what}s ({things[0]}, …)"
