"""Graph layers trained without labels, one after the other, then linear probes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dib_jax.algorithms import Algorithm, Batch, Data, Parts, Phase, Terms, per_phase
from dib_jax.algorithms.blocks import Variables
from dib_jax.algorithms.nodes import (
    as_one_sample,
    check_stages,
    graph_of,
    layers,
    neighbours,
    placed,
    without_sample_axis,
)
from dib_jax.models.graph import applied
from dib_jax.models.options import check_at_least


class Network(NamedTuple):
    """What is trained.

    Attributes:
        stages: variables of each trained layer.
        probes: variables of the linear classifier of each layer.
    """

    stages: tuple[Variables, ...] = ()
    probes: tuple[Variables, ...] = ()


class _Trained(NamedTuple):
    params: Any
    optimizer: Any


class Predictor(nn.Module):
    """Says of one view of a node what the other is: (n, d) → (n, d)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The other view's features."""
        width = x.shape[-1]
        return nn.Dense(width)(nn.relu(nn.Dense(8 * width)(x)))


def lrgi(
    parts: Parts,
    *,
    agree: float = 1.0,
    spread: float = 1.0,
    decorrelate: float = 1.0,
    samples: int = 512,
    ridge: float = 1.0,
    rule: str = "symmetric",
    inductive: bool = False,
) -> Algorithm:
    """Layers in turn by agreement with the neighbours, then a linear probe of each.

    u is a layer's output and v its mean over the neighbours. The layer minimises
    agree · [MSE(u, p(v)) + MSE(v, q(u))] + spread · [var(u) + var(v)] +
    decorrelate · [cov(u) + cov(v)] without labels, on some nodes at each step;
    var = Σ_i (C_ii − 1)² / d and cov = Σ_{i≠j} C_ij² / d with the covariance C, p and q
    perceptrons d → 8d → d. Then it is frozen. The last phase trains a linear classifier
    of each layer's standardised features on batches of labelled nodes.

    Args:
        parts: network (gcn or gat, with model.skip=True as its authors have it), as a
            config has it; neither the head nor the objective is used. `epochs` has one
            number for each layer and one for the probes.
        agree: weight of the agreement.
        spread: weight of the variances.
        decorrelate: weight of the covariances.
        samples: nodes that a step draws; 0 for all. An epoch is one step, whatever
            batch_size is.
        ridge: of the probes: half of it times the squared weights is added to their
            loss, which starts from weights of 0.
        rule: how neighbours are joined: residual, symmetric or mean; of no consequence
            for gat.
        inductive: whether in training only edges between training nodes count, and
            only training nodes.

    Raises:
        ValueError: the network is none of graphs, an option is impossible; when called,
            the samples are no nodes.

    Source: Pina & Vilaplana, arXiv 2309.01503.
    """
    check_stages(parts, rule=rule)
    check_at_least(0, agree=agree, spread=spread, decorrelate=decorrelate, ridge=ridge)
    if samples < 0 or samples == 1:  # one node has no variance
        raise ValueError(f"samples must be 0 for all, or ≥ 2, got {samples!r}")
    *epochs, last = per_phase(parts.epochs, len(parts.stages) + 1)
    weights = (agree, spread, decorrelate)
    phases = [
        _Layer(parts, k, count, weights, samples, rule, inductive).phase()
        for k, count in enumerate(epochs)
    ]
    return _whole(parts, phases, last, rule, ridge, inductive)


