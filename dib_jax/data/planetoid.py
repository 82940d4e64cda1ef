"""Planetoid's files `ind.<name>.*`: Cora, Citeseer, Pubmed as their authors gave them.

Seven of them are pickles of Python 2. Nothing in them is executed: the reader knows the
few constructors that NumPy arrays, sparse matrices and lists are made of, and refuses a
file that asks for any other.
"""

import io
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from dib_jax.data.dataset import Dataset
from dib_jax.data.graphs import dataset_of
from dib_jax.data.messages import one_line

_VALIDATION = 500


class _Sparse:
    """What is read of a SciPy matrix: its attributes."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Array:
    """A NumPy array in the making; `made` is the array, whose numbers are copied."""

    made: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, str):
            content = content.encode("latin1")
        if not isinstance(content, bytes):
            raise pickle.UnpicklingError("it holds an array of Python objects")
        flat = np.frombuffer(content, dtype.made)
        self.made = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


class _Type:
    """A NumPy type in the making: numbers alone."""

    def __init__(self, name: str, *_: Any) -> None:
        self.made = np.dtype(name if name[:1] in "biuf" else "V")
        if self.made.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds values of the type {name!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.made = self.made.newbyteorder(state[1])


def _array(*_: Any) -> _Array:
    return _Array()


def _table(*_: Any) -> dict[Any, Any]:
    return {}


_KNOWN = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("collections", "defaultdict"): _table,
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): _array
        for core in ("core", "_core")
    },
    **{(f"scipy.sparse.{name}", "csr_matrix"): _Sparse for name in ("csr", "_csr")},
    # How protocol 2 of Python 3 writes bytes, and objects of its own.
    ("_codecs", "encode"): lambda text, *_: text.encode("latin1"),
    ("copy_reg", "_reconstructor"): lambda cls, *_: cls(),
    ("copyreg", "_reconstructor"): lambda cls, *_: cls(),
    ("__builtin__", "object"): object,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A constructor that is harmless, in the place of the one of that name."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _KNOWN[module, name]


def read_planetoid(folder: Path, name: str) -> Dataset:
    """The public split: 20 training nodes of each class, 500 and 1,000 others.

    Args:
        folder: holds ind.NAME.x, tx, allx, y, ty, ally, graph and test.index.
        name: the data set's name.

    Raises:
        ValueError: a file is damaged, or holds anything but arrays and lists.
        FileNotFoundError: one is missing.

    Source: Yang, Cohen & Salakhutdinov, arXiv 1603.08861, and their code.
    """
    x, tx, allx = (_rows(folder, name, key) for key in ("x", "tx", "allx"))
    y, ty, ally = (_dense(folder, name, key) for key in ("y", "ty", "ally"))
    neighbours = _read(folder / f"ind.{name}.graph")
    index = np.loadtxt(folder / f"ind.{name}.test.index", dtype=np.int64, ndmin=1)
    first, count = len(allx), max(len(neighbours), int(index.max()) + 1)
    # Citeseer's isolated nodes are in no file: without features, of unknown class.
    rows: list[Any] = [*allx, *[(np.zeros(0, np.int64), np.zeros(0))] * (count - first)]
    labels = np.full(count, -1)
    labels[:first] = np.where(ally.any(axis=1), ally.argmax(axis=1), -1)
    for place, row, one in zip(index, tx, ty, strict=True):
        rows[place], labels[place] = row, one.argmax() if one.any() else -1
    edges = [(a, b) for a, others in neighbours.items() for b in others]
    arrays = {
        "edges": np.asarray(edges, np.int64).reshape(-1, 2),
        "labels": labels,
        "feat_indptr": np.cumsum([0, *(len(columns) for columns, _ in rows)]),
        "feat_indices": np.concatenate([columns for columns, _ in rows]),
        "feat_values": np.concatenate([values for _, values in rows]),
        "n_features": _read(folder / f"ind.{name}.allx")._shape[1],
        "train": np.arange(len(x)),
        "val": np.arange(len(y), min(len(y) + _VALIDATION, first)),
        "test": np.sort(index[labels[index] >= 0]),
        "description": f"{name}, Planetoid's public split ({len(x)} labels)",
    }
    return dataset_of(arrays, name, source=str(folder))


def _read(path: Path) -> Any:
    try:
        return _Reader(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged pickle raises nearly any
        raise ValueError(
            f"{path}: cannot be read ({one_line(error)}); it must hold arrays of "
            "numbers and lists alone, as Planetoid's authors gave it"
        ) from error


def _rows(folder: Path, name: str, key: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Columns and values of each row of a sparse matrix."""
    found = _read(folder / f"ind.{name}.{key}")
    if not isinstance(found, _Sparse):
        raise ValueError(f"{folder / f'ind.{name}.{key}'}: not a sparse matrix")
    data, columns, starts = (
        found.__dict__[part].made for part in ("data", "indices", "indptr")
    )
    return [
        (columns[a:b].astype(np.int64), data[a:b])
        for a, b in itertools.pairwise(starts)
    ]


def _dense(folder: Path, name: str, key: str) -> np.ndarray:
    found = _read(folder / f"ind.{name}.{key}")
    if not isinstance(found, _Array):
        raise ValueError(f"{folder / f'ind.{name}.{key}'}: not an array")
    return found.made
