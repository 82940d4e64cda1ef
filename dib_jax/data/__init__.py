"""Data sets as arrays: array files, sets with a module of their own here, and TFDS.

`load(name)` is the one way in. A new data set is one new file `<name>.py` beside this
one, with a function `<name>(data_dir: str) -> Dataset` that leaves `validation` empty
or fills it.
"""

import difflib
import importlib
import os
import pkgutil
from pathlib import Path

from dib_jax.data.arrays import read_arrays
from dib_jax.data.dataset import Dataset, Split, check_boxes, check_dataset, check_split
from dib_jax.data.split import split_rows

__all__ = ["Dataset", "check_boxes", "known_names", "load"]

# The modules here that are not data sets.
_MACHINERY = frozenset({"arrays", "augment", "dataset", "split"})
# Sets that others prepare with TFDS under these names.
_TFDS_NAMES = ("cifar10", "cifar100", "fashion_mnist", "gtsrb", "mnist", "svhn_cropped")
_SPLITS = ("train", "validation", "test")


def load(
    name: str,
    *,
    data_dir: str = "",
    val_fraction: float = 0.1,
    seed: int = 0,
    boxes: bool = False,
    skip_bad_boxes: bool = False,
) -> Dataset:
    """A data set by name, checked, with a validation split.

    Looked for in this order: array files `<data_dir>/<name>/train.npz`; a data set of
    this package, or `module:function` of one's own. A set without a validation split
    gets one from train, by `split_rows` (stratified by label, groups kept together).

    Args:
        name: a data set's name, or `module:function`.
        data_dir: folder of data sets; empty: `TFDS_DATA_DIR` or ~/tensorflow_datasets.
        val_fraction: part of train that becomes the validation split, where the set
            has none; 0: validation is empty, whatever the set has.
        seed: draws that part.
        boxes: the task uses boxes, so they are checked too (`check_boxes`).
        skip_bad_boxes: leave rows with a bad box out; `skipped` counts them, and the
            description says so.

    Raises:
        FileNotFoundError: there is no such set, at once and saying where it was looked
            for and what to do.
        ValueError: the data or an argument is not as it must be.
    """
    dataset = _find(name, data_dir)
    splits: dict[str, Split] = {}
    skipped: dict[str, int] = {}
    for key in _SPLITS:
        arrays = getattr(dataset, key)
        if not arrays:
            splits[key] = {}
            continue
        source = _source(name, key, data_dir)
        split = check_split(arrays, source=source, num_classes=len(dataset.class_names))
        if boxes:
            split = check_boxes(split, source=source, skip_bad_boxes=skip_bad_boxes)
        skipped[key] = len(arrays["labels"]) - len(split["labels"])
        splits[key] = split
    if any(skipped.values()):
        parts = ", ".join(f"{key} {count}" for key, count in skipped.items() if count)
        note = f"rows with bad boxes left out: {parts}"
        described = f"{dataset.description}; {note}" if dataset.description else note
        dataset = dataset._replace(description=described, skipped=sum(skipped.values()))
    dataset = check_dataset(
        dataset._replace(
            name=name,
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
        )
    )

    train = dataset.train
    kept, held = split_rows(
        train["labels"],
        train.get("groups"),
        fraction=0 if dataset.validation and val_fraction else val_fraction,
        seed=seed,
    )
    if val_fraction == 0 or not dataset.validation:
        validation = {key: value[held] for key, value in train.items()}
        if len(held):
            train = {key: value[kept] for key, value in train.items()}
        dataset = dataset._replace(train=train, validation=validation)
    return dataset


def known_names() -> tuple[str, ...]:
    """Names of the data sets that have a module in this package."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(set(modules) - _MACHINERY))


def _find(name: str, data_dir: str) -> Dataset:
    if ":" in name:
        return _own(name, data_dir)
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError(
            f"a data set's name must be a plain folder name, got {name!r}; the folder "
            "it lies in is dataset.data_dir"
        )
    folder = _root(data_dir) / name
    if any((folder / f"{split}.npz").exists() for split in _SPLITS):
        return read_arrays(folder, name)
    if name in known_names():
        module = importlib.import_module(f"dib_jax.data.{name}")
        return getattr(module, name)(data_dir)
    raise FileNotFoundError(_missing(name, data_dir, folder))


def _own(name: str, data_dir: str) -> Dataset:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)(data_dir)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"data set {name!r} must be module:function of an importable module: "
            f"{error}"
        ) from error


def _root(data_dir: str) -> Path:
    place = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(place).expanduser()


def _source(name: str, split: str, data_dir: str) -> str:
    path = _root(data_dir) / name / f"{split}.npz"
    return str(path) if ":" not in name and path.exists() else f"{name}, {split} split"


def _missing(name: str, data_dir: str, folder: Path) -> str:
    names = set(known_names()) | set(_TFDS_NAMES)
    if folder.parent.is_dir():
        names |= {path.parent.name for path in folder.parent.glob("*/train.npz")}
    near = difflib.get_close_matches(name, sorted(names), n=1)
    guess = f" Did you mean {near[0]!r}?" if near and near[0] != name else ""
    place = "" if data_dir else " (dataset.data_dir is empty)"
    return (
        f"data set {name!r} was not found: no array files {folder / 'train.npz'}"
        f"{place}, and it is none of the embedded sets ({', '.join(known_names())})."
        f"{guess} Known names: {', '.join(sorted(names))}. To use it, put train.npz and "
        f"test.npz (images uint8 (n, h, w, c), labels (n,)) into DIR/{name}/ and set "
        "dataset.data_dir=DIR."
    )
