"""Pieces that algorithms on graphs share: a sample is a node, the edges are common.

`batch.inputs["nodes"]` has numbers of nodes, and `batch.common["graph"]` the graph:
`edges`, `features` of all nodes, `train`, which of them are training nodes, and
`rows(nodes)`, features of some. `batch.inputs["features"]` has what `enter` of a phase
has made of the nodes' features; so a step sees rows, and never the graph.
"""

import functools
import tempfile
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array

from dib_jax.algorithms import Batch, Data, Parts
from dib_jax.models.graph import RULES, Attention, Convolution, Neighbours, applied
from dib_jax.models.options import check_one_of

Variables = dict[str, Any]
# Of joined features of some nodes, what is made in memory at a time; more goes through
# a file.
_CHUNK_BYTES = 2**26
# Sparse rows stay so up to this share of columns in the fullest one.
_COMPACT = 0.25


def check_stages(parts: Parts, *allowed: type[nn.Module], rule: str = "mean") -> None:
    """Refuse networks and rules that an algorithm on graphs cannot use.

    Args:
        parts: with the stages.
        *allowed: classes of stages; all of `models.graph` where there are none.
        rule: how neighbours are joined.

    Raises:
        ValueError: a stage is of another class, there is no such rule, or the network
            is not to compute in float32.
    """
    check_one_of(RULES, rule=rule)
    if parts.compute_dtype != jnp.float32:
        raise ValueError(
            "precision.compute: algorithms on graphs compute in float32, got "
            f"{jnp.dtype(parts.compute_dtype).name}; set it to float32"
        )
    allowed = allowed or (Convolution, Attention)
    if not all(isinstance(stage, allowed) for stage in parts.stages):
        names = "gcn" if allowed == (Convolution,) else "gcn or gat"
        raise ValueError(
            f"model.name: this algorithm joins neighbours of a graph, which stages of "
            f"{type(parts.stages[0]).__name__} do not; use model.name={names}"
        )


def graph_of(batch: Batch) -> Any:
    """The graph whose nodes the samples are.

    Args:
        batch: of nodes.

    Raises:
        ValueError: the samples are no nodes.
    """
    try:
        return batch.common["graph"]
    except (KeyError, TypeError):
        raise ValueError(
            "algorithm.name: this algorithm is for nodes of a graph, and the samples "
            "of dataset.name are none; see docs/graphs.md for data sets that are"
        ) from None


def neighbours(graph: Any, rule: str, *, training: bool = False) -> Neighbours:
    """Who is whose neighbour.

    Args:
        graph: the graph.
        rule: how they are joined.
        training: whether only edges between training nodes count.
    """
    known = jnp.asarray(graph.train)[:, None].astype(jnp.float32) if training else None
    return Neighbours(graph.edges, rule, known)


def layers(
    stages: Sequence[nn.Module],
    variables: Sequence[Variables],
    graph: Any,
    near: Neighbours,
) -> list[jax.Array]:
    """What each of the first layers puts out for all nodes, (n, w) each.

    Args:
        stages: all of them, input side first.
        variables: of the first ones.
        graph: the graph.
        near: its neighbours.
    """
    made: list[jax.Array] = []
    x = graph.features
    for stage, entry in zip(stages, variables, strict=False):
        x = applied(stage, entry, x, neighbours=near)
        made.append(x)
    return made


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _last(
    stages: tuple[nn.Module, ...], variables: Any, graph: Any, rule: str, training: bool
) -> jax.Array:
    near = neighbours(graph, rule, training=training)
    return layers(stages, variables, graph, near)[-1]


