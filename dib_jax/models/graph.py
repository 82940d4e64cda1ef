"""Layers of graph networks, and the products with sparse matrices they are made of.

A sparse matrix has `starts`, `columns`, `values` by rows and `transposed`, the same
three of its transpose. On a CPU its product is a loop over rows (JAX's BCSR: 4 ms for
342,000 edges and 64 channels on one core), elsewhere a row for each edge and a sum over
segments, which on a CPU takes 16 times as long and 64 times the memory. The gradient is
the product with the transpose.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import sparse

from dib_jax.models.options import check_at_least, check_layer_widths, check_one_of

# How a node's features are joined with its neighbours', D being the degree with itself.
RULES = {
    "residual": "D⁻¹ (A + I) + I",
    "symmetric": "D^(−1/2) (A + I) D^(−1/2)",
    "mean": "D⁻¹ (A + I)",
}
ACTIVATIONS = {"relu": nn.relu, "elu": nn.elu, "none": lambda x: x}


def product(matrix: Any, x: jax.Array) -> jax.Array:
    """A sparse matrix (n, d) times a dense one (d, w), float32 (n, w).

    Args:
        matrix: with its transpose; no gradient reaches it.
        x: (d, w).
    """
    parts = (matrix.starts, matrix.columns, matrix.values)
    return _product((parts, tuple(matrix.transposed)), x.astype(jnp.float32))


@jax.custom_vjp
def _product(both: Any, x: jax.Array) -> jax.Array:
    starts, columns, values = map(jnp.asarray, both[0])
    count = len(starts) - 1

    def by_rows(x: jax.Array) -> jax.Array:
        return sparse.BCSR((values, columns, starts), shape=(count, len(x))) @ x

    def by_segments(x: jax.Array) -> jax.Array:
        rows = jnp.repeat(
            jnp.arange(count), jnp.diff(starts), total_repeat_length=len(columns)
        )
        return jax.ops.segment_sum(
            values[:, None] * x[columns], rows, count, indices_are_sorted=True
        )

    if _segments:
        return by_segments(x)
    return jax.lax.platform_dependent(x, cpu=by_rows, default=by_segments)


@contextlib.contextmanager
def sums_over_segments() -> Iterator[None]:
    """Have programs that are traced meanwhile sum over segments on every platform."""
    _segments.append(True)
    try:
        yield
    finally:
        _segments.pop()


_segments: list[bool] = []


def _forward(both: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    return _product(both, x), both


def _backward(both: Any, gradient: jax.Array) -> tuple[None, jax.Array]:
    return None, _product(both[::-1], gradient)


_product.defvjp(_forward, _backward)


class Neighbours(NamedTuple):
    """Who is whose neighbour, and how their features are joined.

    Attributes:
        edges: sparse (n, n) of ones; row i has a column for each neighbour of i.
        rule: a name in `RULES`; static.
        known: float32 (n, 1), 1 for nodes whose edges count; None for all.
    """

    edges: Any
    rule: str
    known: jax.Array | None = None

    def total(self, x: jax.Array) -> jax.Array:
        """The sum of features (n, w) over each node's neighbours."""
        if self.known is None:
            return product(self.edges, x)
        return self.known * product(self.edges, self.known * x)

    def degree(self) -> jax.Array:
        """Neighbours of each node, and itself, float32 (n, 1)."""
        if self.known is not None:
            return 1 + self.total(self.known)
        return 1 + jnp.diff(jnp.asarray(self.edges.starts))[:, None].astype(jnp.float32)

    def own(self, x: jax.Array) -> jax.Array:
        """Features of the nodes for which `join` gives some: of all."""
        return x

    def join(self, x: jax.Array) -> jax.Array:
        """Features (n, w) of each node joined with its neighbours', by the rule."""
        degree = self.degree()
        if self.rule == "symmetric":
            x = x / jnp.sqrt(degree)
            return (self.total(x) + x) / jnp.sqrt(degree)
        mean = (self.total(x) + x) / degree
        return mean + x if self.rule == "residual" else mean

    def mean(self, x: jax.Array) -> jax.Array:
        """The mean over each node's neighbours without itself; 0 for none."""
        return self.total(x) / jnp.maximum(self.degree() - 1, 1)


