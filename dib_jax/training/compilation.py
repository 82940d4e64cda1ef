"""The compiled epoch of a phase: one `lax.scan` over its steps."""

import concurrent.futures
import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.algorithms import Common, Network, Phase, State
from dib_jax.algorithms.ordering import apart
from dib_jax.data.stream import stream
from dib_jax.training.devices import by_sample, put, replicated, split_evenly
from dib_jax.training.experiment import Experiment
from dib_jax.training.loops import flops_of_loops
from dib_jax.training.storage import Stored, chain, passed

# Of what comes from the host, so much is sent to the device for one `lax.scan`.
_CHUNK_BYTES = 2**26


class Keys(NamedTuple):
    """PRNG keys of a phase's training: of its steps, orders of samples and copies."""

    step: jax.Array
    order: jax.Array
    copies: jax.Array


def keys_of(experiment: Experiment, phase: Phase) -> Keys:
    """The keys of a phase; those of two phases have nothing in common.

    Args:
        experiment: the experiment.
        phase: one of its phases.
    """
    key = jax.random.split(jax.random.fold_in(experiment.key, phase.exits[0]))[1]
    step, order = jax.random.split(key)
    return Keys(step, order, jax.random.split(key, 3)[2])


def one_step(
    experiment: Experiment,
    index: int,
    stored: Stored,
    state: State,
    network: Network,
    common: Common,
    leaves: dict[str, Any],
    key: jax.Array,
    step: jax.Array,
) -> tuple[State, Any]:
    """One step of a phase, from rows of a split to the new state and its terms.

    Args:
        experiment: the experiment.
        index: number of the phase.
        stored: the split, for its structure.
        state: of the phase.
        network: what is trained before.
        common: what all samples share.
        leaves: rows of the split's leaves.
        key: PRNG key of the phase's steps.
        step: updates that the phase has made.

    Returns:
        The new state, and the terms of each of the phase's exits, in their order. In a
        program their numbers would tell stages apart that are alike.

    Raises:
        ValueError: the step changes what the state is made of, or its terms are not
            scalars of the phase's exits.
    """
    phase = experiment.phases[index]
    samples, given = split_evenly(experiment.mesh, stored.joined(leaves))
    augment_key, key = jax.random.split(jax.random.fold_in(key, step))
    if experiment.augment and given is None:
        epoch = step // (stored.length // batch_size(experiment, stored))
        samples = apart(experiment.augment, augment_key, samples, epoch)
    batch = experiment.prepare(samples, common)._replace(given=given)
    if given is None:
        batch = passed(chain(experiment, index), network, batch)
    made = phase.step(state, network, batch, key)
    if wrong := _what_is_wrong(phase, state, made):
        raise ValueError(
            f"algorithm.name: {experiment.about.get('algorithm')!r} has a step {wrong}"
        )
    state, terms = made
    return state, tuple(terms[number] for number in phase.exits)


def _what_is_wrong(phase: Phase, state: State, made: Any) -> str:
    """How what a step returns breaks the contract; "" where it does not."""
    if not (isinstance(made, tuple) and len(made) == 2):
        return f"that returns {type(made).__name__}; it must return (state, terms)"
    structures: list[Any] = [jax.tree.structure(tree) for tree in (state, made[0])]
    if structures[0] != structures[1]:
        return "that returns a state of another structure than it got"
    before = jax.tree_util.tree_leaves_with_path(state)
    for (path, old), new in zip(before, jax.tree.leaves(made[0]), strict=True):
        was, becomes = (
            f"{x.dtype}{list(x.shape)}" for x in map(jnp.asarray, (old, new))
        )
        if was != becomes:
            place = f"state{jax.tree_util.keystr(path)}"
            return f"that makes {becomes} of {place}, which was {was}; it must stay"
    terms = made[1]
    if set(terms) != set(phase.exits):
        return (
            f"with terms for {', '.join(map(repr, terms)) or 'nothing'}; it must have "
            f"a dict of scalars for each of the exits {phase.exits}"
        )
    for name, term in (item for values in terms.values() for item in values.items()):
        if shape := jnp.shape(jax.tree.leaves(term)[0]):
            return f"whose term {name!r} has the shape {shape}; it must be a scalar"
    return ""


