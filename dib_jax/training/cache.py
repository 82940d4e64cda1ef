"""What the frozen earlier stages put out, computed once instead of at every step.

It can be kept where nothing upstream is random, or for a number of augmented copies of
the training split: on the device, in the host's memory, or in files. Where it is kept
changes no bit of it.
"""

import functools
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.tasks import Batch
from dib_jax.training.devices import from_first, replicated
from dib_jax.training.steps import TRUNK_OUTPUT, Block, Variables, apply_frozen

PLACES = ("device", "host", "file")
CHOICES = ("auto", *PLACES, "none")
# Of the room that a place has, the share that the cache may take.
_SHARE = 0.5


class Kept(NamedTuple):
    """The training split as a block's steps read it.

    Attributes:
        data: arrays on the device, copies · n rows.
        streamed: arrays in the host's memory or in files, copies · n rows.
        copies: of the training split, one for each epoch in turn.
        line: where the trunk's output is and why, for the log; "" without a trunk.
    """

    data: Batch
    streamed: dict[str, np.ndarray]
    copies: int
    line: str


def keep(
    block: Block,
    trunk: tuple[Variables, ...],
    data: Batch,
    *,
    choice: str,
    copies: int,
    folder: pathlib.Path,
    key: jax.Array,
    mesh: jax.sharding.Mesh,
) -> Kept:
    """Compute the trunk's output for the training split and keep it, if it is to be.

    Args:
        block: whose trunk it is; if it has none, there is nothing to keep.
        trunk: its variables.
        data: the training split, on the device or on the host.
        choice: one of `CHOICES`; "auto" takes the first place with room.
        copies: augmented copies that are kept; 0 for none. Without augmentation the
            split itself is kept.
        folder: for the files; made if they are wanted.
        key: PRNG key, for the augmentation of the copies.
        mesh: the devices.

    Returns:
        The split with what is kept of it.

    Raises:
        OSError: the disk has no room for the files that `choice` asks for.
    """
    if not block.trunk:
        return _kept(data, 1, "")
    about = f"stage {block.stage}: the output of the stages before it is"
    if choice == "none":
        line = f"{about} computed at every step, as schedule.cache says"
        return _kept(data, 1, line)
    if block.augment and copies == 0:
        line = f"{about} computed at every step, for augmentation changes it"
        return _kept(data, 1, line)
    copies = copies if block.augment else 1

    def outputs(trunk: Any, batch: Batch, key: Any) -> Batch:
        batch = block.split(batch)
        batch = block.augment(key, batch) if block.augment else batch
        x = block.prepare(batch["images"])
        x = apply_frozen(block.trunk, trunk, x, compute_dtype=block.compute_dtype)[-1]
        # Copies differ from the split in more than the trunk's output.
        return {**(batch if block.augment else {}), TRUNK_OUTPUT: x}

    whole = replicated(mesh)
    like = jax.eval_shape(outputs, trunk, _rows(data, 0, block.batch_size), key)
    rows = copies * len(data["images"])
    shapes = {
        name: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in like.items()
    }
    size = sum(shape.size * shape.dtype.itemsize for shape in shapes.values())
    # Everywhere in the same place, or the processes would not run the same program.
    room = from_first(lambda: _room(folder.parent))
    fits = [place for place in PLACES if size <= _SHARE * room[place]]
    if choice == "auto" and not fits:
        free = ", ".join(f"{place} {_mib(room[place])}" for place in PLACES)
        line = f"{about} computed at every step: {_mib(size)} are too many ({free})"
        return _kept(data, 1, line)
    place = fits[0] if choice == "auto" else choice
    arrays = _fill(
        functools.partial(jax.jit(outputs, out_shardings=whole), trunk),
        data,
        _storage(place, shapes, folder, whole),
        block.batch_size,
        copies,
        key,
    )
    why = f"{_mib(room[place])} are free there" if choice == "auto" else "as asked for"
    line = f"{about} cached, place: {place}, {_mib(size)} ({why})"
    return _kept({**data, **arrays}, copies, line)


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

    @functools.partial(jax.jit, donate_argnums=0)
    def put(array: jax.Array, rows: jax.Array, start: Any) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(array, rows, start, 0)

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
                    arrays[name] = put(arrays[name], rows, at)
                else:
                    arrays[name][at : at + batch_size] = np.asarray(rows)
    return arrays


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