def project(x: Any, kernel: jax.Array) -> jax.Array:
    """Features of nodes times a matrix of weights, (n, w).

    Args:
        x: (n, d), sparse, or in a file, which has `rows` and is read part by part.
        kernel: (d, w).
    """
    if hasattr(x, "transposed"):
        return product(x, kernel)
    if not hasattr(x, "rows"):
        return x @ kernel
    return _from_file(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _from_file(x: Any, kernel: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct((x.shape[0], kernel.shape[1]), jnp.float32)
    return jax.pure_callback(x.times, shape, kernel)


def _from_file_forward(x: Any, kernel: jax.Array) -> tuple[jax.Array, None]:
    return _from_file(x, kernel), None


def _from_file_backward(x: Any, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    shape = jax.ShapeDtypeStruct((x.shape[1], gradient.shape[1]), jnp.float32)
    return (jax.pure_callback(x.transposed_times, shape, gradient),)


_from_file.defvjp(_from_file_forward, _from_file_backward)


class Convolution(nn.Module):
    """Join with the neighbours, dense layer, activation: (n, d) → (n, width).

    With `neighbours` its input is the features of all nodes; without, of some nodes,
    that have been joined already.

    Attributes:
        width: number of outputs.
        activation: relu, elu or none.
        skip: whether the node's own features are added, by weights of their own.
        bias: whether a constant is added.
        identity: whether it starts near the identity, where it is as wide as its input.
    """

    width: int
    activation: str = "relu"
    skip: bool = False
    bias: bool = True
    identity: bool = False

    @nn.compact
    def __call__(self, x: Any, *, train: bool, neighbours: Any = None) -> jax.Array:
        """The features of the next layer.

        Args:
            x: of all nodes, or joined ones of some.
            train: whether it is trained; of no consequence.
            neighbours: `Neighbours`, or what joins as they do; None where x is joined.
        """
        del train
        joined, own = self._initializers(x.shape[1])
        shape = (x.shape[1], self.width)
        made = project(x, self.param("kernel", joined, shape))
        if neighbours is not None:
            made = neighbours.join(made)
        if self.bias:
            made += self.param("bias", nn.initializers.zeros, (self.width,))
        if self.skip:
            itself = project(x, self.param("skip", own, shape))
            made += itself if neighbours is None else neighbours.own(itself)
        return ACTIVATIONS[self.activation](made)

    def _initializers(self, width: int) -> tuple[Any, Any]:
        """Of the weights of the neighbours, and of those of the node's own features."""
        usual = nn.initializers.glorot_uniform()
        if not self.identity or width != self.width:
            return usual, usual
        # A hundredth of the variance is a tenth of the size.
        small = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
        return small, nn.initializers.constant(jnp.eye(width))


class Attention(nn.Module):
    """A mean over the neighbours that is weighted by attention: (n, d) → (n, width).

    Attributes:
        width: number of outputs, of all heads together.
        heads: weights of each neighbour, one for each part of the outputs.
        activation: relu, elu or none.
        skip: whether the node's own features are added, by weights of their own.

    Source: Veličković et al., Graph Attention Networks, arXiv 1710.10903, eq. 1 to 5.
    """

    width: int
    heads: int = 4
    activation: str = "elu"
    skip: bool = False

    @nn.compact
    def __call__(
        self, x: Any, *, train: bool, neighbours: Neighbours | None = None
    ) -> jax.Array:
        """The features of the next layer.

        Args:
            x: of all nodes.
            train: whether it is trained; of no consequence.
            neighbours: of all nodes; None for nodes that have none but themselves.
        """
        del train
        initializer, part = nn.initializers.glorot_uniform(), self.width // self.heads
        made = project(x, self.param("kernel", initializer, (x.shape[1], self.width)))
        made = made.reshape(-1, self.heads, part)
        to, since = (
            jnp.sum(made * self.param(name, initializer, (self.heads, part)), axis=2)
            for name in ("to", "from")
        )
        joined = made if neighbours is None else _attended(made, to, since, neighbours)
        joined = joined.reshape(-1, self.width)
        joined += self.param("bias", nn.initializers.zeros, (self.width,))
        if self.skip:
            kernel = self.param("skip", initializer, (x.shape[1], self.width))
            joined += project(x, kernel)
        return ACTIVATIONS[self.activation](joined)


def _attended(
    x: jax.Array, to: jax.Array, since: jax.Array, neighbours: Neighbours
) -> jax.Array:
    """Means of x (n, heads, w) over neighbours and the node itself, by softmax."""
    starts, senders = map(jnp.asarray, neighbours.edges[:2])
    count, own = len(x), jnp.arange(len(x))
    receivers = jnp.repeat(own, jnp.diff(starts), total_repeat_length=len(senders))
    senders, receivers = (jnp.concatenate([e, own]) for e in (senders, receivers))
    scores = nn.leaky_relu(to[receivers] + since[senders], 0.2)
    if neighbours.known is not None:
        known = neighbours.known[:, 0] > 0
        counts = (known[senders] & known[receivers]) | (senders == receivers)
        scores = jnp.where(counts[:, None], scores, -jnp.inf)
    highest = jax.ops.segment_max(jax.lax.stop_gradient(scores), receivers, count)
    weights = jnp.exp(scores - highest[receivers])
    total = jax.ops.segment_sum(weights, receivers, count)
    sums = jax.ops.segment_sum(weights[..., None] * x[senders], receivers, count)
    return sums / total[..., None]


def applied(
    module: nn.Module,
    variables: Any,
    x: Any,
    *,
    neighbours: Any,
    train: bool = False,
) -> jax.Array:
    """What a layer makes of features.

    Args:
        module: the layer.
        variables: its variables.
        x: of all nodes.
        neighbours: how they are joined.
        train: whether it is trained.
    """
    made = module.apply(variables, x, train=train, neighbours=neighbours)
    return jnp.asarray(made)


def check_layers(widths: tuple[int, ...], activation: str, heads: int = 1) -> None:
    """Refuse impossible options of graph networks.

    Args:
        widths: of the layers.
        activation: its name.
        heads: of attention.

    Raises:
        ValueError: one of them is impossible.
    """
    check_layer_widths(widths)
    check_one_of(ACTIVATIONS, activation=activation)
    check_at_least(1, heads=heads)
    if any(width % heads for width in widths):
        raise ValueError(
            f"widths must be multiples of the {heads} heads, got {widths!r}"
        )