def epoch_rows(
    key: jax.Array, step: jax.Array, *, samples: int, batch_size: int, copies: int = 1
) -> jax.Array:
    """Which rows of the training split an epoch's steps take: a new random order.

    Args:
        key: PRNG key of the orders.
        step: updates that the phase has made.
        samples: of the training split.
        batch_size: samples of a step.
        copies: of the split that there are.

    Returns:
        (steps, batch_size), rows among copies · samples, all of one copy, each copy in
        turn; the samples mod batch_size last ones of the order are left out.
    """
    steps = samples // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, step), samples)
    order = order[: steps * batch_size]
    copy = step // steps % copies
    rows = (order + copy * samples).reshape(steps, batch_size)
    return rows.astype(jnp.int32)


@functools.cache
def _epoch_rows(whole: jax.sharding.Sharding) -> Callable[..., jax.Array]:
    """`epoch_rows`, one program for all phases of the same sizes."""
    return jax.jit(
        epoch_rows,
        static_argnames=("samples", "batch_size", "copies"),
        out_shardings=whole,
    )


def batch_size(experiment: Experiment, stored: Stored) -> int:
    """Samples of a step: the config's, or all that a phase has left.

    Args:
        experiment: the experiment.
        stored: the training split as the phase reads it.
    """
    return min(experiment.batch_size, stored.length)


