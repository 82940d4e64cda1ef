"""A new local loss is one new file in the folder, and the name of it in a config."""

import sys

import jax
import jax.numpy as jnp
import pytest

from dib_jax import objectives
from dib_jax.commands.assemble import assemble
from dib_jax.commands.config import complete
from dib_jax.commands.registry import known

pytestmark = pytest.mark.once

RIVAL = '''
"""Each stage hands on what it got, as well as a linear map of it can tell."""

import flax.linen as nn
import jax.numpy as jnp

from dib_jax.objectives import WithModules


class Back(nn.Module):
    size: int

    @nn.compact
    def __call__(self, features, *, train):
        return nn.Dense(self.size)(features.reshape(features.shape[0], -1))


def hand_on(*, weight: float = 0.5):
    """Task loss plus `weight` times what a linear map cannot tell of the picture.

    Args:
        weight: of what is lost.
    """

    def loss(signals):
        pictures = signals.network_input
        wanted = pictures.reshape(pictures.shape[0], -1)
        lost = jnp.mean((signals.modules["back"] - wanted) ** 2)
        return signals.task_loss + weight * lost, {"lost": lost}

    def modules(stage, shape):
        return {"back": Back(shape[0] * shape[1] * shape[2])}

    return WithModules(loss, modules)
'''


@pytest.fixture
def rival(tmp_path, monkeypatch):
    (tmp_path / "hand_on.py").write_text(RIVAL)
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(tmp_path)])
    yield "hand_on"
    sys.modules.pop("dib_jax.objectives.hand_on", None)


def test_one_file_is_known_checked_and_trained(rival):
    assert rival in known("objectives")
    config = {
        "dataset": {"samples": 100},
        "model": {"name": "mlp", "widths": (6,)},
        "objective": {"name": rival, "weight": "much"},
        "batch_size": 8,
    }
    with pytest.raises(ValueError, match="objective.weight: got 'much'; must be a num"):
        complete(config)
    config["objective"]["weight"] = 2.0
    experiment = assemble(complete(config))
    assert experiment.about["objective"] == rival
    phase, network = experiment.phases[0], experiment.algorithm.network
    samples = {
        name: jnp.asarray(array[:8]) for name, array in experiment.dataset.train.items()
    }
    batch = experiment.data(samples).batch()
    state = jax.jit(phase.init)(experiment.key, network, batch)
    _, terms = jax.jit(phase.step)(state, network, batch, jax.random.key(1))
    (terms,) = terms.values()
    assert terms["lost"] > 0
    assert terms["loss"] == pytest.approx(terms["task_loss"] + 2 * terms["lost"])
