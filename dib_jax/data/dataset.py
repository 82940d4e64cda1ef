"""What a data set is here, and what its splits must be to one another.

Every message names the file (or set and split), the first bad row counted from 0, the
value there and how many rows are bad.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dib_jax.data.kind import Kind, Split, size, take
from dib_jax.data.pictures import PICTURES

SPLITS = ("train", "validation", "test")
_NUMBER = re.compile(r"-?\d{1,18}")


class Dataset(NamedTuple):
    """A data set in memory, in three splits.

    A split maps names to arrays of one length n: `labels` int32 (n,), what the kind of
    sample needs, and where the set has them `groups` int64 (n,), whose members never
    fall on both sides of a split. Pictures have `images` uint8 (n, h, w, c), and
    perhaps `boxes` float32 (n, 4) as x1, y1, x2, y2 in pixels, or (n, m, 4) with
    `box_labels` int32 (n, m), −1 for none. Vectors have `features` float32 (n, d).
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    description: str
    skipped: int = 0
    kind: Kind = PICTURES


def check_dataset(dataset: Dataset) -> Dataset:
    """The data set itself, if its splits go together.

    Raises:
        ValueError: a needed split is empty, the samples' shapes differ, there are
            fewer than two classes or two of one name, or a group lies in two splits.
    """
    name = dataset.name
    if len(set(dataset.class_names)) < len(dataset.class_names):
        twice = sorted(n for n, k in Counter(dataset.class_names).items() if k > 1)
        raise ValueError(f"data set {name!r}: several classes are named {twice[0]!r}")
    if len(set(dataset.class_names)) < 2:
        raise ValueError(
            f"data set {name!r} must have at least two classes, got class_names "
            f"{list(dataset.class_names)}"
        )
    splits = {key: getattr(dataset, key) for key in SPLITS}
    for key in ("train", "test"):
        if not size(splits[key]):
            raise ValueError(f"data set {name!r}: its {key} split is empty")
    labels = dataset.train["labels"]
    if (labels == labels[0]).all():
        raise ValueError(
            f"data set {name!r}: its train split must hold at least two classes, all "
            f"{len(labels)} labels are {labels[0]}"
        )
    owner: dict[int, str] = {}
    for key, split in splits.items():
        content = [name for name in dataset.kind.content if name in split]
        for array in content:
            shape, other = dataset.train[array].shape[1:], split[array].shape[1:]
            if other != shape:
                raise ValueError(
                    f"data set {name!r}: {array} of train have shape {shape}, those of "
                    f"{key} {other}; they must be alike"
                )
        for group in np.unique(split["groups"]).tolist() if "groups" in split else ():
            if owner.setdefault(group, key) != key:
                raise ValueError(
                    f"data set {name!r}: group {group} lies in {owner[group]} and in "
                    f"{key}; keep a group on one side, or number the groups of each "
                    "file apart"
                )
    return dataset


def labels_in(split: Split) -> set[int]:
    """The classes of a split's samples and boxes.

    Args:
        split: as the kind's `check` makes it, or empty.
    """
    found = [split[key] for key in ("labels", "box_labels") if key in split]
    return {int(label) for array in found for label in np.unique(array) if label >= 0}


def none_label(labels: Iterable[str]) -> str:
    """The label among these that often means none; "" where there is none of them.

    Programs mark what is of no class by -1, by 255 (in eight bits) or 65535 where the
    classes have small numbers, and tables by nan.

    Args:
        labels: as texts.
    """
    texts = set(labels)
    numbers = sorted(int(text) for text in texts if _NUMBER.fullmatch(text))
    if numbers and numbers[0] < 0:
        return str(numbers[0])
    for void in (255, 65535):
        if numbers[1:] and numbers[-1] == void and numbers[-2] < void - 1:
            return str(void)
    return next((text for text in sorted(texts) if text.casefold() == "nan"), "")


def lacking_classes(splits: Mapping[str, Split], class_names: Sequence[str]) -> str:
    """A line on the classes that other splits have and train lacks; "" for none.

    Args:
        splits: as the kind's `check` makes them.
        class_names: by number.
    """
    others = set().union(*(labels_in(splits.get(key, {})) for key in SPLITS[1:]))
    lacking = sorted(others - labels_in(splits["train"]))
    names = ", ".join(class_names[label] for label in lacking[:5])
    more = ", …" if len(lacking) > 5 else ""
    noun = "class" if len(lacking) == 1 else "classes"
    return f"train lacks {len(lacking)} {noun} ({names}{more})" if lacking else ""


def without_groups(
    splits: dict[str, Split], skip_groups: Sequence[int], *, name: str
) -> dict[str, Split]:
    """Splits without the samples of some groups; one without groups stays as it is.

    Args:
        splits: as the kind's `check` makes them.
        skip_groups: numbers in `groups`.
        name: of the data set, for messages.

    Raises:
        ValueError: the data set has no groups, or not all of these.
    """
    found = [split["groups"] for split in splits.values() if "groups" in split]
    if not found:
        raise ValueError(
            f"dataset.skip_groups: data set {name!r} has no groups, so none can be "
            f"left out; set it to (), got {tuple(skip_groups)}"
        )
    known = np.unique(np.concatenate(found))
    for group in skip_groups:
        if group not in known:
            raise ValueError(
                f"dataset.skip_groups: there is no group {group} in the training data "
                f"of {name!r}, whose {len(known)} groups have numbers from {known[0]} "
                f"to {known[-1]}"
            )
    rest = dict(splits)
    for key, split in splits.items():
        if "groups" in split:
            rest[key] = take(split, ~np.isin(split["groups"], skip_groups))
    return rest
