"""Signals of 20 samples in 4 classes, and objectives of them as compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.objectives import Signals

LABELS = np.arange(20) % 4


def drawn(*shape, seed=0):
    """Normal numbers; by NumPy, as JAX would compile a program for each shape."""
    values = np.random.default_rng((seed, *shape)).normal(size=shape)
    return jnp.asarray(values, jnp.float32)


def signals(**changes):
    """Of feature maps that keep their shape, any entry replaced."""
    given = {
        "network_input": drawn(20, 6, 6, 2, seed=1),
        "stage_input": drawn(20, 4, 4, 6, seed=2),
        "features": drawn(20, 4, 4, 6, seed=3),
        "outputs": drawn(20, 4, seed=4),
        "targets": jnp.asarray(LABELS),
        "key": jax.random.key(1),
        "stage": 0,
        "task_loss": jnp.asarray(1.25),
        "target_gram": jnp.asarray((LABELS[:, None] == LABELS) / 20, jnp.float32),
        "head_loss": jnp.asarray(0.75),
        "modules": {},
    }
    return Signals(**{**given, **changes})


def compiled(function):
    """`function(signals, …)` as one program; the stage's number stays a Python number.

    Called anew it is compiled anew: cache what many tests share.
    """

    def run(stage, arrays, *rest):
        return function(Signals(stage=stage, **arrays), *rest)

    jitted = jax.jit(run, static_argnums=0)

    def call(given, *rest):
        arrays = given._asdict()
        return jitted(arrays.pop("stage"), arrays, *rest)

    return call


def with_slope(objective):
    """`(signals) -> ((loss, terms), gradient with respect to the features)`."""

    def both(given):
        def loss(features):
            return objective(given._replace(features=features))

        return jax.value_and_grad(loss, has_aux=True)(given.features)

    return compiled(both)
