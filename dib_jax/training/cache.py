"""What the frozen earlier stages put out, computed once instead of at every step.

It can be kept where nothing upstream is random, or for a number of augmented copies of
the training split: on the device, in the host's memory, or in files. Each stage is
applied by a program of its own, so that neither where its output is kept nor whether it
is made from the output kept before changes a bit of it.
"""

import functools
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.tasks import Batch
from dib_jax.training.devices import from_first, replicated
from dib_jax.training.steps import (
    TRUNK_OUTPUT,
    Block,
    Variables,
    apply_frozen,
    as_it_is,
)

PLACES = ("device", "host", "file")
CHOICES = ("auto", *PLACES, "none")
# Of the room that a place has, the share that the cache may take.
_SHARE = 0.5


class Kept(NamedTuple):
    """A split as a block reads it.

    Attributes:
        data: arrays on the device, copies · n rows.
        streamed: arrays in the host's memory or in files, copies · n rows.
        copies: of the split, one for each epoch in turn.
        line: where the trunk's output is and why, for the log; "" without a trunk.
        place: one of `PLACES`, or "" where the trunk's output is not kept.
        stages: how many stages' output it is, from the input on; 0 where not kept.
        stage: number of the block's last stage, where it is kept.
    """

    data: Batch
    streamed: dict[str, np.ndarray]
    copies: int
    line: str
    place: str = ""
    stages: int = 0
    stage: int = 0

    @property
    def arrays(self) -> dict[str, Any]:
        """All of them, wherever they are."""
        return {**self.data, **self.streamed}


