"""Graphs: a sample is a node, and what all samples share is the graph.

`<data_dir>/<name>/graph.npz` holds `edges` int (m, 2), `labels` int (n,), rows of the
splits, and the features: dense `features` float (n, d), binary ones by their places, or
none where `features.npy` beside it holds them, which is read through a memory map.
A split has `nodes` and `labels`; a network gets the nodes' numbers and the graph.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dib_jax.data.arrays import read_file
from dib_jax.data.dataset import SPLITS, Dataset
from dib_jax.data.kind import Augmentation, Kind, Split, check_labels, check_present

_CHUNK = 2**26  # bytes of a memory map that are looked at in one go
_ROWS = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
_FEATURES = ("features", "feat_indptr", "feat_indices", "feat_values", "n_features")
_NAMES = (
    "edges",
    "labels",
    *_ROWS,
    *_FEATURES,
    "directed",
    "class_names",
    "description",
)


class Matrix(NamedTuple):
    """A sparse matrix (n, d) and its transpose, each by rows.

    Row i has `values[starts[i]:starts[i + 1]]` in the columns of the same places.

    Attributes:
        starts: int32 (n + 1,).
        columns: int32, ascending within a row.
        values: float32.
        transposed: the same three arrays of the transpose, of d rows.
    """

    starts: Any
    columns: Any
    values: Any
    transposed: tuple[Any, Any, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.starts) - 1, len(self.transposed[0]) - 1


class Mapped:
    """Features in a file, of which as much is read as is asked for.

    Attributes:
        path: of a .npy file with numbers (n, d).
        shape: n, d.
        mean: float32 (d,), of each column, over the training nodes.
        deviation: float32 (d,).
    """

    def __init__(self, path: Path, mean: np.ndarray, deviation: np.ndarray) -> None:
        import jax

        if not _static:
            # A name, and no array: nothing of it goes to a device.
            jax.tree_util.register_static(Mapped)
            _static.append(True)
        self.path, self.mean, self.deviation = path, mean, deviation
        self.shape = self.file().shape

    def file(self) -> np.ndarray:
        """The memory map, as it was stored."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def rows(self, rows: np.ndarray | slice) -> np.ndarray:
        """Standardised features of some nodes, float32.

        Args:
            rows: numbers of the nodes, or a slice.
        """
        found = np.asarray(self.file()[rows], np.float32)
        return (found - self.mean) / self.deviation

    def times(self, kernel: Any) -> np.ndarray:
        """All features times a matrix (d, w), float32 (n, w), a part at a time.

        Args:
            kernel: the matrix.
        """
        kernel, file = np.asarray(kernel), self.file()
        made = np.empty((len(file), kernel.shape[1]), np.float32)
        step = _chunk(file)
        for first in range(0, len(file), step):
            part = slice(first, first + step)
            made[part] = self.rows(part) @ kernel
        return made

    def transposed_times(self, values: Any) -> np.ndarray:
        """The transposed features times a matrix, float32 (d, w), a part at a time.

        Args:
            values: (n, w).
        """
        values, file = np.asarray(values), self.file()
        made = np.zeros((self.shape[1], values.shape[1]), np.float32)
        step = _chunk(file)
        for first in range(0, len(file), step):
            part = slice(first, first + step)
            made += self.rows(part).T @ values[part]
        return made

    def __eq__(self, other: object) -> bool:
        """Whether it is the same file."""
        return isinstance(other, Mapped) and self.path == other.path

    def __hash__(self) -> int:
        """Of the path."""
        return hash(self.path)


_static: list[bool] = []


class Graph(NamedTuple):
    """A graph of n nodes, as a pytree.

    Attributes:
        edges: (n, n) of ones: row i has a column for each node whose edge leads to i;
            no node is its own neighbour.
        features: float32 (n, d), a `Matrix` of that shape, or `Mapped`.
        train: bool (n,), which are training nodes.
    """

    edges: Matrix
    features: Any
    train: Any

    def rows(self, nodes: Any) -> Any:
        """The features of some nodes, (k, d) float32, also within a compiled program.

        Args:
            nodes: int (k,).
        """
        import jax
        import jax.numpy as jnp

        features, count = self.features, len(nodes)
        if isinstance(features, Mapped):
            shape = jax.ShapeDtypeStruct((count, features.shape[1]), jnp.float32)
            return jax.pure_callback(
                lambda rows: features.rows(np.asarray(rows)), shape, nodes
            )
        if not isinstance(features, Matrix):
            return jnp.asarray(features)[nodes]
        starts, rows, values = map(jnp.asarray, features.transposed)
        columns = jnp.searchsorted(starts, jnp.arange(len(rows)), side="right") - 1
        # Of the entries, those of other nodes are added up in a row of their own.
        place = jnp.full(features.shape[0], count).at[nodes].set(jnp.arange(count))
        found = jnp.zeros((count + 1, features.shape[1]), jnp.float32)
        return found.at[place[rows], columns].add(values)[place[nodes]]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """What a run writes down of it beside the weights: nothing, it is the data."""
        del copy
        return np.zeros(0, dtype)


