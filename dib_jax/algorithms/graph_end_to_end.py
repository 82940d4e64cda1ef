"""A graph network by back-propagation through all layers: the baseline on graphs."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from dib_jax.algorithms import (
    Algorithm,
    Batch,
    Parts,
    Phase,
    Terms,
    per_phase,
)
from dib_jax.algorithms.blocks import Network, Variables, block, initial_state
from dib_jax.algorithms.nodes import (
    as_one_sample,
    check_stages,
    graph_of,
    layers,
    neighbours,
    sampled,
    without_sample_axis,
)
from dib_jax.models.graph import Convolution, applied
from dib_jax.models.options import check_at_least


class _Trained(NamedTuple):
    params: Any
    optimizer: Any


def graph_end_to_end(
    parts: Parts,
    *,
    rule: str = "symmetric",
    fanout: int = 0,
    dropout: float = 0.0,
    inductive: bool = False,
) -> Algorithm:
    """All layers of a graph network together by back-propagation, on the task's loss.

    Args:
        parts: network (gcn or gat), heads, as a config has them. Only the last layer's
            head is used, and the objective is not.
        rule: how neighbours are joined: residual, symmetric or mean; of no consequence
            for gat.
        fanout: neighbours of each node that are drawn, at every step anew, in each
            layer of a batch; 0: an epoch is one step on the whole graph, whatever
            batch_size is.
        dropout: share of a layer's input that is left out in training, of all layers
            but the first.
        inductive: whether in training only edges between training nodes count.

    Raises:
        ValueError: the network is none of graphs, or with `fanout` none of
            convolutions; an option is impossible; `epochs` has several numbers; when
            called, the samples are no nodes.

    Source: Kipf & Welling, arXiv 1609.02907; Hamilton, Ying & Leskovec, arXiv
    1706.02216, for the drawing of neighbours.
    """
    check_stages(parts, *[Convolution] * bool(fanout), rule=rule)
    check_at_least(0, fanout=fanout, dropout=dropout)
    if dropout >= 1:
        raise ValueError(f"dropout must be below 1, got {dropout!r}")
    (epochs,) = per_phase(parts.epochs, 1)
    # Its learning rate falls over the steps that there are.
    shorter = epochs if fanout else max(1, epochs // max(1, parts.steps))
    whole = block(parts, range(len(parts.stages)), shorter)

    def init(key: jax.Array, network: Network, example: Batch) -> _Trained:
        x = jnp.zeros((2, graph_of(example).features.shape[1]))
        state = initial_state(whole, jax.random.split(key)[0], x, x)
        params = (state.params, state.head["params"])
        return _Trained(params, whole.optimizer.init(params))

    def outputs(params: Any, batch: Batch, key: jax.Array) -> jax.Array:
        """Of a training step, (n, num_outputs)."""
        graph, nodes = graph_of(batch), batch.inputs["nodes"]
        near = neighbours(graph, rule, training=inductive)
        entries = [{"params": entry} for entry in params[0]]
        if not fanout:
            made = _dropped(parts.stages, entries, graph.features, [near], dropout, key)
            made = made[nodes]
        else:
            draw, drop = jax.random.split(key)
            x, trees = sampled(graph, near, nodes, fanout, len(parts.stages), draw)
            made = _dropped(parts.stages, entries, x, trees, dropout, drop)
        return jnp.asarray(whole.head.apply({"params": params[1]}, made, train=True))

    def step(
        state: _Trained, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[_Trained, dict[int, Terms]]:
        if not fanout:
            batch = without_sample_axis(batch)

        def loss_of(params: Any) -> tuple[jax.Array, Terms]:
            loss, terms = parts.task.loss(outputs(params, batch, key), batch.targets)
            return loss, {**terms}

        (loss, terms), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        updates, moments = whole.optimizer.update(
            gradient, state.optimizer, state.params
        )
        params = optax.apply_updates(state.params, updates)
        return _Trained(params, moments), {whole.stage: {"loss": loss, **terms}}

    def read(state: _Trained, network: Network) -> Network:
        stages = tuple({"params": entry} for entry in state.params[0])
        return Network(stages, ({"params": state.params[1]},))

    def features(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        graph, nodes = graph_of(batch), batch.inputs["nodes"]
        made = layers(parts.stages, network.stages, graph, neighbours(graph, rule))
        return tuple(x[nodes] for x in made)

    def predict(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        last = features(network, batch)[-1]
        return (jnp.asarray(whole.head.apply(network.heads[0], last, train=False)),)

    def of_one_sample(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        return tuple(x[None] for x in predict(network, without_sample_axis(batch)))

    phase = Phase(
        init,
        step,
        read,
        epochs,
        exits=(whole.stage,),
        # Validation looks at the whole graph once, in one go.
        enter=None if fanout else as_one_sample,
        outputs=predict if fanout else of_one_sample,
    )
    return Algorithm((phase,), predict, features, Network())


def _dropped(
    stages: tuple[nn.Module, ...],
    entries: list[Variables],
    x: Any,
    near: list[Any],
    dropout: float,
    key: jax.Array,
) -> jax.Array:
    """The last layer's features, with dropout before all layers but the first.

    Args:
        stages: the layers.
        entries: their variables.
        x: input of the first.
        near: how each joins neighbours, or one for all.
        dropout: share that is left out.
        key: PRNG key.
    """
    near = near * (len(stages) if len(near) == 1 else 1)
    for number, (stage, entry, one) in enumerate(
        zip(stages, entries, near, strict=True)
    ):
        if dropout and number:
            kept = jax.random.bernoulli(
                jax.random.fold_in(key, number), 1 - dropout, x.shape
            )
            x = jnp.where(kept, x / (1 - dropout), 0)
        x = applied(stage, entry, x, neighbours=one, train=True)
    return x
