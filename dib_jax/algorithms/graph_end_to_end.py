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
from dib_jax.algorithms.blocks import (
    Block,
    Network,
    Variables,
    block,
    initial_state,
    task_loss,
)
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
    whole = block(
        parts,
        range(len(parts.stages)),
        epochs,
        per_epoch=None if fanout else 1,
        objective=task_loss,
    )
    made = _EndToEnd(parts, whole, rule, fanout, dropout, inductive)
    phase = Phase(
        made.init,
        made.step,
        made.read,
        epochs,
        exits=(whole.stage,),
        # Validation looks at the whole graph once, in one go.
        enter=None if fanout else as_one_sample,
        outputs=made.predict if fanout else made.of_one_sample,
    )
    return Algorithm((phase,), made.predict, made.features, Network())


class _EndToEnd(NamedTuple):
    """The functions of the algorithm; attributes as of its options."""

    parts: Parts
    whole: Block
    rule: str
    fanout: int
    dropout: float
    inductive: bool

    def init(self, key: jax.Array, network: Network, example: Batch) -> _Trained:
        """Parameters of layers and head."""
        x = jnp.zeros((2, graph_of(example).features.shape[1]))
        state = initial_state(self.whole, jax.random.split(key)[0], x, x)
        params = (state.params, state.head["params"])
        return _Trained(params, self.whole.optimizer.init(params))

    def outputs(self, params: Any, batch: Batch, key: jax.Array) -> jax.Array:
        """Of a training step, (n, num_outputs)."""
        graph, nodes = graph_of(batch), batch.inputs["nodes"]
        near = neighbours(graph, self.rule, training=self.inductive)
        entries = [{"params": entry} for entry in params[0]]
        stages, (draw, drop) = self.parts.stages, jax.random.split(key)
        if self.fanout:
            x, trees = sampled(graph, near, nodes, self.fanout, len(stages), draw)
            made = _dropped(stages, entries, x, trees, self.dropout, drop)
        else:
            every = [near] * len(stages)
            made = _dropped(stages, entries, graph.features, every, self.dropout, drop)
            made = made[nodes]
        head = self.whole.head.apply({"params": params[1]}, made, train=True)
        return jnp.asarray(head)

    def step(
        self, state: _Trained, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[_Trained, dict[int, Terms]]:
        """One update."""
        batch = batch if self.fanout else without_sample_axis(batch)

        def loss_of(params: Any) -> tuple[jax.Array, Terms]:
            outputs = self.outputs(params, batch, key)
            loss, terms = self.parts.task.loss(outputs, batch.targets)
            return loss, {**terms}

        (loss, terms), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        updates, moments = self.whole.optimizer.update(
            gradient, state.optimizer, state.params
        )
        params = optax.apply_updates(state.params, updates)
        return _Trained(params, moments), {self.whole.stage: {"loss": loss, **terms}}

    def read(self, state: _Trained, network: Network) -> Network:
        """What was learnt."""
        stages = tuple({"params": entry} for entry in state.params[0])
        return Network(stages, ({"params": state.params[1]},))

    def features(self, network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        """Of nodes after each layer."""
        graph, nodes = graph_of(batch), batch.inputs["nodes"]
        near = neighbours(graph, self.rule)
        made = layers(self.parts.stages, network.stages, graph, near)
        return tuple(x[nodes] for x in made)

    def predict(self, network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        """Of the head."""
        last = self.features(network, batch)[-1]
        head = self.whole.head.apply(network.heads[0], last, train=False)
        return (jnp.asarray(head),)

    def of_one_sample(self, network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        """`predict` for a split that is one sample."""
        return tuple(x[None] for x in self.predict(network, without_sample_axis(batch)))


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
        near: how each joins neighbours.
        dropout: share that is left out.
        key: PRNG key.
    """
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
