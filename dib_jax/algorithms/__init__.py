"""Ways to train: what the loop runs, and what it is not to know.

An algorithm is a tuple of phases, a way to predict and a way to read features. A phase
is pure functions on pytrees. The loop runs one phase after the other: it owns epochs,
the random order of samples, devices, caches, checkpoints, validation and selection. It
does not know what a step does.

A new algorithm is one file beside this one with a function of its name,
`name(parts, *, options) -> Algorithm`, or `their_file:name` from anywhere.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dib_jax.objectives import Objective, Occasional, Terms
from dib_jax.tasks import Task

__all__ = [
    "Algorithm",
    "AtExit",
    "Batch",
    "Common",
    "Data",
    "Given",
    "Network",
    "Occasional",
    "Parts",
    "Phase",
    "Piece",
    "Samples",
    "State",
    "Terms",
    "in_batches",
    "per_phase",
]

# Any pytree of arrays: what a phase trains, and what it has trained.
State = Any
Network = Any
# Pytrees of arrays whose first axis counts samples: as the data set has them, and what
# frozen parts made of them.
Samples = Any
Given = Any
# A pytree of arrays that all samples share.
Common = Any

# Batches of samples on the host that are on the device at a time.
_AT_A_TIME = 8


class Batch(NamedTuple):
    """What a step may see of n samples.

    Attributes:
        inputs: the network's input, (n, …), as the data set prepares it.
        targets: pytree of arrays (n, …), as the task makes them.
        given: what frozen parts of the network made of the samples, (n, …), by
            `Phase.given`; None where there are none.
        common: what all samples of the data set share; no axis of samples.
    """

    inputs: Any
    targets: Any
    given: Given = None
    common: Common = ()


class Data(flax.struct.PyTreeNode):
    """A whole split.

    Attributes:
        samples: pytree of arrays of one length n, as the data set has them.
        common: what all samples share.
        prepare: (samples, common) → `Batch`, for any number of samples.
        validates: whether it is the validation split, which is never trained on.
    """

    samples: Samples
    common: Common
    prepare: Callable[[Samples, Common], Batch] = flax.struct.field(pytree_node=False)
    validates: bool = flax.struct.field(pytree_node=False, default=False)

    def __len__(self) -> int:
        """How many samples there are."""
        return len(jax.tree.leaves(self.samples)[0])

    def take(self, rows: slice | jax.typing.ArrayLike) -> "Data":
        """Some of the samples.

        Args:
            rows: their numbers, or a slice.
        """
        return self.replace(samples=jax.tree.map(lambda x: x[rows], self.samples))

    def batch(self) -> Batch:
        """All samples, prepared."""
        return self.prepare(self.samples, self.common)


def no_notices(means: Mapping[str, float]) -> dict[str, str]:
    """Nothing to say, whatever was recorded."""
    del means
    return {}


class Phase(NamedTuple):
    """One stretch of training, as pure functions; holds no arrays.

    Attributes:
        init: (key, network, example) → state, any pytree. The key is that of the whole
            experiment: fold in the number of the stage, so that it starts alike in
            every algorithm. The example is a `Batch` of two samples, before `enter`
            and `given`; only its shapes count.
        step: (state, network, batch, key) → (state, terms): one update, what the loop
            scans. The key is new at every step. `terms` has the scalars to record by
            name, for each of `exits`: {0: {"loss": …}}.
        read: (state, network) → the network with what was learnt, for `predict`,
            `features`, `outputs` and the phases that follow.
        epochs: how often it sees the data.
        exits: what its outputs are called: numbers of the stages that they are of, or
            any that no other phase uses. They name its lines in metrics.jsonl and
            results.json.
        predicts: whether `predict` has an output for each of its exits; False for a
            phase that learns without targets. Then its last epoch counts.
        trains: which of `Algorithm.features` it changes; None for all of them.
        enter: (network, data) → data, once for a whole split at the phase's start: a
            selection of samples, propagation over a graph. None where it changes
            nothing.
        given: (network, batch) → `batch.given` for this phase: what was frozen last
            makes of the batch, whose `given` is that of the phase before. The loop
            keeps it, streams it, or computes it at every step, then inside a compiled
            program. None where the phase reads what the one before was given.
        outputs: (network, batch) → the outputs of each of `exits`, from `batch.given`
            on; for validation, with `targets` None. None: the last ones of
            `Algorithm.predict`.
        notices: means of one exit's terms over an epoch → messages by name, of what
            they show to be wrong. The loop prints them, and results.json has the names.
        paced: updates in an epoch → the same phase where it makes so many, as after a
            selection by `enter`; only what depends on how far training is may differ.
            None where nothing does, or `Parts.steps` is the number.
    """

    init: Callable[[jax.Array, Network, Batch], State]
    step: Callable[
        [State, Network, Batch, jax.Array], tuple[State, Mapping[int, Terms]]
    ]
    read: Callable[[State, Network], Network]
    epochs: int
    exits: tuple[int, ...] = (0,)
    predicts: bool = True
    trains: tuple[int, ...] | None = None
    enter: Callable[[Network, Data], Data] | None = None
    given: Callable[[Network, Batch], Given] | None = None
    outputs: Callable[[Network, Batch], tuple[jax.Array, ...]] | None = None
    notices: Callable[[Mapping[str, float]], dict[str, str]] = no_notices
    paced: Callable[[int], "Phase"] | None = None


class AtExit(NamedTuple):
    """What is known of n samples at an exit.

    Attributes:
        carried: what the next piece of the network reads, a pytree of arrays (n, …).
        outputs: of the exit, (n, …) float32.
        commitment: how far the exit stands by its outputs, (n,), 0..1; None where the
            algorithm has learnt nothing of that.
    """

    carried: Any
    outputs: jax.Array
    commitment: jax.Array | None = None


# A network from one exit to the next: (network, x) → what is known of the samples. x is
# `Batch.inputs` for the first piece, and what the one before carries for the others.
Piece = Callable[[Network, Any], AtExit]


class Algorithm(NamedTuple):
    """A way to train.

    Attributes:
        phases: in the order in which they train.
        predict: (network, batch) → the outputs of every exit, (n, …) float32, input
            side first; of the batch, `targets` and `given` are None.
        features: (network, batch) → an array (n, …) for each stage, input side first.
            The network is complete: where phases have not begun, as `init` makes it.
        network: before the first phase.
        about: the trained network → further entries of results.json, plain JSON.
        pieces: the network cut behind each of its exits, so that some samples can leave
            at one and only the others go on; () where it cannot be cut.
    """

    phases: tuple[Phase, ...]
    predict: Callable[[Network, Batch], tuple[jax.Array, ...]]
    features: Callable[[Network, Batch], tuple[jax.Array, ...]]
    network: Network = ()
    about: Callable[[Network], dict[str, Any]] = lambda network: {}
    pieces: tuple[Piece, ...] = ()


class Parts(NamedTuple):
    """What a config gives an algorithm to work with.

    Attributes:
        stages: the modules of the network, input side first.
        head: number of a stage → the module of its auxiliary head.
        task: what is predicted.
        objective: the local loss.
        optimizer: a number of epochs, and of updates in each where that is not `steps`
            → the optimizer for a training of that length.
        epochs: of every phase, or one number for each.
        steps: updates in an epoch of the whole training split; 0 where unknown.
        compute_dtype: of activations, and of parameters as they are applied.
    """

    stages: tuple[nn.Module, ...]
    head: Callable[[int], nn.Module]
    task: Task
    objective: Objective
    optimizer: Callable[..., optax.GradientTransformation]
    epochs: int | tuple[int, ...]
    steps: int = 0
    compute_dtype: jax.typing.DTypeLike = jnp.float32


def per_phase(epochs: int | tuple[int, ...], phases: int) -> tuple[int, ...]:
    """The epochs of each phase.

    Args:
        epochs: one number for all, or one for each.
        phases: how many there are.

    Raises:
        ValueError: `epochs` has another number of them.
    """
    if isinstance(epochs, int):
        return (epochs,) * phases
    if len(epochs) != phases:
        raise ValueError(
            f"epochs: got {tuple(epochs)!r}, {len(epochs)} numbers for {phases} phases "
            "of training; must be one number, or one for each phase"
        )
    return tuple(epochs)


def in_batches(
    function: Callable[[Batch], Any],
    data: Data,
    *,
    given: Given = None,
    size: int = 512,
) -> Any:
    """A function of batches on a whole split, so many samples at once.

    Samples that are on the host are sent to the device some batches at a time, and
    their results come back to it.

    Args:
        function: batch → pytree of arrays (n, …).
        data: the split; at least one sample.
        given: `Batch.given` of all its samples.
        size: samples in a batch. The last one is filled up with zeros.

    Returns:
        Its results, joined along the first axis.
    """
    count = len(data)
    size = min(size, count)

    def batched(x: jax.Array) -> jax.Array:
        padding = ((0, -len(x) % size), *[(0, 0)] * (x.ndim - 1))
        return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])

    def one(batch: tuple[Any, Any]) -> Any:
        samples, given = batch
        return function(data.prepare(samples, data.common)._replace(given=given))

    def together(samples: Any) -> Any:
        # Every batch has one shape, so the scan is compiled once.
        results = jax.lax.map(one, jax.tree.map(batched, samples))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)

    samples = (data.samples, given)
    if not any(isinstance(x, np.ndarray) for x in jax.tree.leaves(samples)):
        return jax.tree.map(lambda x: x[:count], together(samples))
    made, stretch = [], _AT_A_TIME * size
    for first in range(0, count, stretch):
        rows = slice(first, first + stretch)
        some = jax.tree.map(lambda x, rows=rows: x[rows], samples)
        made.append(jax.device_get(together(some)))
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *made)
