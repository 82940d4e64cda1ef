import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.information import label_gram
from dib_jax.objectives import Signals

LABELS = np.arange(20) % 4


@pytest.fixture
def make_signals():
    """Signals of 20 samples in 4 classes, any of them replaced."""

    def make(**changes):
        keys = jax.random.split(jax.random.key(0), 4)
        given = Signals(
            network_input=jax.random.normal(keys[0], (20, 6, 6, 2)),
            stage_input=jax.random.normal(keys[1], (20, 4, 4, 6)),
            features=jax.random.normal(keys[2], (20, 4, 4, 6)),
            outputs=jax.random.normal(keys[3], (20, 4)),
            targets=jnp.asarray(LABELS),
            key=jax.random.key(1),
            stage=0,
            task_loss=jnp.asarray(1.25),
            target_gram=label_gram(LABELS),
            head_loss=jnp.asarray(0.75),
        )
        return given._replace(**changes)

    return make