def joined(
    data: Data,
    stages: Sequence[nn.Module],
    variables: Sequence[Variables],
    *,
    rule: str,
    inductive: bool = False,
    hops: int = 1,
) -> Data:
    """A split whose nodes have features joined with their neighbours', for one layer.

    The whole graph passes the layers below once; all that is kept is rows, those of
    sparse features as columns and values. `dense` makes arrays of them.

    Args:
        data: the split.
        stages: the layers below, frozen.
        variables: of these.
        rule: how neighbours are joined.
        inductive: whether in training only edges between training nodes count.
        hops: how often they are joined; 0 for the features as they are.
    """
    graph = data.common["graph"]
    nodes = np.asarray(data.samples["nodes"])
    training = inductive and bool(np.asarray(graph.train)[nodes].all())
    x = graph.features
    if isinstance(x, jax.Array):
        x = np.asarray(x)
    if stages:
        x = np.asarray(_last(tuple(stages), variables, graph, rule, training))
    made: Any = _joined_rows(graph, x, nodes, rule, training, hops)
    if not isinstance(made, np.ndarray):
        made = _compact(made)
    if not isinstance(made, np.memmap):  # what is too large stays where it is
        made = placed(made, data.samples["nodes"])
    return data.replace(samples={**data.samples, "features": made})


def placed(arrays: Any, like: Any) -> Any:
    """Arrays where others are: on the devices, or on the host.

    Args:
        arrays: pytree of them.
        like: an array that is there.
    """
    if not isinstance(like, jax.Array):
        return jax.tree.map(np.asarray, arrays)
    return jax.device_put(arrays, like.sharding)


def _joined_rows(
    graph: Any, x: Any, nodes: np.ndarray, rule: str, training: bool, hops: int
) -> Any:
    """Features joined `hops` times, of some nodes, (k, d): dense or sparse."""
    count = len(graph.train)
    operator = _operator(graph, rule, training) if hops else _identity(count)
    if hasattr(x, "transposed"):
        parts = (np.asarray(part) for part in (x.values, x.columns, x.starts))
        x = csr_array(tuple(parts), shape=x.shape)
    for _ in range(hops - 1):
        x = _times(operator, x)
    return _times(operator[nodes], x)


def _compact(rows: csr_array) -> Any:
    """Sparse rows as columns and values, padded to one length; dense where no smaller.

    Args:
        rows: (k, d).
    """
    counts = np.diff(rows.indptr)
    longest = int(counts.max(initial=1))
    if longest > _COMPACT * rows.shape[1]:
        return rows.toarray()
    columns = np.zeros((rows.shape[0], longest), np.int32)
    values = np.zeros(columns.shape, np.float32)
    filled = np.arange(longest) < counts[:, None]
    columns[filled], values[filled] = rows.indices, rows.data
    return columns, values


def dense(features: Any, width: int) -> jax.Array:
    """Features of a batch as `joined` has left them, (n, d) float32.

    Args:
        features: (n, d), or columns and values (n, k).
        width: d.
    """
    if not isinstance(features, tuple):
        return jnp.asarray(features)
    columns, values = features
    rows = jnp.arange(len(columns))[:, None]
    return jnp.zeros((len(columns), width), jnp.float32).at[rows, columns].add(values)


def _times(operator: csr_array, x: Any) -> Any:
    return _from_file(operator, x) if hasattr(x, "file") else operator @ x


def _identity(count: int) -> csr_array:
    number = np.arange(count + 1)
    return csr_array((np.ones(count, np.float32), number[:-1], number))


def _operator(graph: Any, rule: str, training: bool) -> csr_array:
    """The matrix (n, n) that joins neighbours, as of `Neighbours.join`."""
    starts, columns, values = (np.asarray(part) for part in graph.edges[:3])
    count = len(starts) - 1
    edges = csr_array((values, columns, starts), shape=(count, count))
    if training:
        known = np.asarray(graph.train, np.float32)
        edges = edges.multiply(known[:, None]).multiply(known[None]).tocsr()
    degree = 1 + edges.sum(axis=1)
    edges = edges + _identity(count)
    if rule == "symmetric":
        scale = 1 / np.sqrt(degree)
        edges = edges.multiply(scale[:, None]).multiply(scale[None])
    else:
        edges = edges.multiply(1 / degree[:, None])
    made = edges.tocsr() + _identity(count) if rule == "residual" else edges.tocsr()
    return made.astype(np.float32)


