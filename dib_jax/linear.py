"""Deep linear networks, trained one layer at a time.

The network is x ↦ W_L … W_1 x, and its loss L(W) = ½‖W_L … W_1 X − Y‖² sums over all
samples. Samples are columns here, as in the formulas: X is (inputs, n), Y is
(outputs, n), and weights are (W_1, …, W_L) with W_l of shape (rows, columns).

Block coordinate gradient descent changes one layer and holds the others. With what
enters it, A = W_{l−1} … W_1 X, what comes after it, B = W_L … W_{l+1}, and the residual
R = W_L … W_1 X − Y, its gradient is G = Bᵀ R Aᵀ. The loss is a parabola along it, so
the best rate is known: η = ‖G‖² / ‖B G A‖². It lowers the loss by ½‖G‖⁴ / ‖B G A‖².

Everything has the dtype of its arguments. Ask for float64 (`jax.enable_x64(True)`)
where differences to the optimum count.

Source: Shin, Effects of depth, width, and initialization: a convergence analysis of
layer-wise training for deep linear neural networks, arXiv 1910.05874. The formulas
follow from the loss; the form of the initialisation, by which a width or depth changes
nothing at the start, is our own.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

Weights = tuple[jax.Array, ...]
STARTS = ("bottom", "top")


def orthogonal_like(key: jax.Array, sizes: Sequence[int]) -> Weights:
    """Partial isometries whose product depends on the key alone, not on the layers.

    The product P of all layers is a random partial isometry (outputs, inputs) of full
    rank. It is divided among the layers by random isometries Q_l from max(inputs,
    outputs) numbers into the l-th hidden layer: W_l = Q_l Q_{l−1}ᵀ in between. So all
    singular values of all layers are 0 or 1, and networks of any depth and widths from
    one key start at the same function and train alike.

    Args:
        key: a typed key.
        sizes: (inputs, hidden widths …, outputs); two of them for one layer.

    Returns:
        W_1, …, W_L, in the default float dtype.

    Raises:
        ValueError: there are less than two sizes, one is below 1, or a hidden width is
            below max(inputs, outputs).
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(
            "sizes must be (inputs, hidden widths …, outputs), each at least 1, got "
            f"{tuple(sizes)}"
        )
    inputs, *hidden, outputs = sizes
    rank = max(inputs, outputs)
    if hidden and min(hidden) < rank:
        raise ValueError(
            f"a hidden width must be at least max(inputs, outputs) = {rank}, got "
            f"{min(hidden)}; a narrower layer has no room for an isometry"
        )
    whole = _isometry(key, outputs, inputs)
    # The layer that has all inputs or all outputs to itself takes the product.
    first, last = (whole, jnp.eye(rank)) if outputs > inputs else (jnp.eye(rank), whole)
    if not hidden:
        return (whole,)
    rooms = [
        _isometry(jax.random.fold_in(key, layer), width, rank)
        for layer, width in enumerate(hidden, start=1)
    ]
    between = [after @ before.T for before, after in itertools.pairwise(rooms)]
    return (rooms[0] @ first, *between, last @ rooms[-1].T)


def product(weights: Sequence[jax.Array]) -> jax.Array:
    """W_L … W_1, (outputs, inputs): the linear map that the network is."""
    return functools.reduce(lambda below, weight: weight @ below, weights)