def _paced(experiment: Experiment, index: int, stored: Stored) -> Experiment:
    """The experiment with a phase that knows how many updates its epochs make."""
    make = experiment.phases[index].paced
    if make is None:
        return experiment
    phases = list(experiment.phases)
    phases[index] = make(stored.length // batch_size(experiment, stored))
    algorithm = experiment.algorithm._replace(phases=tuple(phases))
    return experiment._replace(algorithm=algorithm)


class Epoch(NamedTuple):
    """A compiled epoch.

    Attributes:
        run: (state, network, stored, steps made) → (state, terms), each term (steps,).
        steps: updates that it makes.
        figures: of the compiler, for one step.
        seconds: that compilation took.
    """

    run: Callable[[State, Network, Stored, int], tuple[State, Any]]
    steps: int
    figures: dict[str, int | None]
    seconds: float


def compile_epoch(
    experiment: Experiment, index: int, state: State, network: Network, stored: Stored
) -> Epoch:
    """Compile the epoch of a phase.

    It is one `lax.scan`, or one for each chunk where samples come from the host.

    Args:
        experiment: the experiment.
        index: number of the phase.
        state: of the phase.
        network: what is trained before.
        stored: the training split; another one of the same shapes can be run, too.
    """
    start = time.monotonic()
    experiment = _paced(experiment, index, stored)
    whole, size = replicated(experiment.mesh), batch_size(experiment, stored)
    exits = experiment.phases[index].exits
    keys = put(keys_of(experiment, experiment.phases[index]), whole)
    steps = stored.length // size
    step_bytes = size * sum(leaf[0].nbytes for leaf in stored.on_host.values())
    chunk = min(max(1, _CHUNK_BYTES // step_bytes), steps) if step_bytes else steps
    with figures_beside(experiment, index, stored, state, network) as figures_of_step:
        compiled = {
            count: _lower_steps(
                experiment, index, stored, state, network, count
            ).compile()
            for count in {chunk, steps % chunk or chunk}
        }
        figures = figures_of_step()
    sizes = {"samples": stored.length, "batch_size": size, "copies": stored.copies}

    def rows_of(made: int) -> np.ndarray:
        number = put(np.int32(made), whole)
        return np.asarray(_epoch_rows(whole)(keys.order, number, **sizes))

    rows_of(0)  # compiled here, and not within the first epoch

    def run(
        state: State, network: Network, stored: Stored, made: int
    ) -> tuple[State, Any]:
        recorded: list[Any] = []
        rows = rows_of(made)
        read = stream(stored.on_host, rows, steps=chunk) if step_bytes else [{}]
        for first, sent in zip(range(0, steps, chunk), read, strict=True):
            # One chunk at work and one that waits: the device need not hold them all.
            jax.block_until_ready(recorded[-2:-1])
            some = put(rows[first : first + chunk], whole)
            sent = put(sent, by_sample(experiment.mesh, size, axis=1))
            number = put(np.int32(made + first), whole)
            state, terms = compiled[len(some)](
                state, network, stored.common, stored.on_device, some, sent,
                keys.step, number,
            )  # fmt: skip
            recorded.append(terms)
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *recorded)
        return state, dict(zip(exits, joined, strict=True))

    return Epoch(run, steps, figures, time.monotonic() - start)


@contextlib.contextmanager
def figures_beside(
    experiment: Experiment, index: int, stored: Stored, state: State, network: Network
) -> Iterator[Callable[[], dict[str, int | None]]]:
    """Compile a step for the compiler's figures while something else is done.

    The arguments are those of `lower_step`.
    """
    lowered = lower_step(experiment, index, stored, state, network)
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        compiled = beside.submit(lowered.compile)
        yield lambda: compiler_figures(compiled.result())


def _lower_steps(
    experiment: Experiment,
    index: int,
    stored: Stored,
    state: State,
    network: Network,
    count: int,
) -> jax.stages.Lowered:
    """So many steps of a phase as a program."""
    whole, size = replicated(experiment.mesh), batch_size(experiment, stored)
    step = functools.partial(one_step, experiment, index, stored)

    def run_steps(
        state: State,
        network: Network,
        common: Common,
        data: Any,
        rows: jax.Array,
        sent: Any,
        key: jax.Array,
        first: jax.Array,
    ) -> tuple[State, Any]:
        def body(state: State, now: tuple[jax.Array, Any, jax.Array]) -> Any:
            rows, sent, number = now
            leaves = {name: leaf[rows] for name, leaf in data.items()} | sent
            return step(state, network, common, leaves, key, number)

        numbers = first + jnp.arange(len(rows), dtype=jnp.int32)
        return jax.lax.scan(body, state, (rows, sent, numbers))

    return jax.jit(run_steps, donate_argnums=0, out_shardings=whole).lower(
        state,
        network,
        stored.common,
        stored.on_device,
        jax.ShapeDtypeStruct((count, size), jnp.int32, sharding=whole),
        _like(experiment, stored.on_host, count, size),
        put(keys_of(experiment, experiment.phases[index]).step, whole),
        put(np.int32(0), whole),
    )


def lower_step(
    experiment: Experiment, index: int, stored: Stored, state: State, network: Network
) -> jax.stages.Lowered:
    """One step of a phase as a program, for the compiler's figures.

    Args:
        experiment: the experiment.
        index: number of the phase.
        stored: the training split.
        state: of the phase.
        network: what is trained before.
    """
    whole = replicated(experiment.mesh)
    batch = _like(experiment, stored.leaves, batch_size(experiment, stored))
    key = put(keys_of(experiment, experiment.phases[index]).step, whole)
    step = functools.partial(one_step, experiment, index, stored)
    return jax.jit(step, donate_argnums=0, out_shardings=whole).lower(
        state, network, stored.common, batch, key, put(np.int32(0), whole)
    )


def _like(experiment: Experiment, leaves: dict[str, Any], *shape: int) -> Any:
    sharding = by_sample(experiment.mesh, shape[-1], axis=len(shape) - 1)
    return {
        name: jax.ShapeDtypeStruct(
            (*shape, *leaf.shape[1:]), leaf.dtype, sharding=sharding
        )
        for name, leaf in leaves.items()
    }


def compiler_figures(compiled: jax.stages.Compiled) -> dict[str, int | None]:
    """The compiler's own account of a program; None where a backend gives none.

    Args:
        compiled: what `jax.jit(function).lower(…).compile()` returns.

    Returns:
        `temp_bytes` and `peak_bytes` of `memory_analysis()`, and `flops`: those of
        `cost_analysis()`, and of products and convolutions in the turns of loops that
        it leaves out.
    """
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    flops = cost.get("flops")
    if flops is not None:
        flops += flops_of_loops(compiled.as_text() or "")
    return {
        "temp_bytes": getattr(memory, "temp_size_in_bytes", None),
        "peak_bytes": getattr(memory, "peak_memory_in_bytes", None),
        "flops": None if flops is None else round(flops),
    }
