"""Graph convolutions layer by layer: the graph is passed once, rows are trained."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.algorithms import (
    Algorithm,
    Batch,
    Data,
    Network,
    Parts,
    Phase,
    State,
    Terms,
    per_phase,
)
from dib_jax.algorithms.blocks import (
    Block,
    apply_frozen,
    block,
    local,
    stack,
)
from dib_jax.algorithms.nodes import (
    check_stages,
    dense,
    graph_of,
    joined,
    layers,
    neighbours,
)
from dib_jax.algorithms.stopping import patient, until
from dib_jax.models.graph import Convolution
from dib_jax.models.options import check_at_least


def lgcn(
    parts: Parts,
    *,
    rule: str = "residual",
    inductive: bool = False,
    patience: int = 0,
    margin: float = 0.01,
) -> Algorithm:
    """Graph convolutions in turn: neighbours are joined once, then rows are trained.

    Layer l: H ← Â H once for the whole graph, then batches of nodes train
    head(relu(H W)), then H ← relu(H W), frozen. A step sees rows of H alone, so its
    memory and time depend neither on the graph's size nor on the depth.

    Args:
        parts: network (gcn), heads, objective, as a config has them.
        rule: how neighbours are joined, D being the degree with the node itself:
            residual D⁻¹(A + I) + I, symmetric D^(−1/2)(A + I)D^(−1/2), or mean
            D⁻¹(A + I).
        inductive: whether in training only edges between training nodes count.
        patience: a layer stops after so many epochs in which its training loss has not
            fallen; 0 for never.
        margin: by how much the loss must fall to count, in nats.

    Raises:
        ValueError: the network is none of convolutions, an impossible option, `epochs`
            has not one number for each layer; when called, the samples are no nodes.

    Source: You, Chen, Wang & Shen, L²-GCN, arXiv 2003.13606, section 3.2. Their code is
    inductive, has no biases, and hands the classifier and the optimizer's state on from
    layer to layer.
    """
    blocks = layer_blocks(parts, rule)
    check_at_least(0, patience=patience, margin=margin)
    phases = [
        layer_phase(parts, blocks, k, rule=rule, inductive=inductive)
        for k in range(len(blocks))
    ]
    if patience:
        stop, steps = patient(patience, margin), max(1, parts.steps)
        phases = [until(phase, stop, steps=steps) for phase in phases]
    return whole(phases, blocks, rule=rule)


def layer_blocks(parts: Parts, rule: str) -> list[Block]:
    """A block of each layer.

    Args:
        parts: as of `lgcn`.
        rule: as of `lgcn`.
    """
    check_stages(parts, Convolution, rule=rule)
    if any(stage.skip for stage in parts.stages):
        raise ValueError(
            "model.skip: this algorithm trains on joined features alone; set it to "
            "False (the rule residual adds a node's own)"
        )
    epochs = per_phase(parts.epochs, len(parts.stages))
    return [block(parts, (k,), count) for k, count in enumerate(epochs)]


def layer_phase(
    parts: Parts, blocks: Sequence[Block], k: int, *, rule: str, inductive: bool
) -> Phase:
    """The phase that trains one layer on joined features.

    Args:
        parts: as of `lgcn`.
        blocks: of all layers.
        k: its number.
        rule: as of `lgcn`.
        inductive: as of `lgcn`.
    """
    trunk, epochs = parts.stages[:k], per_phase(parts.epochs, len(blocks))[k]
    phase = local(blocks[k], epochs, trunk=trunk, done=k)
    assert phase.outputs is not None

    def given(batch: Batch) -> Batch:
        """The nodes' own features as the input, joined ones as what is given."""
        graph = graph_of(batch)
        width = trunk[-1].width if trunk else graph.features.shape[1]
        rows = dense(batch.inputs["features"], width)
        return batch._replace(inputs=graph.rows(batch.inputs["nodes"]), given=rows)

    def init(key: jax.Array, network: Network, example: Batch) -> State:
        inputs = jnp.zeros((2, graph_of(example).features.shape[1]))
        return phase.init(key, network, example._replace(inputs=inputs))

    def step(
        state: State, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[State, dict[int, Terms]]:
        return phase.step(state, network, given(batch), key)  # type: ignore[return-value]

    def enter(network: Network, data: Data) -> Data:
        return joined(data, trunk, network.stages[:k], rule=rule, inductive=inductive)

    def outputs(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        return phase.outputs(network, given(batch))  # type: ignore[misc]

    return phase._replace(init=init, step=step, enter=enter, outputs=outputs)


def whole(phases: Sequence[Phase], blocks: Sequence[Block], *, rule: str) -> Algorithm:
    """The algorithm that trains layers, one on top of the other.

    Args:
        phases: that train all of them.
        blocks: of all layers, input side first.
        rule: as of `lgcn`.
    """
    stages: list[nn.Module] = [stage for one in blocks for stage in one.stages]

    def features(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        graph, nodes = graph_of(batch), batch.inputs["nodes"]
        made = layers(stages, network.stages, graph, neighbours(graph, rule))
        return tuple(x[nodes] for x in made)

    def predict(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        found = features(network, batch)
        ends = [one.stage for one in blocks]
        return tuple(
            apply_frozen((one.head,), (head,), found[end])[-1]
            for one, head, end in zip(blocks, network.heads, ends, strict=False)
        )

    # A layer joins all nodes, so none can leave before it.
    nodes = stack(phases, blocks)
    return nodes._replace(predict=predict, features=features, pieces=())