def matrix(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]
) -> Matrix:
    """A sparse matrix of its entries; those of one place are added up.

    Args:
        rows: int (m,).
        columns: int (m,).
        values: numbers (m,).
        shape: of the matrix.
    """
    from scipy.sparse import coo_array

    made = coo_array((values.astype(np.float32), (rows, columns)), shape=shape).tocsr()

    def parts(one: Any) -> tuple[Any, Any, Any]:
        one.sort_indices()
        return (
            one.indptr.astype(np.int32),
            one.indices.astype(np.int32),
            one.data.astype(np.float32),
        )

    return Matrix(*parts(made), parts(made.T.tocsr()))


def nodes_of(graph: Graph) -> Kind:
    """The kind of sample that is a node of a graph.

    Args:
        graph: with all its nodes; which of them are for training is read off the split.
    """

    def common(train: Split) -> dict[str, Any]:
        is_train = np.zeros(len(graph.train), bool)
        is_train[train["nodes"]] = True
        features = graph.features
        if isinstance(features, Path):
            features = Mapped(features, *_moments(features, train["nodes"]))
        elif not isinstance(features, Matrix):
            known = features[train["nodes"]]
            deviation = known.std(axis=0, dtype=np.float64)
            deviation = np.where(deviation > 0, deviation, 1)
            mean = known.mean(axis=0, dtype=np.float64)
            features = (features - np.float32(mean)) / np.float32(deviation)
        return {"graph": graph._replace(features=features, train=is_train)}

    check = functools.partial(_check, count=len(graph.train))
    return Kind(
        "nodes", ("nodes", "features"), check, common, _prepare, _augment, _measured
    )


def _check(
    arrays: Split, *, source: str, num_classes: int | None = None, count: int
) -> Split:
    check_present(arrays, "nodes", "labels", source=source)
    nodes = arrays["nodes"]
    _check_nodes(nodes, count, f"{source}: nodes")
    labels = check_labels(
        arrays, len(nodes), "node", source=source, num_classes=num_classes
    )
    return {"nodes": nodes.astype(np.int32), **labels}


