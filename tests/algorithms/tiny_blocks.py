"""Three small stages, a batch for them, and phases of it trained for some steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dib_jax.algorithms import Batch, Parts
from dib_jax.models.heads.linear import linear
from dib_jax.models.mlp import mlp
from dib_jax.objectives.dib import dib
from dib_jax.tasks.classification import classification

KEY = jax.random.key(3)
STAGES = mlp(widths=(6, 5, 4))
CLASSES = 3


def parts_of(stages=STAGES, **changes):
    """What a config would give an algorithm."""
    defaults = Parts(
        stages=stages,
        head=lambda stage: linear(num_outputs=CLASSES),
        task=classification(num_classes=CLASSES),
        objective=dib(alpha=2.0, beta=0.1, every=1),
        optimizer=lambda epochs: optax.sgd(0.1, momentum=0.9),
        epochs=2,
        steps=2,
    )
    return defaults._replace(**changes)


def batch_of(count=8, shape=(4, 4, 1), seed=0):
    """Samples whose mean and size no batch norm would give them."""
    draw = np.random.default_rng(seed)
    return Batch(
        inputs=jnp.asarray(draw.uniform(0, 3, (count, *shape)), jnp.float32),
        targets=jnp.asarray(np.arange(count) % CLASSES, jnp.int32),
    )


def start(phase, network=(), batch=None):
    """A phase's state before its first step."""
    example = (batch or batch_of())._replace(given=None)
    return jax.jit(phase.init)(KEY, network, example)


def steps_of(phase, network, batch, *, steps=1, state=None):
    """States and terms after so many steps on one batch."""
    state = start(phase, network, batch) if state is None else state
    step = jax.jit(phase.step)
    for number in range(steps):
        state, terms = step(state, network, batch, jax.random.fold_in(KEY, number))
    return state, terms


def largest_changes(one, other):
    """Of each array, by how much it has changed at most."""
    changes = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one, other)
    return jax.tree.leaves(changes)
