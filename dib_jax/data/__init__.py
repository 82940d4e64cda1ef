"""Data sets as arrays: array files, sets with a module of their own here, and TFDS.

`load(name)` is the one way in. A new data set is one new file `<name>.py` beside this
one, with a function `<name>(data_dir: str) -> Dataset` that leaves `validation` empty
or fills it.
"""

import difflib
import importlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dib_jax.data.arrays import check_file_names, read_arrays
from dib_jax.data.dataset import (
    SPLITS,
    Dataset,
    check_dataset,
    labels_in,
    lacking_classes,
    none_label,
    without_groups,
)
from dib_jax.data.graphs import read_graph
from dib_jax.data.kind import Kind, Split, size, take
from dib_jax.data.pictures import PICTURES, check_boxes, whitened
from dib_jax.data.planetoid import read_planetoid
from dib_jax.data.preparation import downloadable, is_downloadable
from dib_jax.data.prepared import find_prepared, read_prepared
from dib_jax.data.rare import repeat_rare as repeated
from dib_jax.data.split import check_fraction, split_rows
from dib_jax.data.vectors import VECTORS

__all__ = [
    "Dataset",
    "Kind",
    "Split",
    "check_boxes",
    "check_name",
    "data_root",
    "kind_named",
    "known_names",
    "load",
    "size",
]


def load(
    name: str,
    *,
    data_dir: str = "",
    val_fraction: float = 0.1,
    seed: int = 0,
    boxes: bool = False,
    skip_bad_boxes: bool = False,
    skip_groups: Sequence[int] = (),
    samples: int = 0,
    repeat_rare: float = 0.0,
    whiten: int = 0,
) -> Dataset:
    """A data set by name, checked, with a validation split.

    Looked for in this order: array files `<data_dir>/<name>/train.npz`; a graph,
    `graph.npz` or Planetoid's `ind.*` files there; a version in that folder that TFDS
    prepared as array_record; a data set of this package.
    `module:function` names a function of one's own instead. A set without a validation
    split gets one from train, by `split_rows` (stratified by label, groups kept
    together).

    Args:
        name: a data set's name, or `module:function`.
        data_dir: folder of data sets; empty: `TFDS_DATA_DIR` or ~/tensorflow_datasets.
        val_fraction: part of train that becomes the validation split, where the set
            has none; 0: validation is empty, whatever the set has.
        seed: draws that part.
        boxes: the task uses boxes, so they are checked too (`check_boxes`).
        skip_bad_boxes: leave rows with a bad box out; `skipped` counts them, and the
            description says so.
        skip_groups: numbers in `groups` whose samples are left out of train and
            validation; the test split stays whole, so that results can be compared.
        samples: how many of the training split are used, the same ones whatever the
            seed, of each class its share, groups kept together; 0: all. A validation
            split that is made is part of them.
        repeat_rare: part of the training samples below which a class counts as rare;
            samples of such classes stand several times in train, and not in validation,
            see `dib_jax.data.rare.repeat_rare`; 0 for none.
        whiten: side of the patches of pictures that are whitened, see
            `dib_jax.data.pictures.whitened`; 0 for none.

    Raises:
        FileNotFoundError: there is no such set, at once and saying where it was looked
            for and what to do.
        ValueError: the data or an argument is not as it must be.
    """
    check_fraction(val_fraction)
    dataset, sources = _find(name, data_dir)
    num_classes = len(dataset.class_names) or None
    splits: dict[str, Any] = {key: getattr(dataset, key) or {} for key in SPLITS}
    present = [key for key, split in splits.items() if split]
    for key in present:
        splits[key] = dataset.kind.check(
            splits[key], source=sources[key], num_classes=num_classes
        )
    class_names = dataset.class_names or _numbers(splits, name)
    notes = [dataset.description] if dataset.description else []
    skipped = {}
    for key in present if boxes else ():
        whole = size(splits[key])
        splits[key] = check_boxes(
            splits[key], source=sources[key], skip_bad_boxes=skip_bad_boxes
        )
        if size(splits[key]) < whole:
            skipped[key] = whole - size(splits[key])
    if skipped:
        counts = ", ".join(f"{key} {count}" for key, count in skipped.items())
        notes.append(f"rows with bad boxes left out: {counts}")
    if skip_groups:
        training = {key: splits[key] for key in ("train", "validation")}
        splits |= without_groups(training, skip_groups, name=name)
        numbers = ", ".join(map(str, skip_groups))
        notes.append(f"groups left out of training: {numbers}")
    if samples:
        whole = size(splits["train"])
        splits["train"] = _part(splits["train"], samples, name=name)
        used = size(splits["train"])
        notes.append(f"{used} of {whole} training samples used")
    if whiten:
        dataset = dataset._replace(kind=whitened(dataset.kind, whiten))
    if lacking := lacking_classes(splits, class_names):
        notes.append(lacking)
    dataset = check_dataset(
        dataset._replace(
            name=name,
            class_names=class_names,
            description="; ".join(notes),
            skipped=sum(skipped.values()),
            **splits,
        )
    )
    if not (val_fraction and size(dataset.validation)):
        train = dataset.train
        rest, held = split_rows(
            train["labels"], train.get("groups"), fraction=val_fraction, seed=seed
        )
        left = take(train, rest) if len(held) else train
        dataset = dataset._replace(train=left, validation=take(train, held))
    return _with_rare_repeated(dataset, repeat_rare, seed) if repeat_rare else dataset