def _prepare(samples: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    # `features` are there once an algorithm has propagated them over the graph.
    del common
    return {name: samples[name] for name in ("nodes", "features") if name in samples}


def _measured(inputs: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    # Not what an algorithm has made of them.
    return common["graph"].rows(inputs["nodes"])


def _augment(text: str, class_names: tuple[str, ...]) -> Augmentation:
    raise ValueError(f"got {text!r}; nodes have no augmentation, set it to ''")


# Reading ------------------------------------------------------------------------------


def read_graph(path: Path, name: str) -> Dataset:
    """The data set in graph.npz.

    It holds `edges` int (m, 2), each undirected edge once or both ways, or from the
    first node to the second one where `directed` is true; `labels` int (n,), −1 for
    unknown; rows (or n booleans) of `train`, `test` and, which need not be there,
    `val`; the features as `features` (n, d), standardised by the training nodes; or
    as `feat_indptr` (n+1,), `feat_indices`, `n_features` and perhaps `feat_values`
    (else ones), each row divided by its sum; or in `features.npy` beside it, which
    may be larger than memory. Optionally `class_names`, `description`.

    Args:
        path: of graph.npz.
        name: the data set's name.

    Raises:
        ValueError: an array is missing or not as above; an edge leads to a node that is
            not there; a feature is not finite; splits overlap, hold a node of unknown
            class, or leave a class without training node.
    """
    arrays = read_file(path, _NAMES)
    return dataset_of(
        arrays, name, source=str(path), mapped=path.parent / "features.npy"
    )


def dataset_of(
    arrays: Mapping[str, Any], name: str, *, source: str, mapped: Path | None = None
) -> Dataset:
    """A data set of nodes from the arrays of a graph.npz, which need no file.

    Args:
        arrays: as `read_graph` describes them.
        name: the data set's name.
        source: where they come from, for messages.
        mapped: a .npy file with the features, where `arrays` has none.

    Raises:
        ValueError: as of `read_graph`.
    """
    check_present(arrays, "edges", "labels", "train", "test", source=source)
    labels = np.asarray(arrays["labels"])
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"{source}: labels must be integers (n,), −1 for unknown, got "
            f"{labels.dtype} {labels.shape}"
        )
    count, labels = len(labels), labels.astype(np.int64)
    directed = bool(np.any(arrays.get("directed", False)))
    edges = _edges(np.asarray(arrays["edges"]), count, directed, source)
    features = _features(arrays, count, mapped, source)
    rows = {
        split: _rows(np.asarray(arrays[key]), count, f"{source}: {key}")
        for key, split in _ROWS.items()
        if key in arrays
    }
    names = tuple(map(str, arrays.get("class_names", ()))) or tuple(
        map(str, range(int(labels.max()) + 1))
    )
    _check_splits(rows, labels, len(names), source)
    graph = Graph(edges, features, np.zeros(count, bool))
    splits: dict[str, Any] = {
        split: {"nodes": rows[split], "labels": labels[rows[split]]}
        if split in rows
        else {}
        for split in SPLITS
    }
    description = " ".join(str(arrays.get("description", "")).split())
    return Dataset(
        name, **splits, class_names=names, description=description, kind=nodes_of(graph)
    )


def _edges(edges: np.ndarray, count: int, directed: bool, source: str) -> Matrix:
    if edges.dtype.kind not in "iu" or edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(
            f"{source}: edges must be integers (m, 2), got {edges.dtype} "
            f"{edges.shape}; an edge_index (2, m) is the transpose"
        )
    _check_nodes(edges, count, f"{source}: edges")
    ends = edges[edges[:, 0] != edges[:, 1]].astype(np.int64)
    # Each edge counts once; sorted, they are the rows of a matrix.
    incoming = _by_rows(ends[:, 1], ends[:, 0], count, both=not directed)
    outgoing = _by_rows(ends[:, 0], ends[:, 1], count) if directed else incoming
    return Matrix(*incoming, outgoing)


def _by_rows(
    rows: np.ndarray, columns: np.ndarray, count: int, *, both: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A square matrix of ones at some places, and perhaps at their mirror images."""
    codes = rows * count + columns
    if both:
        codes = np.concatenate([codes, columns * count + rows])
    codes = np.unique(codes)
    starts = np.zeros(count + 1, np.int32)
    np.cumsum(np.bincount(codes // count, minlength=count), out=starts[1:])
    return starts, (codes % count).astype(np.int32), np.ones(len(codes), np.float32)


def _features(
    arrays: Mapping[str, Any], count: int, mapped: Path | None, source: str
) -> Any:
    if "features" in arrays:
        features = np.asarray(arrays["features"])
        _check_dense(features, count, source)
        return features.astype(np.float32, copy=False)
    if "feat_indptr" in arrays:
        return _sparse(arrays, count, source)
    if mapped is None or not mapped.is_file():
        raise ValueError(
            f"{source}: no features; it needs `features` (n, d), or `feat_indptr`, "
            "`feat_indices` and `n_features`, or a file features.npy beside it"
        )
    file = np.load(mapped, mmap_mode="r", allow_pickle=False)
    _check_dense(file, count, str(mapped))
    return mapped


def _check_dense(features: np.ndarray, count: int, source: str) -> None:
    shape = features.shape
    if features.dtype.kind not in "fiu" or len(shape) != 2 or shape[0] != count:
        raise ValueError(
            f"{source}: features must be numbers ({count}, d), one row per label, got "
            f"{features.dtype} {shape}"
        )
    for first in range(0, count, _chunk(features)):
        # As float32, which is what they become.
        finite = _is_finite(features[first : first + _chunk(features)]).all(axis=1)
        if not finite.all():
            row = first + int(np.argmin(finite))
            column = int(np.argmin(_is_finite(features[row])))
            raise ValueError(
                f"{source}: features must be finite float32, node {row} holds "
                f"{features[row, column]} in column {column}"
            )


def _is_finite(features: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.isfinite(features.astype(np.float32, copy=False))


def _chunk(features: np.ndarray) -> int:
    return max(1, _CHUNK // max(1, features[0].nbytes))


def _moments(path: Path, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column of a file over some rows, a part at a time."""
    file, rows = np.load(path, mmap_mode="r"), np.sort(rows)
    step = _chunk(file)

    def mean_of(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        parts = (
            np.asarray(file[rows[first : first + step]], np.float64)
            for first in range(0, len(rows), step)
        )
        return sum(function(part).sum(axis=0) for part in parts) / len(rows)

    mean = mean_of(lambda part: part)
    # Not from the mean square: of a constant column rounding would stay.
    deviation = np.sqrt(mean_of(lambda part: (part - mean) ** 2))
    deviation[deviation <= np.finfo(np.float32).eps * np.abs(mean)] = 1
    return mean.astype(np.float32), deviation.astype(np.float32)


def _sparse(arrays: Mapping[str, Any], count: int, source: str) -> Matrix:
    check_present(arrays, "feat_indices", "n_features", source=source)
    starts = np.asarray(arrays["feat_indptr"]).astype(np.int64)
    columns = np.asarray(arrays["feat_indices"]).astype(np.int64)
    width = int(arrays["n_features"])
    if starts.shape != (count + 1,) or starts[0] or starts[-1] != len(columns):
        raise ValueError(
            f"{source}: feat_indptr must have shape ({count + 1},) and go from 0 to "
            f"the {len(columns)} feat_indices, got {starts.shape}, {starts[:1]} to "
            f"{starts[-1:]}"
        )
    if (np.diff(starts) < 0).any():
        raise ValueError(f"{source}: feat_indptr must not fall")
    bad = (columns < 0) | (columns >= width)
    if bad.any():
        raise ValueError(
            f"{source}: feat_indices must be 0..{width - 1}, got "
            f"{columns[np.argmax(bad)]}; {int(bad.sum())} bad"
        )
    values = np.asarray(arrays.get("feat_values", np.ones(len(columns))), np.float64)
    if values.shape != columns.shape or not np.isfinite(values).all():
        raise ValueError(
            f"{source}: feat_values must be finite and as many as feat_indices, got "
            f"shape {values.shape} with {int((~np.isfinite(values)).sum())} not finite"
        )
    rows = np.repeat(np.arange(count), np.diff(starts))
    sums = np.bincount(rows, np.abs(values), minlength=count)
    values = values / np.where(sums > 0, sums, 1)[rows]
    return matrix(rows, columns, values, (count, width))


def _check_nodes(nodes: np.ndarray, count: int, what: str) -> None:
    bad = (nodes < 0) | (nodes >= count)
    if bad.any():
        row = int(np.argmax(bad.reshape(len(nodes), -1).any(axis=1)))
        raise ValueError(
            f"{what} must lead to nodes 0..{count - 1}, row {row} holds "
            f"{nodes[row].tolist()}; {int(bad.sum())} bad number(s)"
        )


def _rows(rows: np.ndarray, count: int, what: str) -> np.ndarray:
    """Rows of a split, given as such or as a mask."""
    if rows.dtype == bool and rows.shape == (count,):
        return np.flatnonzero(rows)
    if rows.dtype.kind not in "iu" or rows.ndim != 1:
        raise ValueError(
            f"{what} must be rows, integers (k,), or {count} booleans, got "
            f"{rows.dtype} {rows.shape}"
        )
    _check_nodes(rows, count, what)
    numbers, times = np.unique(rows, return_counts=True)
    if (times > 1).any():
        raise ValueError(f"{what} holds node {numbers[np.argmax(times > 1)]} twice")
    return rows.astype(np.int64)


def _check_splits(
    rows: Mapping[str, np.ndarray], labels: np.ndarray, classes: int, source: str
) -> None:
    owner: dict[int, str] = {}
    for split, nodes in rows.items():
        for node in nodes.tolist():
            if owner.setdefault(node, split) != split:
                raise ValueError(
                    f"{source}: node {node} lies in {owner[node]} and in {split}; the "
                    "splits must not overlap"
                )
        unknown = labels[nodes] < 0
        if unknown.any():
            raise ValueError(
                f"{source}: node {nodes[np.argmax(unknown)]} of {split} has the label "
                f"{labels[nodes][unknown][0]}, unknown; leave the {int(unknown.sum())} "
                "such nodes out of the splits"
            )
    missing = np.setdiff1d(np.arange(classes), labels[rows["train"]])
    if len(missing):
        raise ValueError(
            f"{source}: class {missing[0]} has no training node; each of the {classes} "
            "classes needs one"
        )
