"""Several devices and several processes: where arrays lie, and who does what.

Devices form a mesh with the one axis "data". A batch is split along it; weights, data
set and all else lie whole on every device. What a program under `jit` means does not
depend on that: a batch norm takes the moments of the whole batch, a Gram matrix all its
pairs, and the compiler inserts what must be exchanged.

Several processes (a TPU pod slice, several GPU servers) run the same program on the
mesh of all their devices. The first one owns the workdir: it alone reads and writes it,
and the others need not see its disk.
"""

import contextlib
import contextvars
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
# Any pytree of arrays.
Tree = Any
_PATIENCE_MS = 24 * 3600 * 1000
# Of the processes, so far: every one has a name of its own.
_meetings = itertools.count()
# Whether the others do not take part in what is run now.
_called_alone = contextvars.ContextVar("called_alone", default=False)


def initialize() -> None:
    """Join the processes of a run; before anything else asks JAX for its devices.

    On TPU pod slices, under SLURM and Open MPI JAX finds out by itself who takes part;
    elsewhere from JAX_COORDINATOR_ADDRESS (host:port of the first process),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
        ValueError: neither says who takes part.
    """
    count, number = map(_number, ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    try:
        jax.distributed.initialize(num_processes=count, process_id=number)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--distributed: {' '.join(str(error).split())[:200]}; where neither a TPU "
            "pod slice, SLURM nor Open MPI says who takes part, set "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise ValueError(f"{name} must be an integer ≥ 0, got {text!r}")
    return int(text) if text else None


class DeviceError(OSError):
    """JAX starts no device."""


def own_devices() -> list[jax.Device]:
    """The devices of this process, which JAX starts where that was not done yet.

    Raises:
        DeviceError: it cannot.
    """
    try:
        jax.device_put(0)  # to the default one, which may not be there
        return jax.local_devices()
    except (RuntimeError, ValueError, AssertionError) as error:
        line = " ".join(str(error).split())[:300].rstrip(".") or "none was found"
        names = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_DEFAULT_DEVICE")
        asked = [f"{n}={os.environ[n]}" for n in names if os.environ.get(n)]
        told = f"with {', '.join(asked)} " if asked else ""
        raise DeviceError(
            f"{told}JAX starts no device: {line}; JAX_PLATFORMS=cpu is always there"
        ) from None


@contextlib.contextmanager
def usual_arithmetic() -> Iterator[None]:
    """What the engine is made for, whatever a session asks JAX for: float32 as it is.

    64 bits would give states other types on the way; what refuses broadcasting, mixed
    types or transfers would refuse what is meant here.
    """
    with contextlib.ExitStack() as stack:
        for setting in (
            jax.enable_x64(False),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.transfer_guard("allow"),
        ):
            stack.enter_context(setting)
        yield


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh of some devices along the axis "data".

    Args:
        devices: a sequence of `jax.Device`.
    """
    # Auto: the compiler divides the work. `jax.make_mesh` would make the axis explicit.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def choose(count: int | None, *, batch_size: int) -> Mesh:
    """The devices of a run.

    Args:
        count: the first so many of this process's own; None for all of all processes.
        batch_size: samples of a step.

    Returns:
        Their mesh.

    Raises:
        ValueError: there are not so many, or the batch cannot be split evenly.
        DeviceError: JAX starts none.
    """
    local = own_devices()
    if count is not None and not 1 <= count <= len(local):
        raise ValueError(
            f"--devices: got {count}; allowed are 1 to {len(local)}, the "
            f"{local[0].platform} devices that this process has"
        )
    chosen = jax.devices() if count is None else local[:count]
    if batch_size % len(chosen):
        fitting = max(batch_size // len(chosen), 1) * len(chosen)
        fewer = max(n for n in range(1, len(chosen)) if batch_size % n == 0)
        also = f", or fewer devices: --devices={fewer}" if _is_alone() else ""
        raise ValueError(
            f"batch_size: {batch_size} cannot be split evenly over {len(chosen)} "
            f"devices; take {fitting}{also}"
        )
    return mesh_of(chosen)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what lies whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_sample(mesh: Mesh, count: int, *, axis: int = 0) -> NamedSharding:
    """The sharding of arrays whose samples are split over the devices.

    Args:
        mesh: the devices.
        count: of the samples. What cannot be split evenly lies whole on every device.
        axis: of the samples.
    """
    if count % mesh.devices.size:
        return replicated(mesh)
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, AXIS))


def split_evenly(mesh: Mesh, tree: Tree) -> Tree:
    """A batch whose samples are split over the devices, within a compiled program.

    Args:
        mesh: the devices.
        tree: arrays (n, …).
    """
    # On one device there is nothing to split, and no trace of it in the program.
    leaves = jax.tree.leaves(tree)
    if mesh.devices.size == 1 or not leaves:
        return tree
    sharding = by_sample(mesh, len(leaves[0]))
    return jax.lax.with_sharding_constraint(tree, sharding)


def put(tree: Tree, sharding: NamedSharding) -> Tree:
    """Arrays that every process has whole, laid out over the devices.

    Args:
        tree: NumPy arrays, numbers, or arrays on a device; equal in all processes.
        sharding: how each is laid out.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put_leaf(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf if leaf.sharding == sharding else jax.device_put(leaf, sharding)
        dtype = getattr(leaf, "dtype", None)
        if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                put_leaf(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf)
            )
        array = np.asarray(leaf, jnp.result_type(leaf))
        # Not `device_put`, which would send every array round to compare it.
        return jax.make_array_from_callback(
            array.shape, sharding, lambda index: array[index]
        )

    return jax.tree.map(put_leaf, tree)


def is_first() -> bool:
    """Whether this process is the one that owns the workdir."""
    return _is_alone() or jax.process_index() == 0


def _is_alone() -> bool:
    if _called_alone.get():
        return True
    # Not by `process_count`, which wakes up the devices.
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def together(function: Callable[[], Any]) -> Any:
    """Run a function in every process; where one fails, all do, and none waits.

    Args:
        function: may raise `ValueError` or `OSError`; it exchanges nothing itself.

    Returns:
        Its result in this process.

    Raises:
        ValueError: it failed in another process.
    """
    if _is_alone():
        return function()
    result, failure = None, None
    try:
        result = function()
    except (ValueError, OSError) as error:
        failure = error
    # The others may take hours, for data to download; a collective waits for seconds.
    ocp.multihost.get_barrier_sync_fn()(
        key=f"dib_jax-{next(_meetings)}", timeout_ms=_PATIENCE_MS
    )
    failed = multihost_utils.process_allgather(np.asarray(failure is not None))
    if failure is not None:
        raise failure
    if failed.any():
        raise ValueError(
            f"process {int(failed.argmax())} of {jax.process_count()} stopped and says "
            "why; so this one stops, too"
        )
    return result


def in_turn(function: Callable[[], None]) -> None:
    """Run a function in every process, in one after the other.

    Args:
        function: as for `together`.

    Raises:
        ValueError: it failed in another process.
    """
    if _is_alone():
        function()
        return
    for turn in range(jax.process_count()):
        together(function if turn == jax.process_index() else lambda: None)


def from_first(function: Callable[[], Any]) -> Any:
    """What a function gives in the first process, in all processes.

    Args:
        function: returns what JSON can hold; called in the first process alone. What
            it calls in turn meets nobody.

    Raises:
        ValueError: it failed there.
    """

    def by_itself() -> Any:
        before = _called_alone.set(True)
        try:
            return function()
        finally:
            _called_alone.reset(before)

    result = together(lambda: by_itself() if is_first() else None)
    if _is_alone():
        return result
    text = json.dumps(result).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    return json.loads(_sent(text, size))


def _sent(content: bytes, size: int) -> bytes:
    """The first process's content, of so many bytes, in every process."""
    buffer = np.zeros(size, np.uint8)
    if is_first():
        buffer[:] = np.frombuffer(content, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes()


def arrays_from_first(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays of the first process, whole on every device of all processes.

    Args:
        tree: of arrays; in the other processes their shapes and dtypes suffice.
        mesh: the devices.
    """
    if not _is_alone():
        leaves, structure = jax.tree.flatten(tree)
        sizes = [leaf.size * leaf.dtype.itemsize for leaf in leaves]
        # As bytes: sums over processes, which is how it is sent, lose the sign of −0.
        content = b"".join(np.asarray(x).tobytes() for x in leaves if is_first())
        content = _sent(content, sum(sizes))
        ends = itertools.accumulate(sizes)
        arrays = [
            np.frombuffer(content[end - size : end], leaf.dtype).reshape(leaf.shape)
            for leaf, size, end in zip(leaves, sizes, ends, strict=True)
        ]
        tree = jax.tree.unflatten(structure, arrays)
    return put(tree, replicated(mesh))
