"""Feedback alignment: a dense network whose errors come back through random weights."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dib_jax.algorithms import Algorithm, Batch, Parts, Phase, Terms, per_phase

Weights = tuple[jax.Array, ...]


class State(NamedTuple):
    """Weights of each layer, the fixed ones of the way back, and the optimizer's."""

    forward: Weights
    backward: Weights
    optimizer: Any


def feedback(parts: Parts, *, widths: tuple[int, ...] = (128, 64)) -> Algorithm:
    """A dense network trained by feedback alignment.

    δ_l = B_l δ_{l+1} ∘ σ'(a_l), with B_l random and fixed.

    Args:
        parts: task, optimizer and epochs, as a config has them; the layers are its own.
        widths: of the hidden layers.

    Source: Lillicrap, Cownden, Tweed & Akerman, Nature Communications 7, 2016.
    """
    (epochs,) = per_phase(parts.epochs, 1)
    optimizer = parts.optimizer(epochs)

    def layers(weights: Weights, x: jax.Array) -> list[jax.Array]:
        made = [x.reshape(len(x), -1)]
        for w in weights[:-1]:
            made.append(jax.nn.relu(made[-1] @ w))
        return [*made, made[-1] @ weights[-1]]

    def init(key: jax.Array, network: Weights, example: Batch) -> State:
        sizes = (example.inputs[0].size, *widths, parts.task.num_outputs)
        shapes = list(itertools.pairwise(sizes))
        draw = jax.nn.initializers.he_normal()
        keys = jax.random.split(key, 2 * len(shapes))
        forward = tuple(map(draw, keys[: len(shapes)], shapes))
        backward = tuple(
            draw(k, (b, a))
            for k, (a, b) in zip(keys[len(shapes) + 1 :], shapes[1:], strict=True)
        )
        return State(forward, backward, optimizer.init(forward))

    def step(
        state: State, network: Weights, batch: Batch, key: jax.Array
    ) -> tuple[State, dict[int, Terms]]:
        made = layers(state.forward, batch.inputs)
        loss, back, terms = jax.vjp(
            lambda outputs: parts.task.loss(outputs, batch.targets),
            made[-1],
            has_aux=True,
        )
        (error,) = back(jnp.ones_like(loss))
        grads = [made[-2].T @ error]
        for x, activation, b in zip(
            made[-3::-1], made[-2:0:-1], state.backward[::-1], strict=True
        ):
            error = (error @ b) * (activation > 0)
            grads.append(x.T @ error)
        updates, moments = optimizer.update(
            tuple(grads[::-1]), state.optimizer, state.forward
        )
        forward = optax.apply_updates(state.forward, updates)
        return State(forward, state.backward, moments), {0: {"loss": loss, **terms}}

    return Algorithm(
        phases=(Phase(init, step, lambda state, network: state.forward, epochs),),
        predict=lambda network, batch: (layers(network, batch.inputs)[-1],),
        features=lambda network, batch: tuple(layers(network, batch.inputs)[1:]),
    )
