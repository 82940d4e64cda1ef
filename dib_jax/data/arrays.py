"""Array files: `<folder>/train.npz`, `test.npz` and optionally `validation.npz`."""

import difflib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dib_jax.data.dataset import SPLITS, Dataset
from dib_jax.data.kind import Split
from dib_jax.data.messages import blaming, one_line
from dib_jax.data.picture_folder import split_named

_ARRAYS = ("images", "labels", "boxes", "box_labels", "groups")
_NOTES = ("class_names", "description")


def read_arrays(files: dict[str, Path], name: str) -> Dataset:
    """The data set in array files; its arrays are as they were stored.

    A file holds `images` uint8 (n, h, w, c), `labels` int (n,), and optionally
    `boxes`, `box_labels`, `groups` (see `Dataset`), `class_names` and `description`.
    Other arrays are ignored.

    Args:
        files: path of `train`, `test` and, which need not be there, `validation`.
        name: the data set's name.

    Raises:
        FileNotFoundError: that of `train` or `test` is missing.
        ValueError: a file is not a sound .npz file, holds a pickled object, or its
            notes are not as above.
    """
    splits = {}
    for split, path in files.items():
        if path.exists():
            splits[split] = read_file(path, _ARRAYS + _NOTES)
        elif split != "validation":
            raise FileNotFoundError(
                f"data set {name!r} has no {split} split: {path} is missing; it holds "
                "images uint8 (n, h, w, c) and labels (n,)"
            )
    class_names: tuple[str, ...] = ()
    description = ""
    for split, arrays in splits.items():
        names = _class_names(arrays, files[split])
        if names and class_names and names != class_names:
            raise ValueError(
                f"{files[split]}: class_names are not those of {files['train']}"
            )
        class_names = class_names or names
        description = description or _description(arrays, files[split])
    validation = splits.get("validation", {})
    return Dataset(
        name, splits["train"], validation, splits["test"], class_names, description
    )


def check_file_names(folder: Path) -> None:
    """Refuse array files whose names are nearly those of a split.

    Args:
        folder: of the data set.

    Raises:
        ValueError: there is one, which would be left out without a word.
    """
    for path in sorted(folder.glob("*.npz")):
        split = split_named(path.stem)
        if split and path.stem not in SPLITS:
            raise ValueError(
                f"{path}: a file of this name is not read; rename it to {split}.npz, "
                "or move it away"
            )


def read_file(path: Path, names: Sequence[str]) -> Split:
    """The arrays of an .npz file, without executing what may be pickled in it.

    Args:
        path: of the file.
        names: those that are read; others are ignored, unless they look like one of
            these that is not there.

    Raises:
        ValueError: it is not a sound .npz file, or an array is pickled or misspelt.
    """
    arrays = {}
    # Opened here, since NumPy leaves a damaged file open.
    with open(path, "rb") as opened:
        if not zipfile.is_zipfile(opened):
            raise ValueError(f"{path}: not an .npz file, or cut off; write it again")
        with blaming(f"{path}: damaged", remedy="; write the file again"):
            opened.seek(0)
            file = np.load(opened, allow_pickle=False)
        for key in file.files:
            if key in names:
                arrays[key] = _read_array(file, key, path)
            else:
                _check_spelling(key, file.files, names, path)
    return arrays


def _read_array(file: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        array = file[key]
    except Exception as error:  # zipfile, zlib, NumPy and tokenize raise nearly any
        problem = f"cannot be read ({one_line(error)}); write the file again"
        if "allow_pickle" in str(error):
            problem = (
                "holds pickled Python objects, which are not read; save it as an array "
                "of numbers or strings"
            )
        raise ValueError(f"{path}: array {key!r} {problem}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: {key!r} is not a NumPy array; write the file again")
    return array


def _check_spelling(
    key: str, keys: list[str], names: Sequence[str], path: Path
) -> None:
    # A misspelt optional array would be left out without a word.
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
    if near and near[0] not in keys:
        raise ValueError(f"{path}: unknown array {key!r}; did you mean {near[0]!r}?")


def _class_names(arrays: Split, path: Path) -> tuple[str, ...]:
    names = arrays.get("class_names", None)
    if names is None:
        return ()
    if names.dtype.kind != "U" or names.ndim != 1 or not names.size:
        raise ValueError(
            f"{path}: class_names must be strings of shape (classes,), got "
            f"{names.dtype} {names.shape}"
        )
    return tuple(" ".join(str(name).split()) for name in names)


def _description(arrays: Split, path: Path) -> str:
    text = arrays.get("description", np.array(""))
    if text.dtype.kind != "U" or text.size != 1:
        raise ValueError(
            f"{path}: description must be one string, got {text.dtype} {text.shape}"
        )
    return " ".join(str(text.reshape(())).split())
