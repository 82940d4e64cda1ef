"""Graph convolutions layer by layer, and a learned controller that stops each layer.

The controller of the authors' code differs: it has an output layer for each decision, a
state that goes on through the layers, a learnt table for its last action, the fixed
mean of the last round's probabilities as its threshold, and a learning rate of 0.05.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from dib_jax.algorithms import Algorithm, Batch, Data, Parts, Phase, Terms, per_phase
from dib_jax.algorithms.blocks import Block, StageState, initial_state, update
from dib_jax.algorithms.blocks import Network as Layers
from dib_jax.algorithms.lgcn import layer_blocks, layer_phase, whole
from dib_jax.algorithms.nodes import (
    as_one_sample,
    dense,
    graph_of,
    joined,
    neighbours,
    without_sample_axis,
)
from dib_jax.algorithms.stopping import Memory, Rule, until
from dib_jax.models.graph import applied
from dib_jax.models.options import check_at_least, check_positive

_UNITS = 8  # of the LSTM
_PERIOD = 10  # epochs from one decision to the next
_SCALE = 0.1  # of what the controller reads
_KEPT = 0.9  # of the baseline in each round


class Network(NamedTuple):
    """What is trained.

    Attributes:
        controller: parameters of the controller; () before it is trained.
        layers: of the graph network.
    """

    controller: Any = ()
    layers: Layers = Layers()


class Controller(nn.Module):
    """An LSTM cell that says how likely it is to stop now."""

    @nn.compact
    def __call__(self, carry: Any, seen: jax.Array) -> tuple[Any, jax.Array]:
        """One decision.

        Args:
            carry: of the cell.
            seen: (m,), what it reads.

        Returns:
            The carry, and the logit of stopping.
        """
        carry, out = nn.LSTMCell(_UNITS)(carry, seen)
        return carry, nn.Dense(1)(out)[0]


class _Searching(NamedTuple):
    """State of the controller's training; `cost` is the moving mean, or −1 at first."""

    params: Any
    optimizer: Any
    cost: jax.Array


class _Rollout(NamedTuple):
    """A layer's decisions, (decisions, …) each, and how its training ended."""

    seen: jax.Array
    stops: jax.Array
    counts: jax.Array
    state: StageState
    loss: jax.Array
    epochs: jax.Array


def l2gcn(
    parts: Parts,
    *,
    rule: str = "residual",
    inductive: bool = False,
    samples: int = 1024,
    price: float = 1e-4,
    earliest: int = 35,
    controller_rate: float = 0.01,
) -> Algorithm:
    """L-GCN whose layers are stopped by a controller that is learned beforehand.

    An LSTM cell of 8 units reads 0.1 · [loss − first loss + 1, one-hot layer] and its
    last action every 10 epochs. The first phase learns it by REINFORCE: in a round,
    which is an epoch of that phase, all layers train on a sample of nodes with actions
    that are drawn, and the cost is the last layer's loss + price · epochs. Then each
    layer stops where the probability is at least its mean so far, from `earliest` on.

    The authors' released loop plays fixed actions in its first 50 rounds and credits
    the ones it has drawn instead. Here the actions that are credited are those that
    were played.

    Args:
        parts: network (gcn), heads, objective, as a config has them. `epochs` has the
            number of rounds, then the most epochs of each layer.
        rule: how neighbours are joined: residual, symmetric or mean.
        inductive: whether in training only edges between training nodes count.
        samples: nodes of a round, at least the steps of an epoch, which has as many in
            a round; all training nodes where there are fewer.
        price: of an epoch, in nats.
        earliest: epochs before which no layer stops.
        controller_rate: learning rate of the controller, by Adam.

    Raises:
        ValueError: as of `lgcn`, or `samples` are fewer than the steps of an epoch.

    Source: You, Chen, Wang & Shen, arXiv 2003.13606, section 3.3.
    """
    check_at_least(0, price=price, earliest=earliest)
    check_at_least(2, samples=samples)
    check_positive(controller_rate=controller_rate)
    rounds, *most = per_phase(parts.epochs, len(parts.stages) + 1)
    parts = parts._replace(epochs=tuple(most))
    blocks = layer_blocks(parts, rule)
    search = _Search(blocks, tuple(most), rule, inductive, samples, price)
    steps, phases = max(1, parts.steps), []
    _check_samples(samples, steps)
    for k in range(len(blocks)):
        phase = layer_phase(parts, blocks, k, rule=rule, inductive=inductive)
        stop = _stopping(len(blocks), k, earliest)
        phases.append(_in_network(until(phase, stop, steps=steps)))
    made = whole([], blocks, rule=rule)
    return Algorithm(
        phases=(_learning(search, rounds, steps, controller_rate), *phases),
        predict=lambda network, batch: made.predict(network.layers, batch),
        features=lambda network, batch: made.features(network.layers, batch),
        network=Network(),
    )