def loss(weights: Sequence[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """½‖W_L … W_1 X − Y‖², a scalar.

    Args:
        weights: (W_1, …, W_L).
        x: (inputs, n).
        y: (outputs, n).

    Raises:
        ValueError: the layers do not fit to one another or to the data.
    """
    _check(weights, x, y)
    return jnp.sum((_forward(weights, x) - y) ** 2) / 2


def step(
    weights: Sequence[jax.Array],
    layer: int,
    x: jax.Array,
    y: jax.Array,
    *,
    rate: float | jax.Array | None = None,
) -> Weights:
    """One step of gradient descent on one layer alone.

    Args:
        weights: (W_1, …, W_L).
        layer: which of them, counted from 0 at the input; static under `jit`.
        x: (inputs, n).
        y: (outputs, n).
        rate: None for the one that lowers the loss the most.

    Returns:
        All weights, the layer's changed.
    """
    _check(weights, x, y, layer)
    gradient, change = _around(weights, layer, x, y)
    if rate is None:
        rate = _best_rate(gradient, change)
    return (*weights[:layer], weights[layer] - rate * gradient, *weights[layer + 1 :])


def optimal_rate(
    weights: Sequence[jax.Array], layer: int, x: jax.Array, y: jax.Array
) -> jax.Array:
    """η = ‖G‖² / ‖B G A‖², the rate that lowers the loss the most; 0 where G is 0.

    Args:
        weights: (W_1, …, W_L).
        layer: whose rate, counted from 0 at the input; static under `jit`.
        x: (inputs, n).
        y: (outputs, n).
    """
    _check(weights, x, y, layer)
    return _best_rate(*_around(weights, layer, x, y))


@functools.partial(jax.jit, static_argnames="start")
def sweep(
    weights: Sequence[jax.Array], x: jax.Array, y: jax.Array, *, start: str = "bottom"
) -> tuple[Weights, jax.Array]:
    """A step on each layer in turn, each with its best rate.

    What does not change is computed once: the products above each layer when the sweep
    starts at the bottom, what enters each layer when it starts at the top. So a sweep
    costs about as much as a forward pass and four products with the residual a layer.

    Args:
        weights: (W_1, …, W_L).
        x: (inputs, n).
        y: (outputs, n).
        start: "bottom" from the input on, "top" from the output on.

    Returns:
        The weights, and the loss after each step, (L,), in the order of the steps.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    _check(weights, x, y)
    weights = list(weights)
    layers = range(len(weights))
    # Of these two lists one is overwritten as the weights change. The compiler leaves
    # out what nobody reads.
    below: list[jax.Array] = [x]
    above: list[jax.Array | None] = [None]
    for layer in layers[:-1]:
        below.append(weights[layer] @ below[-1])
        above.insert(0, _then(weights[-1 - layer], above[0]))
    residual = _then(weights[0], above[0]) @ x - y
    losses = []
    for layer in layers if start == "bottom" else reversed(layers):
        if start == "bottom" and layer > 0:
            below[layer] = weights[layer - 1] @ below[layer - 1]
        elif start == "top" and layer < layers[-1]:
            above[layer] = _then(weights[layer + 1], above[layer + 1])
        gradient, change = _gradient(above[layer], residual, below[layer])
        rate = _best_rate(gradient, change)
        weights[layer] = weights[layer] - rate * gradient
        residual = residual - rate * change
        losses.append(jnp.sum(residual**2) / 2)
    return tuple(weights), jnp.stack(losses)


@functools.partial(jax.jit, static_argnames=("sweeps", "start"))
def train(
    weights: Sequence[jax.Array],
    x: jax.Array,
    y: jax.Array,
    *,
    sweeps: int,
    start: str = "bottom",
) -> tuple[Weights, jax.Array]:
    """Several sweeps.

    Args:
        weights: (W_1, …, W_L).
        x: (inputs, n).
        y: (outputs, n).
        sweeps: how many, at least 1.
        start: of each, "bottom" or "top".

    Returns:
        The weights, and the loss after each step, (sweeps, L), in the order of steps.
    """

    def next_sweep(weights: Weights, _: None) -> tuple[Weights, jax.Array]:
        return sweep(weights, x, y, start=start)

    return jax.lax.scan(next_sweep, tuple(weights), length=sweeps)


def descend(
    weights: Sequence[jax.Array],
    x: jax.Array,
    y: jax.Array,
    *,
    rate: float | jax.Array,
) -> Weights:
    """A step of plain gradient descent on all layers at once, to compare with.

    Args:
        weights: (W_1, …, W_L).
        x: (inputs, n).
        y: (outputs, n).
        rate: of all layers.
    """
    _check(weights, x, y)
    gradients = jax.grad(loss)(tuple(weights), x, y)
    return tuple(w - rate * g for w, g in zip(weights, gradients, strict=True))


def solve(x: jax.Array, y: jax.Array) -> jax.Array:
    """The linear map with the least loss, of several the one of least norm.

    No network whose hidden layers are at least min(inputs, outputs) wide has a lower
    loss or needs a higher one.

    Args:
        x: (inputs, n).
        y: (outputs, n).

    Returns:
        (outputs, inputs).
    """
    return jnp.linalg.lstsq(x.T, y.T)[0].T


def _isometry(key: jax.Array, rows: int, columns: int) -> jax.Array:
    """A random matrix whose singular values are all 1, (rows, columns)."""
    tall = (max(rows, columns), min(rows, columns))
    q, r = jnp.linalg.qr(jax.random.normal(key, tall))
    # With this sign it is drawn uniformly, and does not depend on the QR's convention.
    q = q * jnp.sign(jnp.diagonal(r))
    return q if rows >= columns else q.T


def _forward(weights: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    return functools.reduce(lambda below, weight: weight @ below, weights, x)


def _then(weight: jax.Array, above: jax.Array | None) -> jax.Array:
    """B W: a layer and what comes after it; None is after the last one."""
    return weight if above is None else above @ weight


def _around(
    weights: Sequence[jax.Array], layer: int, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """G and B G A of one layer, all from nothing."""
    above: jax.Array | None = None
    for weight in weights[:layer:-1]:
        above = _then(weight, above)
    below = _forward(weights[:layer], x)
    residual = _then(weights[layer], above) @ below - y
    return _gradient(above, residual, below)


def _gradient(
    above: jax.Array | None, residual: jax.Array, below: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """G = Bᵀ R Aᵀ, and B G A by which a step of rate 1 changes the outputs."""
    inner = residual @ below.T
    if above is None:
        return inner, inner @ below
    return above.T @ inner, ((above @ above.T) @ inner) @ below


def _best_rate(gradient: jax.Array, change: jax.Array) -> jax.Array:
    # B G A is 0 only where G is: its product with the residual is ‖G‖².
    size = jnp.sum(change**2)
    return jnp.where(size > 0, jnp.sum(gradient**2) / jnp.where(size > 0, size, 1), 0)


def _check(
    weights: Sequence[jax.Array], x: jax.Array, y: jax.Array, layer: int = 0
) -> None:
    """Raise a ValueError unless the layers fit to one another and to the data."""
    if weights and not 0 <= layer < len(weights):
        raise ValueError(f"layer must be 0 to {len(weights) - 1}, got {layer}")
    rows = [len(x), *(len(weight) for weight in weights)]
    columns = [*(weight.shape[1] for weight in weights), len(y)]
    if not weights or rows != columns or x.shape[1:] != y.shape[1:]:
        raise ValueError(
            "weights must be (W_1, …, W_L) with as many columns as the layer before "
            "has rows, x (inputs, n) and y (outputs, n); got weights of shapes "
            f"{[weight.shape for weight in weights]}, x {x.shape} and y {y.shape}"
        )
