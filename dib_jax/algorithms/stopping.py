"""Phases that stop before their last epoch: what is left of their steps does nothing.

The loop gives a phase a number of epochs. One that has stopped keeps its state, at the
price of a comparison a step, and records `training`, 1 or 0, so that the sum over the
epochs is how many it has trained.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dib_jax.algorithms import (
    Batch,
    Network,
    Occasional,
    Phase,
    State,
    Terms,
)

TRAINING = "training"
# What is remembered of earlier epochs, any pytree of arrays.
Memory = Any


class Rule(NamedTuple):
    """When a phase stops.

    Attributes:
        start: what is remembered before the first epoch.
        decide: (network, memory, mean loss of an epoch, epochs so far) → memory, stop.
    """

    start: Callable[[], Memory]
    decide: Callable[[Network, Memory, jax.Array, jax.Array], tuple[Memory, jax.Array]]


class Stopping(NamedTuple):
    """The state of a phase that may stop.

    Attributes:
        state: of the phase itself.
        memory: of the rule.
        loss: sum over the steps of this epoch.
        step: updates made.
        stopped: whether it has.
    """

    state: State
    memory: Memory
    loss: jax.Array
    step: jax.Array
    stopped: jax.Array


def until(phase: Phase, rule: Rule, *, steps: int) -> Phase:
    """A phase of one exit that stops by a rule.

    Args:
        phase: it, with a term `loss`.
        rule: asked after each epoch.
        steps: updates in an epoch.
    """
    (number,) = phase.exits

    def init(key: jax.Array, network: Network, example: Batch) -> Stopping:
        state = phase.init(key, network, example)
        zero = jnp.zeros((), jnp.int32)
        return Stopping(state, rule.start(), jnp.zeros(()), zero, jnp.zeros((), bool))

    def step(
        before: Stopping, network: Network, batch: Batch, key: jax.Array
    ) -> tuple[Stopping, dict[int, Terms]]:
        def train() -> tuple[Stopping, Terms]:
            state, terms = phase.step(before.state, network, batch, key)
            loss = before.loss + jnp.asarray(terms[number]["loss"])
            made = before.step + 1
            is_end = made % steps == 0
            memory, stop = rule.decide(
                network, before.memory, loss / steps, made // steps
            )
            memory = jax.tree.map(
                lambda new, old: jnp.where(is_end, new, old), memory, before.memory
            )
            loss = jnp.where(is_end, 0.0, loss)
            after = Stopping(state, memory, loss, made, is_end & stop)
            return after, dict(terms[number])

        kept = jax.eval_shape(train)[1]

        def keep() -> tuple[Stopping, Terms]:
            return before, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), kept)

        trains = ~before.stopped
        after, terms = jax.lax.cond(trains, train, keep)
        measured: Terms = {
            name: Occasional(term.value, term.measured & trains)
            if isinstance(term, Occasional)
            else Occasional(term, trains)
            for name, term in terms.items()
        }
        measured[TRAINING] = trains.astype(jnp.float32)
        return after, {number: measured}

    return phase._replace(
        init=init,
        step=step,
        read=lambda state, network: phase.read(state.state, network),
        notices=lambda means: phase.notices(means) if means[TRAINING] else {},
    )


def patient(epochs: int, margin: float) -> Rule:
    """Stop after so many epochs without a loss that is lower than all before.

    Args:
        epochs: how many, from 1.
        margin: by how much it must be lower to count, in units of the loss.
    """

    def start() -> Memory:
        return jnp.full((), jnp.inf), jnp.zeros((), jnp.int32)

    def decide(
        network: Network, memory: Memory, loss: jax.Array, epoch: jax.Array
    ) -> tuple[Memory, jax.Array]:
        del network, epoch
        best, waited = memory
        is_lower = loss < best - margin
        waited = jnp.where(is_lower, 0, waited + 1)
        return (jnp.where(is_lower, loss, best), waited), waited >= epochs

    return Rule(start, decide)
