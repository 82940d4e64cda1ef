"""A split as a phase reads it: samples, and what frozen parts made of them.

The latter can be computed once instead of at every step, where nothing upstream is
random, or for a number of augmented copies of the training split. It is kept on the
device, in the host's memory, or in files. What one phase froze is applied by programs
apart from the others', so that neither where its output is kept nor whether it is made
from the output kept before changes a bit of it.
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

from dib_jax.algorithms import Batch, Common, Data, Given, Network, Samples
from dib_jax.data.kind import Augmentation
from dib_jax.training.devices import from_first, replicated, split_evenly
from dib_jax.training.experiment import Experiment
from dib_jax.training.records import LABEL

PLACES = ("device", "host", "file")
# Of the room that a place has, the share that is taken.
_SHARE = 0.5

Step = Callable[[Network, Batch], Given]
_Maker = Callable[[dict[str, Any], jax.Array, int], Any]


class Stored(NamedTuple):
    """A split as a phase reads it.

    Attributes:
        leaves: by name, those of (samples, given): jax arrays on the device, NumPy ones
            in the host's memory or in files; copies · n rows each.
        tree: their structure.
        common: what all samples share, on the device.
        copies: of the split, one for each epoch in turn.
        line: where the frozen parts' output is and why, for the log; "" without any.
        place: one of `PLACES`, or "" where it is not kept.
        done: of how many phases it has passed the `given`; 0 where it is not kept.
    """

    leaves: dict[str, Any]
    tree: jax.tree_util.PyTreeDef
    common: Common
    copies: int = 1
    line: str = ""
    place: str = ""
    done: int = 0

    @property
    def length(self) -> int:
        """Samples of one copy."""
        return len(next(iter(self.leaves.values()))) // self.copies

    @property
    def on_device(self) -> dict[str, jax.Array]:
        """The leaves on the device."""
        return {n: x for n, x in self.leaves.items() if isinstance(x, jax.Array)}

    @property
    def on_host(self) -> dict[str, np.ndarray]:
        """The leaves that are not."""
        return {n: x for n, x in self.leaves.items() if not isinstance(x, jax.Array)}

    def joined(self, leaves: dict[str, Any]) -> tuple[Any, Any]:
        """Samples and what they are given, from leaves of their names.

        Args:
            leaves: rows of these, from both places.
        """
        return jax.tree.unflatten(self.tree, [leaves[name] for name in self.leaves])

    @property
    def samples(self) -> Any:
        """All samples."""
        return self.joined(self.leaves)[0]

    @property
    def given(self) -> Any:
        """What frozen parts made of them; None where it is not kept."""
        return self.joined(self.leaves)[1]


def as_stored(samples: Samples, given: Given, common: Common) -> Stored:
    """A split as it is.

    Args:
        samples: arrays of one length n.
        given: what frozen parts made of them, (n, …); None for nothing.
        common: what all samples share.
    """
    leaves, tree = jax.tree.flatten((samples, given))
    return Stored({str(i): leaf for i, leaf in enumerate(leaves)}, tree, common)


def chain(experiment: Experiment, phase: int, *, done: int = 0) -> list[Step]:
    """What samples pass before a phase, in order.

    Args:
        experiment: the experiment.
        phase: number of the phase.
        done: of how many phases they have passed it already.
    """
    return [p.given for p in experiment.phases[done : phase + 1] if p.given]


def passed(functions: list[Step], network: Network, batch: Batch) -> Batch:
    """A batch with what frozen parts make of it.

    Args:
        functions: of `chain`.
        network: as far as it is trained.
        batch: as the phase before had it.
    """
    for given in functions:
        batch = batch._replace(given=given(network, batch))
    return batch


def store(
    experiment: Experiment,
    phase: int,
    network: Network,
    data: Data,
    *,
    augment: Augmentation | None,
    place: str,
    folder: pathlib.Path,
    key: jax.Array,
    renewals: int = 0,
    previous: Stored | None = None,
) -> Stored:
    """Compute what frozen parts make of a split and keep it, if it is to be kept.

    Args:
        experiment: the experiment.
        phase: number of the phase that reads it.
        network: what is trained before.
        data: the split, on the device or on the host.
        augment: of its samples; None where they stay as they are.
        place: where it is to be, as `Cache.place`.
        folder: for the files; made if they are wanted.
        key: PRNG key, for the augmentation of copies.
        renewals: how often copies were drawn before.
        previous: of the same split, for an earlier phase. Where it can be, the output
            is made from what is kept there; afterwards it is kept there no more.

    Returns:
        The split with what is kept of it.

    Raises:
        OSError: the disk has no room for the files that `place` asks for.
        ValueError: copies are wanted, and no place has room for them.
    """
    # What a phase augments or selects is for itself: no other one goes on from it.
    goes_on = bool(previous and previous.done) and augment is None
    if previous and goes_on:
        both = (experiment.phases[phase], experiment.phases[previous.done - 1])
        goes_on = not any(one.enter for one in both)
    if previous and not goes_on:
        _forget(previous, folder)
        previous = None
    plain = as_stored(data.samples, None, data.common)
    if not chain(experiment, phase) or not len(data):
        return plain
    if previous and not chain(experiment, phase, done=previous.done):
        return previous._replace(line="")
    label = f"{LABEL} {experiment.phases[phase].exits[-1]}"
    about = f"{label}: the output of what is frozen before it is"
    copies = experiment.cache.copies if augment else 1
    if place == "none":
        why = "as cache.place says"
    elif not copies:
        why = "for augmentation changes it"
    else:
        recipe = _Recipe(experiment, phase, network, augment, renewals * copies)
        return _filled(recipe, plain, previous, copies, place, folder, key, about)
    return plain._replace(line=f"{about} computed at every step, {why}")


class _Recipe(NamedTuple):
    """How it is computed what is kept: by which phase's frozen parts, of what."""

    experiment: Experiment
    phase: int
    network: Network
    augment: Augmentation | None
    times: int  # that samples were augmented before

    def maker(self, source: Stored) -> _Maker:
        """(leaves of some samples of a source, key, copy) → what is kept of them.

        That is what frozen parts make of them, and with augmentation the samples too.
        """
        experiment = self.experiment
        functions = chain(experiment, self.phase, done=source.done)
        change = jax.jit(self.augment) if self.augment else None
        prepare = jax.jit(experiment.prepare_inputs)
        split = jax.jit(functools.partial(split_evenly, experiment.mesh))
        gather = jax.jit(lambda tree: tree, out_shardings=replicated(experiment.mesh))

        def make(leaves: dict[str, Any], key: jax.Array, copy: int) -> Any:
            samples, given = split(source.joined(leaves))
            if change:
                samples = change(key, samples, self.times + copy)
            batch = prepare(samples, source.common)._replace(given=given)
            given = passed(functions, self.network, batch).given
            return gather((samples, given) if change else given)

        return make