def _check_samples(samples: int, steps: int) -> None:
    # An epoch of a round has as many updates as one of a layer's own training: the
    # controller reads losses after them, and a learning rate may fall with them.
    if samples < steps:
        raise ValueError(
            f"samples must be ≥ {steps}, the steps of an epoch, got {samples}; raise "
            "it or batch_size"
        )


def _in_network(phase: Phase) -> Phase:
    """A phase of the layers, which reads the controller beside them."""
    enter, outputs = phase.enter, phase.outputs
    assert enter is not None
    assert outputs is not None
    return phase._replace(
        init=lambda key, network, example: phase.init(key, network.layers, example),
        read=lambda state, network: network._replace(
            layers=phase.read(state, network.layers)
        ),
        enter=lambda network, data: enter(network.layers, data),
        outputs=lambda network, batch: outputs(network.layers, batch),
    )


# Decisions ----------------------------------------------------------------------------


def _start() -> Any:
    zero = jnp.zeros(_UNITS)
    return zero, zero


def _seen(
    loss: jax.Array, first: jax.Array, layer: int, depth: int, action: jax.Array
) -> jax.Array:
    """What the controller reads, (depth + 2,)."""
    place = jax.nn.one_hot(layer, depth)
    read = jnp.concatenate([jnp.atleast_1d(loss - first + 1), place])
    return jnp.concatenate([_SCALE * read, jnp.atleast_1d(action)])


def _decided(params: Any, carry: Any, seen: jax.Array) -> tuple[Any, jax.Array]:
    made: Any = Controller().apply(params, carry, seen)
    return made[0], made[1]


def _stopping(depth: int, layer: int, earliest: int) -> Rule:
    """The rule of a trained controller; its last action is always to go on."""

    def start() -> Memory:
        zero = jnp.zeros(())
        return _start(), zero, zero, zero

    def decide(
        network: Network, memory: Memory, loss: jax.Array, epoch: jax.Array
    ) -> tuple[Memory, jax.Array]:
        carry, first, total, count = memory
        first = jnp.where(epoch == 1, loss, first)
        seen = _seen(loss, first, layer, depth, jnp.zeros(()))
        new, logit = _decided(network.controller, carry, seen)
        chance = jax.nn.sigmoid(logit)
        asked = epoch % _PERIOD == 0
        memory = jax.tree.map(
            lambda new, old: jnp.where(asked, new, old),
            (new, first, total + chance, count + 1),
            (carry, first, total, count),
        )
        # Not below the mean by rounding alone.
        is_high = chance >= memory[2] / jnp.maximum(memory[3], 1) - 1e-6
        return memory, asked & (epoch > earliest) & is_high

    return Rule(start, decide)


# Learning -----------------------------------------------------------------------------


class _Search(NamedTuple):
    """What a round is made of."""

    blocks: Sequence[Block]
    most: tuple[int, ...]
    rule: str
    inductive: bool
    samples: int
    price: float


