"""Folders and texts that people bring, which other programs have written."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from dib_jax.data.messages import blaming

_MOST_YAML = 1 << 20  # bytes; class lists are far below, and its parser is slow


def walk(folder: Path, *, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """All files and folders in a folder, sorted; links are followed.

    What is hidden is left out, and what a Mac puts into archives for itself. A link
    that leads nowhere is there too.

    Args:
        folder: where to look.
        above: device and number of the folders that it lies in, so that a link to one
            of them is not followed for ever.
    """
    number = folder.stat()
    place = (number.st_dev, number.st_ino)
    if place in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_dir() or path.is_file() or path.is_symlink():  # no pipes
            yield path
        if path.is_dir():
            yield from walk(path, above=(*above, place))


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: of the file.

    Raises:
        ValueError: it has another encoding.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {content[error.start]:#04x} at {error.start}"
    else:
        if "\0" not in text:
            return text
        where = f"a zero at {text.index(chr(0))}, as UTF-16 has them"
    raise ValueError(f"{path}: not UTF-8 ({where}); save it in that encoding")


class _AsWritten(yaml.BaseLoader):
    """Every value as the text that was written; no value stands for another."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*name), which are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        made = super().construct_mapping(node, deep=deep)
        if len(made) < len(node.value):
            keys = Counter(key.value for key, _ in node.value)
            key = max(keys, key=keys.__getitem__)
            raise yaml.YAMLError(f"the key {key!r} stands in it twice")
        return made


def read_yaml(path: Path) -> Any:
    """A YAML file as dicts, lists and texts.

    Numbers and booleans stay the text that they are written as: 020 is no 16, and no
    is no False.

    Args:
        path: of the file.

    Raises:
        ValueError: it is no YAML file, is too large or has aliases.
    """
    if path.stat().st_size > _MOST_YAML:
        raise ValueError(f"{path}: larger than {_MOST_YAML} bytes, so not read")
    text = read_text(path)
    damage = (yaml.YAMLError, RecursionError, ValueError)
    with blaming(f"{path}: not a YAML file, or damaged", damage):
        return yaml.load(text, Loader=_AsWritten)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Args:
        path: of the file.

    Raises:
        ValueError: it is no JSON file.
    """
    text = read_text(path)
    with blaming(f"{path}: not a JSON file, or damaged", (ValueError, RecursionError)):
        return json.loads(text)


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file.

    Args:
        path: of the file.

    Raises:
        ValueError: it is no XML file, or in an encoding that is not read.
    """
    problem = f"{path}: not an XML file in UTF-8, or truncated"
    with blaming(problem, (ElementTree.ParseError, ValueError, LookupError)):
        return ElementTree.fromstring(path.read_bytes())