def keep(
    block: Block,
    trunk: tuple[Variables, ...],
    data: Batch,
    *,
    choice: str,
    copies: int,
    folder: pathlib.Path,
    key: jax.Array,
    previous: Kept | None = None,
    mesh: jax.sharding.Mesh,
) -> Kept:
    """Compute the trunk's output for a split and keep it, if it is to be.

    Args:
        block: whose trunk it is; if it has none, there is nothing to keep.
        trunk: its variables.
        data: the split, on the device or on the host.
        choice: one of `CHOICES`; "auto" takes the first place with room.
        copies: augmented copies that are kept; 0 for none. Without augmentation the
            split itself is kept.
        folder: for the files; made if they are wanted.
        key: PRNG key, for the augmentation of the copies.
        previous: of the same split for the block before. Without augmentation the
            output is made from what it keeps; afterwards it keeps it no more.
        mesh: the devices.

    Returns:
        The split with what is kept of it.

    Raises:
        OSError: the disk has no room for the files that `choice` asks for.
    """
    previous = previous or _kept({}, 1, "")
    done = 0 if block.augment else previous.stages
    if not done:
        _forget(previous, folder)
    count = len(data["images"])
    if not block.trunk or not count:
        return _kept(data, 1, "")
    about = f"stage {block.stage}: the output of the stages before it is"
    if choice == "none":
        line = f"{about} computed at every step, as schedule.cache says"
        return _kept(data, 1, line)
    if block.augment and copies == 0:
        line = f"{about} computed at every step, for augmentation changes it"
        return _kept(data, 1, line)
    copies = copies if block.augment else 1
    augment = jax.jit(block.augment) if block.augment else None
    prepare, split = jax.jit(block.prepare), jax.jit(block.split)
    whole = replicated(mesh)
    gather = jax.jit(as_it_is, out_shardings=whole)

    def outputs(batch: Batch, key: jax.Array, *, done: int) -> Batch:
        """The trunk's output for a batch that holds that of so many stages of it."""
        batch = split(batch)
        changed = augment(key, batch) if augment else {}
        x = batch[TRUNK_OUTPUT] if done else prepare({**batch, **changed}["images"])
        for module, variables in zip(block.trunk[done:], trunk[done:], strict=True):
            x = _advance(module, block.compute_dtype, variables, x)
        # Copies differ from the split in more than the trunk's output.
        return gather({**changed, TRUNK_OUTPUT: x})

    batch_size = min(block.batch_size, count)
    like = jax.eval_shape(
        functools.partial(outputs, done=0), _rows(data, 0, batch_size), key
    )
    shapes = {
        name: jax.ShapeDtypeStruct((copies * count, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in like.items()
    }
    size = sum(shape.size * shape.dtype.itemsize for shape in shapes.values())
    # Everywhere in the same place, or the processes would not run the same program.
    left = from_first(lambda: _room(_there(folder)))
    room = dict(left)
    if done:  # as if that were given up already
        room[previous.place] += previous.arrays[TRUNK_OUTPUT].nbytes
    fits = [place for place in PLACES if size <= _SHARE * room[place]]
    if choice == "auto" and not fits:
        _forget(previous, folder)
        free = ", ".join(f"{place} {_mib(room[place])}" for place in PLACES)
        line = f"{about} computed at every step: {_mib(size)} are too many ({free})"
        return _kept(data, 1, line)
    place = fits[0] if choice == "auto" else choice
    if done and size > _SHARE * left[place]:  # no room for both
        _forget(previous, folder)
        done = 0
    arrays = _fill(
        functools.partial(outputs, done=done),
        previous.arrays if done else data,
        _storage(place, shapes, folder / str(block.stage), whole),
        batch_size,
        copies,
        key,
    )
    _forget(previous, folder)
    why = f"{_mib(room[place])} are free there" if choice == "auto" else "as asked for"
    line = f"{about} cached, place: {place}, {_mib(size)} ({why})"
    if done:
        line += f", made from that of the first {done}"
    kept = _kept({**data, **arrays}, copies, line)
    return kept._replace(place=place, stages=len(block.trunk), stage=block.stage)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance(
    module: nn.Module, compute_dtype: Any, variables: Variables, x: jax.Array
) -> jax.Array:
    """One stage's output; stages that are alike share the program."""
    return apply_frozen((module,), (variables,), x, compute_dtype=compute_dtype)[-1]


def _forget(kept: Kept, folder: pathlib.Path) -> None:
    """Give up what is kept, also in the hands of those who still hold `kept`."""
    kept.data.clear()
    kept.streamed.clear()
    if kept.place == "file":
        shutil.rmtree(folder / str(kept.stage), ignore_errors=True)


def _there(path: pathlib.Path) -> pathlib.Path:
    """The path, or the nearest folder above it that exists."""
    return next(own for own in (path, *path.parents) if own.exists())


def _kept(arrays: dict[str, Any], copies: int, line: str) -> Kept:
    on_device = {n: leaf for n, leaf in arrays.items() if isinstance(leaf, jax.Array)}
    streamed = {n: leaf for n, leaf in arrays.items() if n not in on_device}
    return Kept(on_device, streamed, copies, line)


def _rows(data: dict[str, Any], start: int, count: int) -> Batch:
    return {name: leaf[start : start + count] for name, leaf in data.items()}


def _fill(
    outputs: Callable[..., Batch],
    data: dict[str, Any],
    arrays: dict[str, Any],
    batch_size: int,
    copies: int,
    key: jax.Array,
) -> dict[str, Any]:
    count = len(data["images"])

    for copy in range(copies):
        copy_key = jax.random.fold_in(key, copy)
        for first in range(0, count, batch_size):
            # The last batch is as large as the others, and overlaps the one before.
            start = min(first, count - batch_size)
            batch = outputs(
                _rows(data, start, batch_size), jax.random.fold_in(copy_key, first)
            )
            at = copy * count + start
            for name, rows in batch.items():
                if isinstance(arrays[name], jax.Array):
                    arrays[name] = _put(arrays[name], rows, at)
                else:
                    arrays[name][at : at + batch_size] = np.asarray(rows)
    return arrays


@functools.partial(jax.jit, donate_argnums=0)
def _put(array: jax.Array, rows: jax.Array, start: Any) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(array, rows, start, 0)


def _storage(
    place: str,
    shapes: dict[str, jax.ShapeDtypeStruct],
    folder: pathlib.Path,
    whole: jax.sharding.NamedSharding,
) -> dict[str, Any]:
    if place == "device":
        return {
            name: jnp.zeros(shape.shape, shape.dtype, device=whole)
            for name, shape in shapes.items()
        }
    if place == "host":
        return {n: np.empty(shape.shape, shape.dtype) for n, shape in shapes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, shape in shapes.items():
        path = folder / name
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                # A full disk is an error here; in the mapping it would be a crash.
                os.posix_fallocate(file.fileno(), 0, shape.size * shape.dtype.itemsize)
        arrays[name] = np.memmap(path, shape.dtype, mode="r+", shape=shape.shape)
    return arrays


def _room(folder: pathlib.Path) -> dict[str, int]:
    """Free bytes in each place."""
    host = _free_memory()
    stats = jax.local_devices()[0].memory_stats() or {}
    device = stats.get("bytes_limit", host) - stats.get("bytes_in_use", 0)
    free = shutil.disk_usage(folder).free
    return {"device": device, "host": host, "file": free}


def _free_memory() -> int:
    info = pathlib.Path("/proc/meminfo")
    lines = info.read_text(encoding="ascii").splitlines() if info.is_file() else []
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"
