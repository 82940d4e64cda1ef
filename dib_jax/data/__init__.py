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

from dib_jax.data.arrays import read_arrays
from dib_jax.data.dataset import Dataset, check_dataset, check_groups, without_groups
from dib_jax.data.kind import Kind, Split, size
from dib_jax.data.pictures import PICTURES, check_boxes
from dib_jax.data.preparation import downloadable, is_downloadable
from dib_jax.data.prepared import find_prepared, read_prepared
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

_TRAINING = ("train", "validation")
_SPLITS = (*_TRAINING, "test")


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
) -> Dataset:
    """A data set by name, checked, with a validation split.

    Looked for in this order: array files `<data_dir>/<name>/train.npz`; a version in
    `<data_dir>/<name>/` that TFDS prepared as array_record; a data set of this package.
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

    Raises:
        FileNotFoundError: there is no such set, at once and saying where it was looked
            for and what to do.
        ValueError: the data or an argument is not as it must be.
    """
    check_fraction(val_fraction)
    dataset, sources = _find(name, data_dir)
    splits: dict[str, Split] = {}
    skipped: dict[str, int] = {}
    for key in _SPLITS:
        arrays = getattr(dataset, key)
        if arrays:
            classes = len(dataset.class_names)
            split = dataset.kind.check(arrays, source=sources[key], num_classes=classes)
            if boxes:
                split = check_boxes(
                    split, source=sources[key], skip_bad_boxes=skip_bad_boxes
                )
            if count := size(arrays) - size(split):
                skipped[key] = count
        splits[key] = split if arrays else {}
    check_groups([splits[key] for key in _TRAINING], skip_groups, name=name)
    for key in _TRAINING:
        splits[key] = without_groups(splits[key], skip_groups)
    whole = size(splits["train"])
    splits["train"] = _part(splits["train"], samples, name=name)
    notes = [dataset.description] if dataset.description else []
    if skipped:
        counts = ", ".join(f"{key} {count}" for key, count in skipped.items())
        notes.append(f"rows with bad boxes left out: {counts}")
    if skip_groups:
        numbers = ", ".join(map(str, skip_groups))
        notes.append(f"groups left out of training: {numbers}")
    if samples:
        used = size(splits["train"])
        notes.append(f"{used} of {whole} training samples used")
    dataset = check_dataset(
        dataset._replace(
            name=name,
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            description="; ".join(notes),
            skipped=sum(skipped.values()),
        )
    )
    train, validation = dataset.train, dataset.validation
    if val_fraction and size(validation):
        return dataset
    labels, groups = train["labels"], train.get("groups")
    rest, held = split_rows(labels, groups, fraction=val_fraction, seed=seed)
    validation = {key: value[held] for key, value in train.items()}
    if len(held):
        train = {key: value[rest] for key, value in train.items()}
    return dataset._replace(train=train, validation=validation)


def _part(train: Split, samples: int, *, name: str) -> Split:
    """Some samples of a training split, always the same ones."""
    if not samples:
        return train
    count = size(train)
    if not 0 < samples <= count:
        raise ValueError(
            f"samples: {samples} of the {count} training samples of {name!r}; use 1 to "
            f"{count}, or 0 for all"
        )
    if samples == count:
        return train
    try:
        _, rows = split_rows(
            train["labels"], train.get("groups"), fraction=samples / count, seed=0
        )
    except ValueError:
        raise ValueError(
            f"samples: {samples} of {name!r} are less than half of its smallest group"
        ) from None
    return {key: value[rows] for key, value in train.items()}


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
    raise ValueError(
        f"samples of the kind {name!r} are not of this package; their data set is "
        "needed"
    )


def known_names() -> tuple[str, ...]:
    """Names of the data sets that have a module in this package."""
    return tuple(
        sorted(
            path.stem
            for folder in __path__
            for path in Path(folder).glob("*.py")
            if re.search(
                rf"^def {path.stem}\(data_dir\b",
                path.read_text(encoding="utf-8"),
                re.MULTILINE,
            )
        )
    )


def _find(name: str, data_dir: str) -> tuple[Dataset, dict[str, str]]:
    """The data set as it was found, and what to call its splits in messages."""
    sources = {split: f"data set {name!r}, {split} split" for split in _SPLITS}
    if ":" in name:
        return _own(name, data_dir), sources
    folder = data_root(data_dir) / check_name(name)
    files = {split: folder / f"{split}.npz" for split in _SPLITS}
    if any(path.exists() for path in files.values()):
        sources = {split: str(path) for split, path in files.items()}
        return read_arrays(folder, name), sources
    prepared = find_prepared(folder)
    if prepared is not None:
        sources = {split: f"{prepared}, {split} split" for split in _SPLITS}
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
        names |= {path.parent.name for path in folder.parent.glob("*/train.npz")}
    near = difflib.get_close_matches(name, sorted(names), n=1)
    guess = f" Did you mean {near[0]!r}?" if near and near[0] != name else ""
    embedded = ", ".join(known_names())
    command = f"python -m experiments.prepare {name} --data_dir={folder.parent}"
    download = f"run `{command}`, or " if is_downloadable(name) else ""
    place = "" if data_dir else ", since dataset.data_dir is empty,"
    return (
        f"data set {name!r} was not found: it is not embedded ({embedded} is), and "
        f"{folder}{place} holds neither array files (train.npz, test.npz) nor a "
        f"version that TFDS prepared.{guess} Known names: {', '.join(sorted(names))}. "
        f"To use it, {download}write DIR/{name}/train.npz and test.npz, each with "
        "images uint8 (n, h, w, c) and labels (n,), or prepare it with TFDS as "
        f"array_record in DIR/{name}, and set dataset.data_dir=DIR."
    )