def _whole(
    parts: Parts,
    phases: Sequence[Phase],
    epochs: int,
    rule: str,
    ridge: float,
    inductive: bool,
) -> Algorithm:
    """Layers, then their probes."""

    def all_features(
        network: Network, batch: Batch, training: bool = False
    ) -> list[jax.Array]:
        graph = graph_of(batch)
        near = neighbours(graph, rule, training=training)
        return layers(parts.stages, network.stages, graph, near)

    def standardised(network: Network, batch: Batch, training: bool) -> list[jax.Array]:
        made = all_features(network, batch, training)
        if not inductive:
            return [_standardised(x, x, True) for x in made]
        # Mean and deviation are those that the probes have been trained with.
        fitted = made if training else all_features(network, batch, True)
        known = jnp.asarray(graph_of(batch).train)[:, None]
        return [_standardised(*both, known) for both in zip(made, fitted, strict=True)]

    def features(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        nodes = batch.inputs["nodes"]
        return tuple(x[nodes] for x in all_features(network, batch))

    def predict(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        nodes = batch.inputs["nodes"]
        made = standardised(network, batch, False)[: len(network.probes)]
        return _probed(parts, network.probes, [x[nodes] for x in made])

    probes = _probing(parts, epochs, ridge, inductive, standardised)
    return Algorithm((*phases, probes), predict, features, Network())


def loss_terms(
    u: jax.Array, v: jax.Array, from_v: jax.Array, from_u: jax.Array
) -> dict[str, jax.Array]:
    """The three parts of the loss, not weighted.

    Args:
        u: features of nodes (n, d).
        v: their neighbours' mean (n, d).
        from_v: p(v).
        from_u: q(u).
    """
    views = [_covariance(x) for x in (u, v)]
    spread, others = zip(*views, strict=True)
    return {
        "agreement": jnp.mean((u - from_v) ** 2) + jnp.mean((v - from_u) ** 2),
        "variance": sum(spread, jnp.zeros(())),
        "covariance": sum(others, jnp.zeros(())),
    }


def _covariance(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of features (n, d): Σ (C_ii − 1)² / d, and Σ_{i≠j} C_ij² / d."""
    centred, width = x - x.mean(axis=0), x.shape[1]
    covariance = centred.T @ centred / (len(x) - 1)
    diagonal = jnp.diagonal(covariance)
    others = jnp.sum(covariance**2) - jnp.sum(diagonal**2)
    return jnp.sum((diagonal - 1) ** 2) / width, others / width


class _Layer(NamedTuple):
    """A layer that trains without labels; an epoch is one step.

    Attributes:
        parts: as of `lrgi`.
        k: its number.
        epochs: of its phase.
        weights: of the parts of the loss.
        drawn: nodes that a step draws; 0 for all.
        rule: as of `lrgi`.
        inductive: as of `lrgi`.
    """

    parts: Parts
    k: int
    epochs: int
    weights: Sequence[float]
    drawn: int
    rule: str
    inductive: bool

    def phase(self) -> Phase:
        """The phase that trains it."""
        # An epoch is one step, whatever the batch size is.
        optimizer = self.parts.optimizer(self.epochs, 1)
        number = len(self.parts.stages) + self.k

        def init(key: jax.Array, network: Network, example: Batch) -> _Trained:
            params = self.init(jax.random.fold_in(key, self.k), example)
            return _Trained(params, optimizer.init(params))

        def step(
            state: _Trained, network: Network, batch: Batch, key: jax.Array
        ) -> tuple[_Trained, dict[int, Terms]]:
            (loss, terms), gradient = jax.value_and_grad(self.loss, has_aux=True)(
                state.params, without_sample_axis(batch), key
            )
            updates, moments = optimizer.update(gradient, state.optimizer, state.params)
            params = optax.apply_updates(state.params, updates)
            return _Trained(params, moments), {number: {"loss": loss, **terms}}

        def read(state: _Trained, network: Network) -> Network:
            entry = {"params": state.params[0]}
            return network._replace(stages=(*network.stages, entry))

        return Phase(
            init, step, read, self.epochs, exits=(number,), predicts=False,
            trains=(self.k,), enter=self.enter,
        )  # fmt: skip

    def enter(self, network: Network, data: Data) -> Data:
        """All nodes as one sample, with what the layers below make of them."""
        graph, like = data.common["graph"], data.samples["nodes"]
        known = np.asarray(graph.train) | (not self.inductive)
        nodes = np.flatnonzero(known).astype(np.int32)
        # What the labels are is of no consequence.
        samples = {"nodes": nodes, "labels": np.zeros(len(nodes), np.int32)}
        if self.k:
            samples["features"] = jax.jit(self.below)(network, graph)
        return as_one_sample(network, data.replace(samples=placed(samples, like)))

    def below(self, network: Network, graph: Any) -> jax.Array:
        """What the frozen layers put out for all nodes."""
        near = neighbours(graph, self.rule, training=self.inductive)
        stages = network.stages[: self.k]
        return layers(self.parts.stages, stages, graph, near)[-1]

    def init(self, key: jax.Array, example: Batch) -> Any:
        """Parameters of the layer, and of p and q."""
        width = graph_of(example).features.shape[1]
        for one in self.parts.stages[: self.k]:
            width = one.width
        keys, stage = jax.random.split(key, 3), self.parts.stages[self.k]
        made = jnp.zeros((2, stage.width))
        return (
            stage.init(keys[0], jnp.zeros((2, width)), train=False)["params"],
            *(Predictor().init(one, made) for one in keys[1:]),
        )

    def loss(
        self, params: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        """Of a step, and its three parts."""
        graph, nodes = graph_of(batch), batch.inputs["nodes"]
        near = neighbours(graph, self.rule, training=self.inductive)
        if 0 < self.drawn < len(nodes):
            nodes = jax.random.choice(key, nodes, (self.drawn,), replace=False)
        x = batch.inputs["features"] if self.k else graph.features
        stage = self.parts.stages[self.k]
        u = applied(stage, {"params": params[0]}, x, neighbours=near)
        u, v = (y[nodes] for y in (u, near.mean(u)))
        from_v, from_u = (
            jnp.asarray(Predictor().apply(entry, y))
            for entry, y in zip(params[1:], (v, u), strict=True)
        )
        made = loss_terms(u, v, from_v, from_u)
        weighted = [w * x for w, x in zip(self.weights, made.values(), strict=True)]
        return sum(weighted, jnp.zeros(())), {**made}


def _probing(
    parts: Parts, epochs: int, ridge: float, inductive: bool, standardised: Any
) -> Phase:
    """The phase that trains a linear classifier of each frozen layer."""
    optimizer, task = parts.optimizer(epochs), parts.task
    exits = tuple(range(len(parts.stages)))
    standardised = jax.jit(standardised, static_argnums=2)

    def enter(network: Network, data: Data) -> Data:
        like, batch = data.samples["nodes"], Batch({}, None, common=data.common)
        nodes, training = np.asarray(like), inductive and not data.validates
        made = standardised(network, batch, training)
        rows = tuple(np.asarray(x)[nodes] for x in made)
        return data.replace(samples={**data.samples, "features": placed(rows, like)})

    def init(key: jax.Array, network: Network, example: Batch) -> _Trained:
        params = tuple(
            _probe(parts).init(jax.random.fold_in(key, k), jnp.zeros((2, stage.width)))
            for k, stage in enumerate(parts.stages)
        )
        return _Trained(params, optimizer.init(params))

    def step(
        state: _Trained, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[_Trained, dict[int, Terms]]:
        def loss_of(params: Any) -> tuple[jax.Array, list[Terms]]:
            found = _probed(parts, params, batch.inputs["features"])
            each = [task.loss(outputs, batch.targets) for outputs in found]
            # They have nothing in common, so the sum trains each by its own loss.
            total = sum((loss for loss, _ in each), jnp.zeros(()))
            squares = sum(jnp.sum(x**2) for x in jax.tree.leaves(params) if x.ndim > 1)
            return total + 0.5 * ridge * squares, [
                {"loss": loss, **terms} for loss, terms in each
            ]

        gradient, terms = jax.grad(loss_of, has_aux=True)(state.params)
        updates, moments = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return _Trained(params, moments), dict(zip(exits, terms, strict=True))

    def read(state: _Trained, network: Network) -> Network:
        return network._replace(probes=state.params)

    def outputs(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        return _probed(parts, network.probes, batch.inputs["features"])

    return Phase(
        init, step, read, epochs, exits=exits, trains=(), enter=enter, outputs=outputs
    )


def _probe(parts: Parts) -> nn.Module:
    return nn.Dense(parts.task.num_outputs, kernel_init=nn.initializers.zeros)


def _probed(
    parts: Parts, probes: Sequence[Variables], rows: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    return tuple(
        jnp.asarray(_probe(parts).apply(entry, x))
        for entry, x in zip(probes, rows, strict=True)
    )


def _standardised(x: jax.Array, fitted: jax.Array, known: Any) -> jax.Array:
    """Features (n, d) in units of the deviation of known nodes, from their mean.

    Args:
        x: of all nodes.
        fitted: of all nodes, by which mean and deviation are taken.
        known: bool (n, 1), the nodes that they are taken of; True for all.
    """
    deviation = fitted.std(axis=0, where=known)
    mean = fitted.mean(axis=0, where=known)
    return (x - mean) / jnp.where(deviation > 0, deviation, 1)
