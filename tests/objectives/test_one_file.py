"""A new local loss is one new file in the folder, and the name of it in a config."""

import sys

import jax
import jax.numpy as jnp
import pytest

from dib_jax import objectives
from dib_jax.algorithms import blocks
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


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"must return \(loss, terms\), a scalar and a dict; got None"),
        (jnp.ones(()), "a scalar and a dict; got the loss alone"),
        ((jnp.ones(3), {}), r"got a loss of shape \(3,\) and a dict"),
        ((jnp.ones(()), [1]), r"got a loss of shape \(\) and a list"),
    ],
)
def test_what_is_no_loss_with_its_terms_is_refused_in_a_line(returned, message):
    with pytest.raises(ValueError, match=message) as refused:
        blocks.at_last(lambda signals: returned)(None, ())
    assert str(refused.value).startswith("objective.name: ")


@pytest.fixture
def rival(tmp_path, monkeypatch):
    (tmp_path / "hand_on.py").write_text(RIVAL)
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(tmp_path)])
    yield "hand_on"
    sys.modules.pop("dib_jax.objectives.hand_on", None)


CONFIG = {
    "dataset": {"name": "digits"},
    "model": {"name": "mlp", "widths": (6, 5)},
    "batch_size": 8,
}


def test_one_file_is_known_checked_and_trained(rival):
    assert rival in known("objectives")
    config = {**CONFIG, "objective": {"name": rival, "weight": "much"}}
    with pytest.raises(ValueError, match="objective.weight: got 'much'; must be a num"):
        complete(config)
    config["objective"]["weight"] = 2.0
    experiment = assemble(complete(config))
    phase = experiment.algorithm.phases[0]
    batch = experiment.data(experiment.dataset.train).take(slice(8)).batch()

    @jax.jit
    def first_step(key, batch):
        state = phase.init(key, experiment.algorithm.network, batch)
        return phase.step(state, experiment.algorithm.network, batch, key)[1]

    terms = first_step(experiment.key, batch)[0]
    assert terms["lost"] > 0
    assert terms["loss"] == pytest.approx(terms["task_loss"] + 2 * terms["lost"])