def _with_rare_repeated(dataset: Dataset, share: float, seed: int) -> Dataset:
    train = repeated(dataset.train, share, seed=seed)
    note = f"rare classes repeated: {size(dataset.train)} training samples count as"
    notes = [dataset.description, f"{note} {size(train)}"]
    return dataset._replace(train=train, description="; ".join(filter(None, notes)))


def _numbers(splits: dict[str, Split], name: str) -> tuple[str, ...]:
    """The numbers of the classes, where they have no names."""
    labels = sorted(set().union(*map(labels_in, splits.values())))
    if labels and labels[0] > 0:
        raise ValueError(
            f"data set {name!r}: its labels begin at {labels[0]}; count them from 0, "
            "or give class_names"
        )
    if void := none_label(map(str, labels)):
        raise ValueError(
            f"data set {name!r}: has classes 0 to {labels[-2]} and labels of {void}, "
            "which often means none; leave those out, or give class_names"
        )
    count = labels[-1] + 1 if labels else 0
    if count > 2 * len(labels) + 10:
        raise ValueError(
            f"data set {name!r}: labels go up to {count - 1}, and only {len(labels)} "
            "of these classes have a sample; number the classes from 0 without gaps, "
            "or give class_names"
        )
    return tuple(map(str, range(count)))


def _part(train: Split, samples: int, *, name: str) -> Split:
    """Some samples of a training split, always the same ones."""
    count = size(train)
    if not 0 < samples <= count:
        raise ValueError(
            f"samples: {samples} of the {count} training samples of {name!r}; use 1 to "
            f"{count}, or 0 for all"
        )
    if samples == count:
        return train
    share, groups = samples / count, train.get("groups")
    labels = train["labels"]
    try:
        _, rows = split_rows(labels, groups, fraction=share, seed=0)
    except ValueError:
        raise ValueError(
            f"samples: {samples} of {name!r} are less than half of its smallest group"
        ) from None
    if share > 0.5:
        # Of a class of one group none is held out, and here most of it is wanted.
        lost = np.setdiff1d(labels, labels[rows])
        rows = np.union1d(rows, np.flatnonzero(np.isin(labels, lost)))
    return take(train, rows)


def kind_named(name: str) -> Kind:
    """A kind of sample of this package.

    Args:
        name: as of `Kind`.

    Raises:
        ValueError: there is none of that name.
    """
    for kind in (PICTURES, VECTORS):
        if kind.name == name:
            return kind
    if name == "nodes":
        raise ValueError(
            "nodes are nothing without their graph; its data set is needed"
        )
    raise ValueError(
        f"samples of the kind {name!r} are not of this package; their data set is "
        "needed"
    )