def _filled(
    recipe: _Recipe,
    plain: Stored,
    previous: Stored | None,
    copies: int,
    place: str,
    folder: pathlib.Path,
    key: jax.Array,
    about: str,
) -> Stored:
    """The split with what is kept of it, where there is room for that."""
    size = min(recipe.experiment.batch_size, plain.length)
    source = previous or plain
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((copies * plain.length, *x.shape[1:]), x.dtype),
        jax.eval_shape(recipe.maker(source), _rows(source.leaves, 0, size), key, 0),
    )
    chosen = _choose(place, shapes, folder, previous)
    if not chosen.place and recipe.augment:
        # Computed at every step they are no copies: what is free here would decide
        # what is trained.
        raise ValueError(
            f"cache.copies: got {copies}, but their {chosen.why}; make room, or set "
            "cache.place=file or cache.copies=0"
        )
    if not chosen.place:
        _forget(previous, folder)
        return plain._replace(line=f"{about} computed at every step: {chosen.why}")
    if previous and not chosen.beside:
        _forget(previous, folder)
        source = plain
    line = f"{about} cached, place: {chosen.place}, {chosen.why}"
    if source.done:
        before = recipe.experiment.phases[source.done - 1].exits[-1]
        line += f", made from that of {LABEL} {before}"
    files = folder / str(recipe.phase + 1)
    arrays = _room_for(chosen.place, shapes, files, recipe.experiment.mesh)
    arrays = _fill(recipe.maker(source), source.leaves, arrays, size, copies, key)
    _forget(previous, folder)
    samples, given = arrays if recipe.augment else (plain.samples, arrays)
    return as_stored(samples, given, plain.common)._replace(
        copies=copies, line=line, place=chosen.place, done=recipe.phase + 1
    )


