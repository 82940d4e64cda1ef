"""Blocks at once, each on its own store of what the one before has put out."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dib_jax.algorithms import (
    Algorithm,
    Batch,
    Common,
    Network,
    Parts,
    Terms,
    per_phase,
)
from dib_jax.algorithms.blocks import (
    Block,
    StageState,
    States,
    at_once,
    block,
    like_output,
    neighbours,
    stack,
    update,
)


class State(NamedTuple):
    """The blocks' states, and what each but the first has stored.

    Attributes:
        states: of each block.
        stores: batches of `buffer` samples, the newest over the oldest.
        written: samples that were written to each store so far, an int32 scalar.
    """

    states: States
    stores: tuple[Batch, ...]
    written: jax.Array


def decoupled(
    parts: Parts, *, buffer: int = 512, blocks: int = 1, remat: bool = False
) -> Algorithm:
    """All blocks at once, each on samples drawn from a store of its inputs.

    A block writes what it puts out into the store of the next one, over the oldest
    samples there, and the next one draws its batch from all that is stored. So no block
    waits for another: each can run at a pace of its own, on inputs of some steps ago.

    Args:
        parts: network, heads, objective, as a config has them.
        buffer: samples in each store.
        blocks: neighbouring stages that train together as one block.
        remat: whether the backward pass recomputes each stage from its input: less
            memory, more time, the same gradient.

    Raises:
        ValueError: `buffer` or `blocks` is below 1, or `epochs` has more than one
            number; when called, a batch that does not fit into the store.

    Source: Belilovsky, Eickenberg & Oyallon, arXiv 1901.08164, algorithm 2. There whole
    batches are stored, and the least used one is taken.
    """
    if buffer < 1:
        raise ValueError(f"buffer must be an integer from 1, got {buffer!r}")
    (epochs,) = per_phase(parts.epochs, 1)
    made = [
        block(parts, group, epochs, remat=remat)
        for group in neighbours(len(parts.stages), blocks)
    ]
    phase = at_once(made, epochs)

    def init(key: jax.Array, network: Network, example: Batch) -> State:
        x, stores = example.inputs, []
        for one in made[:-1]:
            x = like_output(one.stages, x).astype(one.compute_dtype)
            stores.append(_empty(example._replace(given=x, common=()), buffer))
        states = phase.init(key, network, example)
        return State(states, tuple(stores), jnp.zeros((), jnp.int32))

    def step(
        state: State, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[State, dict[int, Terms]]:
        return _updated(made, state, batch, key)

    def read(state: State, network: Network) -> Network:
        return phase.read(state.states, network)

    return stack([phase._replace(init=init, step=step, read=read)], made)


def _updated(
    blocks: Sequence[Block], state: State, batch: Batch, key: jax.Array
) -> tuple[State, dict[int, Terms]]:
    """One update of each block, of all but the first on samples from its store."""
    count = len(batch.inputs)
    buffer = len(state.stores[0].inputs) if state.stores else count
    if count > buffer:
        raise ValueError(
            f"algorithm.buffer: got {buffer}, fewer than the {count} samples of a "
            "batch; use at least as many"
        )
    slots = (state.written + jnp.arange(count)) % buffer
    filled = jnp.minimum(state.written + count, buffer)
    states: list[StageState] = []
    stores: list[Batch] = []
    terms: dict[int, Terms] = {}
    for index, (one, before) in enumerate(zip(blocks, state.states, strict=True)):
        draw_key, update_key = jax.random.split(jax.random.fold_in(key, index))
        if index:
            stores.append(_written(state.stores[index - 1], batch, slots))
            rows = jax.random.randint(draw_key, (count,), 0, filled)
            batch = _drawn(stores[-1], rows, batch.common)
        new, terms[one.stage], x = update(one, before, batch, update_key)
        states.append(new)
        batch = batch._replace(given=x)
    return State(tuple(states), tuple(stores), state.written + count), terms


def _empty(example: Batch, size: int) -> Batch:
    return jax.tree.map(lambda x: jnp.zeros((size, *x.shape[1:]), x.dtype), example)


def _written(store: Batch, batch: Batch, slots: jax.Array) -> Batch:
    new = batch._replace(common=())
    return jax.tree.map(lambda old, x: old.at[slots].set(x), store, new)


def _drawn(store: Batch, rows: jax.Array, common: Common) -> Batch:
    return jax.tree.map(lambda x: x[rows], store)._replace(common=common)
