"""Features joined over the graph beforehand, then a network that knows no graph."""

import jax
import jax.numpy as jnp

from dib_jax.algorithms import (
    Algorithm,
    Batch,
    Data,
    Network,
    Parts,
    State,
    Terms,
    per_phase,
)
from dib_jax.algorithms.blocks import apply_frozen, block, local, stack, task_loss
from dib_jax.algorithms.nodes import (
    check_stages,
    dense,
    graph_of,
    joined,
    neighbours,
)
from dib_jax.models.graph import Convolution, Neighbours, applied
from dib_jax.models.options import check_at_least


class _Hops:
    """Neighbours that are joined several times."""

    def __init__(self, near: Neighbours, count: int) -> None:
        self.near, self.count, self.own = near, count, near.own

    def join(self, x: jax.Array) -> jax.Array:
        """As of `Neighbours`, so many times."""
        for _ in range(self.count):
            x = self.near.join(x)
        return x


def sgc(
    parts: Parts, *, hops: int = 2, rule: str = "symmetric", inductive: bool = False
) -> Algorithm:
    """Features joined with the neighbours' beforehand, then dense layers end to end.

    With model.activation=none it is a linear classifier of Âᵏ X; with hops=0 a
    perceptron that knows nothing of the graph.

    Args:
        parts: network (gcn, whose layers are dense ones here), heads, as a config has
            them. Only the last layer's head is used, and the objective is not.
        hops: how often neighbours are joined.
        rule: how: residual, symmetric or mean.
        inductive: whether in training only edges between training nodes count.

    Raises:
        ValueError: the network is none of convolutions, an option is impossible,
            `epochs` has several numbers; when called, the samples are no nodes.

    Source: Wu et al., Simplifying Graph Convolutional Networks, arXiv 1902.07153.
    """
    check_stages(parts, Convolution, rule=rule)
    check_at_least(0, hops=hops)
    (epochs,) = per_phase(parts.epochs, 1)
    whole = block(parts, range(len(parts.stages)), epochs, objective=task_loss)
    rows = local(whole, epochs)

    def init(key: jax.Array, network: Network, example: Batch) -> State:
        inputs = jnp.zeros((2, graph_of(example).features.shape[1]))
        return rows.init(key, network, example._replace(inputs=inputs))

    def rows_of(batch: Batch) -> jax.Array:
        return dense(batch.inputs["features"], graph_of(batch).features.shape[1])

    def step(
        state: State, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[State, dict[int, Terms]]:
        joint = batch._replace(inputs=rows_of(batch))
        return rows.step(state, network, joint, key)  # type: ignore[return-value]

    def enter(network: Network, data: Data) -> Data:
        return joined(data, (), (), rule=rule, inductive=inductive, hops=hops)

    def outputs(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        joint = batch._replace(inputs=rows_of(batch))
        return rows.outputs(network, joint)  # type: ignore[misc]

    def features(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        graph, nodes = graph_of(batch), batch.inputs["nodes"]
        near = _Hops(neighbours(graph, rule), hops)
        first, entry = parts.stages[0], network.stages[0]
        x = applied(first, entry, graph.features, neighbours=near)[nodes]
        return x, *apply_frozen(parts.stages[1:], network.stages[1:], x)

    def predict(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        last = features(network, batch)[-1]
        return (apply_frozen((whole.head,), network.heads, last)[-1],)

    phase = rows._replace(init=init, step=step, enter=enter, outputs=outputs)
    return stack([phase], [whole])._replace(predict=predict, features=features)