class _Choice(NamedTuple):
    """Where an output goes ("" for nowhere), why, and whether the old one may stay."""

    place: str
    why: str
    beside: bool = True


def _choose(
    place: str, shapes: Any, folder: pathlib.Path, previous: Stored | None
) -> _Choice:
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    # Everywhere in the same place, or the processes would not run the same program.
    left = from_first(lambda: _room(_existing(folder)))
    room = dict(left)
    if previous:  # as if that were given up already
        room[previous.place] += sum(x.nbytes for x in jax.tree.leaves(previous.given))
    fits = [name for name in PLACES if size <= _SHARE * room[name]]
    if place == "auto" and not fits:
        free = ", ".join(f"{name} {_mib(room[name])}" for name in PLACES)
        why = f"{_mib(size)} are too many (free: {free}; auto takes half)"
        return _Choice("", why)
    chosen = fits[0] if place == "auto" else place
    reason = f"{_mib(room[chosen])} are free there" if place == "auto" else "as asked"
    return _Choice(chosen, f"{_mib(size)} ({reason})", size <= _SHARE * left[chosen])


def _forget(stored: Stored | None, folder: pathlib.Path) -> None:
    """Give up what is kept, also in the hands of those who still hold it."""
    if stored is None:
        return
    stored.leaves.clear()
    if stored.place == "file":
        shutil.rmtree(folder / str(stored.done), ignore_errors=True)


def _existing(path: pathlib.Path) -> pathlib.Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _rows(leaves: dict[str, Any], start: int, count: int) -> dict[str, Any]:
    return {name: leaf[start : start + count] for name, leaf in leaves.items()}


def _fill(
    make: _Maker,
    leaves: dict[str, Any],
    arrays: Any,
    batch_size: int,
    copies: int,
    key: jax.Array,
) -> Any:
    """Arrays filled batch by batch, for each copy of the split."""
    count = len(next(iter(leaves.values())))
    targets, tree = jax.tree.flatten(arrays)
    for copy in range(copies):
        copy_key = jax.random.fold_in(key, copy)
        for first in range(0, count, batch_size):
            # The last batch is as large as the others, and overlaps the one before.
            start = min(first, count - batch_size)
            some = _rows(leaves, start, batch_size)
            made = make(some, jax.random.fold_in(copy_key, first), copy)
            at = copy * count + start
            for index, rows in enumerate(jax.tree.leaves(made)):
                if isinstance(targets[index], jax.Array):
                    targets[index] = _put(targets[index], rows, at)
                else:
                    targets[index][at : at + batch_size] = np.asarray(rows)
    return jax.tree.unflatten(tree, targets)


@functools.partial(jax.jit, donate_argnums=0)
def _put(array: jax.Array, rows: jax.Array, start: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(array, rows, start, 0)


def _room_for(
    place: str, shapes: Any, folder: pathlib.Path, mesh: jax.sharding.Mesh
) -> Any:
    """Empty arrays in a place."""
    if place == "device":
        whole = replicated(mesh)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=whole), shapes)
    if place == "host":
        return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)
    folder.mkdir(parents=True, exist_ok=True)
    leaves, tree = jax.tree.flatten(shapes)
    arrays = []
    for index, shape in enumerate(leaves):
        path = folder / str(index)
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                # A full disk is an error here; in the mapping it would be a crash.
                os.posix_fallocate(file.fileno(), 0, shape.size * shape.dtype.itemsize)
        arrays.append(np.memmap(path, shape.dtype, mode="r+", shape=shape.shape))
    return jax.tree.unflatten(tree, arrays)


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
