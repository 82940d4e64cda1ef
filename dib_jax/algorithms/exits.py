"""Exits: when a sample leaves a network early, and how a whole batch then runs.

A rule gives each sample at an exit a number from 0 to 1, its sureness. It leaves at the
first exit where this is at least a threshold τ, at the latest at the last one. Whatever
`Algorithm.pieces` cuts can be used so, however it was trained.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.algorithms import AtExit, Network, Piece
from dib_jax.tasks import Task

RULES = ("confidence", "entropy", "commitment")
_SIZE = 256  # samples that run at once
_LEAST = 16  # of the last ones, which fill no such batch


def confidence_logit(outputs: jax.Array) -> jax.Array:
    """log(p / (1 − p)) of the largest probability p of a softmax.

    Args:
        outputs: logits (n, c), c ≥ 2.

    Returns:
        (n,), without the cancellation of 1 − p where p is next to 1.
    """
    largest = jnp.max(outputs, axis=-1)
    is_it = jnp.arange(outputs.shape[-1]) == jnp.argmax(outputs, axis=-1)[:, None]
    return largest - jax.nn.logsumexp(jnp.where(is_it, -jnp.inf, outputs), axis=-1)


def sureness(rule: str, at: AtExit) -> jax.Array:
    """How sure an exit is of each sample.

    Args:
        rule: confidence (the largest probability), entropy (1 minus the entropy of the
            probabilities over that of a uniform distribution) or commitment (what the
            algorithm has learnt of when the exit is right).
        at: what is known of n samples there.

    Returns:
        (n,), 0 to 1.

    Raises:
        ValueError: there is no such rule, or no commitment.

    Source: entropy, Teerapittayanon, McDanel & Kung, BranchyNet, arXiv 1709.01686.
    """
    check_rule(rule)
    if rule == "confidence":
        return jax.nn.softmax(at.outputs).max(axis=-1)
    if rule == "entropy":
        logs = jax.nn.log_softmax(at.outputs)
        entropy = -jnp.sum(jnp.exp(logs) * logs, axis=-1)
        return jnp.clip(1 - entropy / np.log(at.outputs.shape[-1]), 0, 1)
    if at.commitment is None:
        raise ValueError(
            "exits: got the rule 'commitment', but the network has no commitment "
            "layers; use confidence or entropy, or train it by algorithm.name=cascade"
        )
    return at.commitment


def check_rule(rule: str) -> None:
    """Refuse a rule that there is not.

    Args:
        rule: its name.

    Raises:
        ValueError: it is none of `RULES`.
    """
    if rule not in RULES:
        raise ValueError(f"exits: must be one of {', '.join(RULES)}, got {rule!r}")


def right_of(task: Task) -> Callable[[jax.Array, Any], jax.Array]:
    """Whether outputs are right, sample by sample.

    Args:
        task: one that tells the class of each sample.

    Returns:
        (outputs (n, c), targets (n,)) → bool (n,).

    Raises:
        ValueError: the task is another.
    """
    # Only outputs that are class logits can be averaged over heads.
    if task.ensemble is None:
        raise ValueError(
            "exits need a task that tells one class of each sample; use "
            "task.name=classification"
        )
    return lambda outputs, targets: jnp.argmax(outputs, axis=-1) == targets


# Thresholds ---------------------------------------------------------------------------


class Curve(NamedTuple):
    """What each of t thresholds makes of a split.

    Attributes:
        taus: (t,), ascending.
        accuracy: (t,), share of samples that are right where they leave.
        flops: (t,), mean over the samples.
        shares: (t, k), of samples that leave at each exit.
    """

    taus: np.ndarray
    accuracy: np.ndarray
    flops: np.ndarray
    shares: np.ndarray


def leaving(sure: np.ndarray, tau: float) -> np.ndarray:
    """At which exit each sample leaves.

    Args:
        sure: (k, n), sureness at each of k exits; the last one's is not asked for.
        tau: the threshold.

    Returns:
        int (n,).
    """
    is_sure = sure >= tau
    is_sure[-1] = True
    return np.argmax(is_sure, axis=0)


def thresholds(sure: np.ndarray, count: int = 100) -> np.ndarray:
    """Thresholds at which the samples leave more or less evenly, 0 and 1 among them.

    Args:
        sure: (k, n), sureness at each exit.
        count: of quantiles of what the exits before the last one say.
    """
    if len(sure) < 2:
        return np.array([0.0, 1.0])
    quantiles = np.quantile(sure[:-1], np.linspace(0, 1, count + 1))
    return np.unique(np.concatenate([[0.0], quantiles, [1.0]]))


def curve(
    sure: np.ndarray, right: np.ndarray, flops: Sequence[float], taus: np.ndarray
) -> Curve:
    """Accuracy and cost at every threshold.

    Args:
        sure: (k, n), sureness at each exit.
        right: bool (k, n), whether each exit is right.
        flops: of a sample in each of the k pieces of the network.
        taus: (t,), the thresholds.
    """
    exits, samples = right.shape
    total = np.cumsum(flops)
    where = np.stack([leaving(sure, tau) for tau in taus])
    shares = np.stack([(where == k).mean(axis=1) for k in range(exits)], axis=1)
    accuracy = right[where, np.arange(samples)].mean(axis=1)
    return Curve(np.asarray(taus), accuracy, shares @ total, shares)


def choose(found: Curve, *, cost: float | None = None, loss: float = 0.0) -> float:
    """The threshold for a wanted cost, or for a wanted loss of accuracy.

    Args:
        found: of the validation split, which alone is to choose.
        cost: FLOPs that a sample may have in the mean; None to go by `loss`.
        loss: by how much the accuracy may be below the best at any threshold, 0..1.

    Returns:
        With `cost`, the threshold of the highest accuracy among those that are cheap
        enough, or the cheapest where none is; else the cheapest one of those that are
        accurate enough. At equal numbers the other one of the two decides.
    """
    if cost is None:
        allowed = found.accuracy >= found.accuracy.max() - loss - 1e-9
        order = np.lexsort((-found.accuracy, found.flops))
    else:
        allowed = found.flops <= max(cost, found.flops.min())
        order = np.lexsort((found.flops, -found.accuracy))
    return float(found.taus[next(i for i in order if allowed[i])])


# Running a network with exits ---------------------------------------------------------


class Answers(NamedTuple):
    """What n samples left with.

    Attributes:
        outputs: (n, …), of the exit of each.
        exits: int (n,), which one that was.
    """

    outputs: np.ndarray
    exits: np.ndarray


class _Queue(NamedTuple):
    """Samples that wait for a piece: twice as many rows as run at once."""

    carried: Any
    samples: jax.Array


Run = Callable[[Network, Any, Mapping[str, np.ndarray], float], Answers]


def compacted(
    pieces: Sequence[Piece],
    prepare: Callable[[Any, Any], Any],
    *,
    rule: str = "confidence",
    size: int = _SIZE,
) -> Run:
    """A network that only undecided samples go on through, in full batches.

    Samples that stay are moved together, and wait until there are enough of them for a
    batch of the next piece. So its time falls as its work does. All shapes are fixed:
    nothing is compiled anew for another number of samples.

    Args:
        pieces: of the network, one for each exit.
        prepare: (samples, common) → the network's input.
        rule: as of `sureness`.
        size: samples in a batch.

    Returns:
        (network, common, samples on the host, τ) → answers.
    """

    # Tracing takes longer than many batches: once for each kind of samples.
    known: dict[Any, list[Any]] = {}
    entered = jax.jit(
        functools.partial(_enter, pieces[0], rule, prepare), donate_argnums=3
    )
    gone_on = jax.jit(
        functools.partial(_go_on, tuple(pieces), rule),
        static_argnums=(0, 1),
        donate_argnums=5,
    )

    def run(
        network: Network, common: Any, samples: Mapping[str, np.ndarray], tau: float
    ) -> Answers:
        count = len(next(iter(samples.values())))
        rows = min(size, _power(count))
        kind = tuple((n, x.shape[1:], x.dtype) for n, x in samples.items())
        if kind not in known:
            known[kind] = _carried(pieces, prepare, network, common, samples)
        queues = _queues(known[kind], rows)
        flow = _Flow(entered, gone_on, network, tau, queues)
        for chosen, there in _batches(count, rows):
            some = {name: array[chosen] for name, array in samples.items()}
            flow.enter(some, common, chosen, there)
            for number in range(1, len(pieces)):
                if flow.filled[number] >= rows:
                    flow.go_on(number, rows)
        for number in range(1, len(pieces)):
            while waiting := flow.filled[number]:
                flow.go_on(number, min(rows, _power(waiting)))
        return _in_order(flow.left, count)

    return run


class _Flow:
    """One run: the queue before each piece, how full it is, and what has left."""

    def __init__(
        self,
        entered: Callable[..., Any],
        gone_on: Callable[..., Any],
        network: Network,
        tau: float,
        queues: list[_Queue | None],
    ) -> None:
        self._entered, self._gone_on = entered, gone_on
        self._network, self._tau, self._queues = network, tau, queues
        self.filled = [0] * len(queues)
        self.left: list[tuple[int, np.ndarray, np.ndarray]] = []

    def enter(self, some: Any, common: Any, numbers: np.ndarray, count: int) -> None:
        """Rows through the first piece; the first `count` of them are samples."""
        source = (some, common, numbers.astype(np.int32), self.filled[1])
        made = self._entered(self._network, self._tau, source, self._queues[1])
        self._account(0, made, count)

    def go_on(self, number: int, rows: int) -> None:
        """So many of those that wait before a piece through it."""
        waiting, after = self.filled[number : number + 2]
        source = (self._queues[number], waiting, after)
        made = self._gone_on(
            number, rows, self._network, self._tau, source, self._queues[number + 1]
        )
        self.filled[number] -= min(rows, waiting)
        self._account(number, made, min(rows, waiting))

    def _account(self, number: int, made: Any, count: int) -> None:
        outputs, numbers, stays, self._queues[number + 1] = made
        stays = np.asarray(stays)[:count]
        self.filled[number + 1] += int(stays.sum())
        gone = np.flatnonzero(~stays)
        self.left.append((number, np.asarray(outputs)[gone], np.asarray(numbers)[gone]))


def _enter(
    piece: Piece,
    rule: str,
    prepare: Callable[[Any, Any], Any],
    network: Network,
    tau: jax.Array,
    source: Any,
    queue: _Queue | None,
) -> Any:
    samples, common, numbers, filled = source
    x = prepare(samples, common)
    return _leave(piece, rule, network, (x, numbers), tau, queue, filled)


def _go_on(
    pieces: Sequence[Piece],
    rule: str,
    number: int,
    rows: int,
    network: Network,
    tau: jax.Array,
    source: Any,
    queue: _Queue | None,
) -> Any:
    waiting, count, filled = source
    # From the end, so that what stays behind need not move.
    start = jnp.maximum(count - rows, 0)
    x, numbers = jax.tree.map(
        lambda a: jax.lax.dynamic_slice_in_dim(a, start, rows), tuple(waiting)
    )
    return _leave(pieces[number], rule, network, (x, numbers), tau, queue, filled)


def _leave(
    piece: Piece,
    rule: str,
    network: Network,
    some: tuple[Any, jax.Array],
    tau: jax.Array,
    queue: _Queue | None,
    filled: jax.Array,
) -> Any:
    """A piece on some rows; those that stay join the queue for the next one."""
    x, numbers = some
    at = piece(network, x)
    if queue is None:  # the last exit, where all leave
        return at.outputs, numbers, jnp.zeros(len(numbers), bool), None
    # Rows that are no samples come last, and are not counted: others overwrite them.
    stays = sureness(rule, at) < tau
    order = jnp.argsort(~stays, stable=True)
    queue = jax.tree.map(
        lambda rows, new: jax.lax.dynamic_update_slice_in_dim(
            rows, new[order], filled, 0
        ),
        queue,
        _Queue(at.carried, numbers),
    )
    return at.outputs, numbers, stays, queue


def _carried(
    pieces: Sequence[Piece],
    prepare: Callable[[Any, Any], Any],
    network: Network,
    common: Any,
    samples: Mapping[str, np.ndarray],
) -> list[Any]:
    """Shapes of what each piece but the last carries on of one sample."""

    def carried(network: Network, common: Any, samples: Any) -> list[Any]:
        x, made = prepare(samples, common), []
        for piece in pieces[:-1]:
            x = piece(network, x).carried
            made.append(x)
        return made

    one = {name: array[:1] for name, array in samples.items()}
    return jax.eval_shape(carried, network, common, one)


def _queues(shapes: Sequence[Any], rows: int) -> list[_Queue | None]:
    """An empty queue before each piece but the first; None there and after the last."""

    def empty(shape: Any) -> _Queue:
        room = jax.tree.map(
            lambda x: jnp.zeros((2 * rows, *x.shape[1:]), x.dtype), shape
        )
        return _Queue(room, jnp.zeros(2 * rows, jnp.int32))

    return [None, *map(empty, shapes), None]


def _batches(count: int, rows: int) -> Iterator[tuple[np.ndarray, int]]:
    """Numbers of samples, the last one repeated up to a whole batch; how many count."""
    for first in range(0, count, rows):
        chosen = np.minimum(np.arange(first, first + rows), count - 1)
        yield chosen, min(rows, count - first)


def _in_order(left: list[tuple[int, np.ndarray, np.ndarray]], count: int) -> Answers:
    outputs = np.concatenate([each[1] for each in left])
    numbers = np.concatenate([each[2] for each in left])
    exits = np.concatenate([np.full(len(each[2]), each[0]) for each in left])
    order = np.argsort(numbers, kind="stable")
    assert len(order) == count
    return Answers(outputs[order], exits[order])


def _power(count: int) -> int:
    """The power of two from `count` on, at least `_LEAST`."""
    return max(_LEAST, 1 << (count - 1).bit_length())