def _from_file(operator: csr_array, x: Any) -> np.ndarray:
    """A sparse matrix times features in a file, part by part, into a file."""
    count, width = operator.shape[0], x.shape[1]
    step = max(1, _CHUNK_BYTES // (4 * width))
    with tempfile.NamedTemporaryFile() as file:
        # Gone from the disk with the last who reads it.
        made = np.memmap(file.name, np.float32, "w+", shape=(count, width))
    for first in range(0, count, step):
        part = operator[first : first + step]
        needed, places = np.unique(part.indices, return_inverse=True)
        small = csr_array(
            (part.data, places, part.indptr), shape=(part.shape[0], len(needed))
        )
        for column in range(0, len(needed), step):
            some = slice(column, column + step)
            made[first : first + step] += small[:, some] @ x.rows(needed[some])
    return made


# The whole graph as a sample, and parts of it that are drawn --------------------------


def as_one_sample(network: Any, data: Data) -> Data:
    """A split that is one sample, all its nodes: an epoch is one step.

    Args:
        network: of no consequence.
        data: the split.
    """
    del network
    return data.replace(samples=jax.tree.map(lambda x: x[None], data.samples))


def without_sample_axis(batch: Batch) -> Batch:
    """The nodes of the only sample of a batch.

    Args:
        batch: of a split that is one sample.
    """
    inputs, targets = jax.tree.map(lambda x: x[0], (batch.inputs, batch.targets))
    return batch._replace(inputs=inputs, targets=targets)


class Sampled:
    """For one layer, some nodes and neighbours that were drawn for each.

    Attributes:
        all: int (n (1 + k),): the n nodes, then k neighbours of the first, and so on.
        degree: float32 (n (1 + k), 1), neighbours of each, itself among them.
        count: n.
        rule: how they are joined.
        picks: whether features come of all nodes of the graph, not of `all`.
    """

    def __init__(
        self, all: jax.Array, degree: jax.Array, count: int, rule: str, picks: bool
    ) -> None:
        self.all, self.degree, self.count = all, degree, count
        self.rule, self.picks = rule, picks

    def own(self, x: jax.Array) -> jax.Array:
        """Of features, those of the n nodes."""
        return x[self.all[: self.count]] if self.picks else x[: self.count]

    def join(self, x: jax.Array) -> jax.Array:
        """As of `Neighbours`, the mean of those that were drawn for that of all."""
        x = x[self.all] if self.picks else x
        if self.rule == "symmetric":
            x = x / jnp.sqrt(self.degree)
        own, degree = x[: self.count], self.degree[: self.count]
        drawn = x[self.count :].reshape(self.count, -1, x.shape[1]).mean(axis=1)
        total = (degree - 1) * drawn + own
        if self.rule == "symmetric":
            return total / jnp.sqrt(degree)
        return total / degree + own if self.rule == "residual" else total / degree


def sampled(
    graph: Any,
    near: Neighbours,
    nodes: jax.Array,
    fanout: int,
    depth: int,
    key: jax.Array,
) -> tuple[Any, list[Sampled]]:
    """Neighbours of neighbours, drawn with replacement.

    Args:
        graph: the graph.
        near: all neighbours.
        nodes: int (n,), what the last layer is wanted for.
        fanout: neighbours of each.
        depth: layers.
        key: PRNG key.

    Returns:
        The first layer's input, and for each layer, input side first, who is joined
        with whom. Sparse features are those of all nodes, which the first layer's
        weights make small before nodes are picked.
    """
    starts, columns = map(jnp.asarray, near.edges[:2])
    known = None if near.known is None else near.known[:, 0]
    sparse = hasattr(graph.features, "transposed")
    degrees = near.degree()
    trees: list[Sampled] = []
    for level in range(depth):
        first, last = starts[nodes], starts[nodes + 1]
        share = jax.random.uniform(jax.random.fold_in(key, level), (len(nodes), fanout))
        place = first[:, None] + (share * (last - first)[:, None]).astype(jnp.int32)
        place = jnp.minimum(place, jnp.maximum(last - 1, 0)[:, None])
        drawn, alone = columns[place], (last == first)[:, None]
        if known is not None:
            alone = alone | (known[drawn] == 0)
        # In the place of one that must not count stands the node itself.
        drawn = jnp.where(alone, nodes[:, None], drawn)
        every = jnp.concatenate([nodes, drawn.reshape(-1)])
        picks = sparse and level == depth - 1
        trees.append(Sampled(every, degrees[every], len(nodes), near.rule, picks))
        nodes = every
    return graph.features if sparse else graph.rows(nodes), trees[::-1]