def _learning(search: _Search, rounds: int, steps: int, rate: float) -> Phase:
    """The phase that learns the controller; an epoch is a round."""
    number, optimizer = len(search.blocks), optax.adam(rate)

    def enter(network: Network, data: Data) -> Data:
        first = joined(data, (), (), rule=search.rule, inductive=search.inductive)
        return as_one_sample(network, first)

    def init(key: jax.Array, network: Network, example: Batch) -> _Searching:
        seen = jnp.zeros(len(search.blocks) + 2)
        params = Controller().init(jax.random.fold_in(key, number), _start(), seen)
        return _Searching(params, optimizer.init(params), jnp.full((), -1.0))

    def step(
        state: _Searching, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[_Searching, dict[int, Terms]]:
        batch = without_sample_axis(batch)
        layers = _round(search, state.params, batch, steps, key)
        epochs = sum((one.epochs for one in layers), jnp.zeros((), jnp.int32))
        cost = layers[-1].loss + search.price * epochs
        baseline = jnp.where(state.cost < 0, cost, state.cost)
        gradient = jax.grad(
            lambda params: (
                (cost - baseline)
                * sum((_log_chance(params, one) for one in layers), jnp.zeros(()))
            )
        )(state.params)
        updates, moments = optimizer.update(gradient, state.optimizer)
        params = optax.apply_updates(state.params, updates)
        baseline = _KEPT * baseline + (1 - _KEPT) * cost
        terms: Terms = {"loss": layers[-1].loss, "cost": cost, "baseline": baseline}
        terms |= {
            f"epochs_{k}": one.epochs.astype(jnp.float32)
            for k, one in enumerate(layers)
        }
        return _Searching(params, moments, baseline), {number: terms}

    def read(state: _Searching, network: Network) -> Network:
        return network._replace(controller=state.params)

    return Phase(
        init, step, read, rounds, exits=(number,), predicts=False, trains=(),
        enter=enter,
    )  # fmt: skip


def _round(
    search: _Search, params: Any, batch: Batch, steps: int, key: jax.Array
) -> list[_Rollout]:
    """Train all layers on a sample, with drawn actions."""
    graph, count = graph_of(batch), len(batch.targets)
    near = neighbours(graph, search.rule, training=search.inductive)
    draw, key = jax.random.split(key)
    rows = jax.random.permutation(draw, count)[: search.samples]
    batch = batch._replace(
        inputs=jax.tree.map(lambda x: x[rows], batch.inputs),
        targets=batch.targets[rows],
    )
    x, layers = graph.features, []
    given = dense(batch.inputs["features"], x.shape[1])
    for k, block in enumerate(search.blocks):
        own = batch._replace(inputs=graph.rows(batch.inputs["nodes"]), given=given)
        one = _rollout(search, k, params, own, steps, jax.random.fold_in(key, k))
        layers.append(one)
        if k + 1 < len(search.blocks):
            entry = {"params": one.state.params[0]}
            x = applied(block.stages[0], entry, x, neighbours=near)
            given = near.join(x)[batch.inputs["nodes"]]
    return layers


def _rollout(
    search: _Search, k: int, params: Any, batch: Batch, steps: int, key: jax.Array
) -> _Rollout:
    """Train one layer until an action stops it."""
    block, depth = search.blocks[k], len(search.blocks)
    count, size = len(batch.targets), len(batch.targets) // steps
    init_key, key = jax.random.split(key)
    state = initial_state(block, init_key, batch.inputs, batch.given)

    def epoch(number: jax.Array, now: Any) -> Any:
        state, first, _ = now
        order = jax.random.permutation(jax.random.fold_in(key, number), count)
        order = order[: steps * size].reshape(steps, size)

        def one(state: StageState, rows: jax.Array) -> tuple[StageState, jax.Array]:
            some = batch._replace(
                inputs=batch.inputs[rows], given=batch.given[rows],
                targets=batch.targets[rows],
            )  # fmt: skip
            step_key = jax.random.fold_in(key, state.step)
            state, terms, _ = update(block, state, some, step_key)
            return state, jnp.asarray(terms["loss"])

        state, losses = jax.lax.scan(one, state, order)
        loss = losses.mean()
        return state, jnp.where(number == 0, loss, first), loss

    def period(now: Any, number: jax.Array) -> tuple[Any, Any]:
        state, first, loss, carry, going, epochs = now
        begin = number * _PERIOD
        end = jnp.where(going, jnp.minimum(begin + _PERIOD, search.most[k]), begin)
        state, first, loss = jax.lax.fori_loop(begin, end, epoch, (state, first, loss))
        seen = _seen(loss, first, k, depth, jnp.zeros(()))
        carry, logit = _decided(params, carry, seen)
        draw_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
        stop = jax.random.bernoulli(draw_key, jax.nn.sigmoid(logit))
        # After the last epoch nothing is decided any more.
        counts = going & (end < search.most[k])
        epochs = epochs + end - begin
        now = state, first, loss, carry, going & ~stop, epochs
        return now, (seen, stop, counts)

    zero = jnp.zeros(())
    start = (state, zero, zero, _start(), jnp.array(True), jnp.zeros((), jnp.int32))
    periods = jnp.arange(-(-search.most[k] // _PERIOD))
    end, (seen, stops, counts) = jax.lax.scan(period, start, periods)
    return _Rollout(seen, stops, counts, end[0], end[2], end[5])


def _log_chance(params: Any, layer: _Rollout) -> jax.Array:
    """Of the actions of a layer, log probability; those that count."""

    def decision(carry: Any, seen: jax.Array) -> tuple[Any, jax.Array]:
        return _decided(params, carry, seen)

    _, logits = jax.lax.scan(decision, _start(), layer.seen)
    signs = jnp.where(layer.stops, 1.0, -1.0)
    return jnp.sum(jnp.where(layer.counts, jax.nn.log_sigmoid(signs * logits), 0))
