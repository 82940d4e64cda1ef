"""The compiled epoch of the blocks that train, and what the compiler says of a step."""

import concurrent.futures
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.data.stream import stream
from dib_jax.training.cache import Kept
from dib_jax.training.devices import (
    by_sample,
    put,
    replicated,
)
from dib_jax.training.steps import (
    Block,
    StageState,
    Variables,
    epoch_rows,
    train_step,
    train_steps,
    with_prepare,
)

# Of what comes from the host, so much is sent to the device for one `lax.scan`.
_CHUNK_BYTES = 2**26


def compile_epoch(
    blocks: tuple[Block, ...],
    states: tuple[StageState, ...],
    trunk: tuple[Variables, ...],
    kept: Kept,
    keys: tuple[jax.Array, ...],
    mesh: jax.sharding.Mesh,
) -> tuple[Callable[..., Any], dict[str, int | None], float]:
    """The compiled epoch, the compiler's figures for one step, and seconds it took.

    The epoch is one `lax.scan`, or one for each chunk where data come from the host. It
    takes states, trunk, what is kept (as here, or drawn anew) and keys.
    """
    start = time.monotonic()
    whole = replicated(mesh)
    arrays = kept.arrays
    batch_size = blocks[0].batch_size
    samples = len(arrays["images"]) // kept.copies
    rows_of = jax.jit(
        functools.partial(epoch_rows, blocks[0], samples=samples, copies=kept.copies),
        out_shardings=whole,
    )
    steps = samples // batch_size
    step_bytes = batch_size * sum(leaf[0].nbytes for leaf in kept.streamed.values())
    chunk = min(max(1, _CHUNK_BYTES // step_bytes), steps) if step_bytes else steps

    def run_steps(states: Any, prepare: Any, *others: Any, keys: Any) -> Any:
        return train_steps(with_prepare(blocks, prepare), states, *others, keys=keys)

    def step(states: Any, prepare: Any, *others: Any, keys: Any) -> Any:
        return train_step(with_prepare(blocks, prepare), states, *others, keys=keys)

    def like(arrays: dict[str, Any], *shape: int) -> dict[str, Any]:
        split = by_sample(mesh, axis=len(shape) - 1)
        return {
            name: jax.ShapeDtypeStruct(
                (*shape, *leaf.shape[1:]), leaf.dtype, sharding=split
            )
            for name, leaf in arrays.items()
        }

    prepare = put(blocks[0].prepare, whole)
    batch = like(arrays, batch_size)
    jit = functools.partial(jax.jit, donate_argnums=0, out_shardings=whole)
    lowered_step = jit(step).lower(states, prepare, trunk, batch, keys=keys)
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        compiled_step = beside.submit(lowered_step.compile)
        compiled = {
            size: jit(run_steps)
            .lower(
                states,
                prepare,
                trunk,
                kept.data,
                jax.ShapeDtypeStruct((size, batch_size), jnp.int32, sharding=whole),
                like(kept.streamed, size, batch_size),
                keys=keys,
            )
            .compile()
            for size in {chunk, steps % chunk or chunk}
        }
        figures = compiler_figures(compiled_step.result())

    def epoch(states: Any, trunk: Any, kept: Kept, keys: Any) -> Any:
        terms: list[Any] = []
        rows = np.asarray(rows_of(keys[0], states[0].step))
        read = stream(kept.streamed, rows, steps=chunk) if kept.streamed else [{}]
        for first, sent in zip(range(0, steps, chunk), read, strict=True):
            # One chunk at work and one that waits: the device need not hold them all.
            jax.block_until_ready(terms[-2:-1])
            some = put(rows[first : first + chunk], whole)
            sent = put(sent, by_sample(mesh, axis=1))
            states, own = compiled[len(some)](
                states, prepare, trunk, kept.data, some, sent, keys=keys
            )
            terms.append(own)
        return states, jax.tree.map(lambda *parts: np.concatenate(parts), *terms)

    return epoch, figures, time.monotonic() - start


def compiler_figures(compiled: jax.stages.Compiled) -> dict[str, int | None]:
    """The compiler's own account of a program; None where a backend gives none.

    Args:
        compiled: what `jax.jit(function).lower(…).compile()` returns.

    Returns:
        `temp_bytes` and `peak_bytes` of `memory_analysis()`, `flops` of
        `cost_analysis()`.
    """
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    flops = cost.get("flops")
    return {
        "temp_bytes": getattr(memory, "temp_size_in_bytes", None),
        "peak_bytes": getattr(memory, "peak_memory_in_bytes", None),
        "flops": None if flops is None else round(flops),
    }