def known_names() -> tuple[str, ...]:
    """Names of the data sets that have a module in this package."""
    modules = [path for folder in __path__ for path in Path(folder).glob("*.py")]
    texts = {path.stem: path.read_text(encoding="utf-8") for path in modules}
    defined = r"(?m)^def {}\(data_dir\b"
    return tuple(
        name for name in sorted(texts) if re.search(defined.format(name), texts[name])
    )


def _find(name: str, data_dir: str) -> tuple[Dataset, dict[str, str]]:
    """The data set as it was found, and what to call its splits in messages."""
    sources = {split: f"data set {name!r}, {split} split" for split in SPLITS}
    if ":" in name:
        return _own(name, data_dir), sources
    folder = data_root(data_dir) / check_name(name)
    files = {split: folder / f"{split}.npz" for split in SPLITS}
    check_file_names(folder)
    if any(path.exists() for path in files.values()):
        return read_arrays(files, name), {key: str(path) for key, path in files.items()}
    if (graph := folder / "graph.npz").exists():
        return read_graph(graph, name), dict.fromkeys(SPLITS, str(graph))
    if (folder / f"ind.{name}.graph").exists():
        return read_planetoid(folder, name), dict.fromkeys(SPLITS, str(folder))
    if prepared := find_prepared(folder):
        sources = {split: f"{prepared}, {split} split" for split in SPLITS}
        return read_prepared(prepared, name), sources
    if name in known_names():
        module = importlib.import_module(f"dib_jax.data.{name}")
        return getattr(module, name)(data_dir), sources
    raise FileNotFoundError(_missing(name, data_dir, folder))


def _own(name: str, data_dir: str) -> Dataset:
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"data set {name!r} must be module:function of an importable module: "
            f"{error}"
        ) from error
    dataset = factory(data_dir)
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"data set {name!r} must return a dib_jax.data.Dataset, got "
            f"{type(dataset).__name__}"
        )
    return dataset


def check_name(name: str) -> str:
    """A data set's name, if it can be that of a folder.

    Raises:
        ValueError: it cannot.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError(
            f"a data set's name must be a plain folder name, got {name!r}; the folder "
            "it lies in is dataset.data_dir"
        )
    return name


def data_root(data_dir: str = "") -> Path:
    """The folder of data sets that `load` looks into.

    Args:
        data_dir: it; empty: `TFDS_DATA_DIR` or ~/tensorflow_datasets.
    """
    place = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(place).expanduser()


def _missing(name: str, data_dir: str, folder: Path) -> str:
    names = {*known_names(), *downloadable()}
    if folder.parent.is_dir():
        for file in ("train.npz", "graph.npz"):
            names |= {path.parent.name for path in folder.parent.glob(f"*/{file}")}
    near = difflib.get_close_matches(name, sorted(names), n=1)
    guess = f" Did you mean {near[0]!r}?" if near and near[0] != name else ""
    embedded = ", ".join(known_names())
    command = f"python -m experiments.prepare {name} --data_dir={folder.parent}"
    download = f"run `{command}`, or " if is_downloadable(name) else ""
    place = "" if data_dir else ", since dataset.data_dir is empty,"
    return (
        f"data set {name!r} was not found: it is not embedded ({embedded} is), and "
        f"{folder}{place} holds neither array files (train.npz, test.npz), a graph "
        f"(graph.npz), nor a version that TFDS prepared.{guess} Known names: "
        f"{', '.join(sorted(names))}. "
        f"To use it, {download}make it of a folder of pictures by `python -m "
        f"experiments.prepare {name} --source=FOLDER`, or write DIR/{name}/train.npz "
        "and test.npz, each with images uint8 (n, h, w, c) and labels (n,), or prepare "
        f"it with TFDS as array_record in DIR/{name}, and set dataset.data_dir=DIR, or "
        "TFDS_DATA_DIR=DIR in the environment."
    )
