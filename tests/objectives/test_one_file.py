"""A new local loss is one new file in the folder, and the name of it in a config."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest

from dib_jax import objectives
from dib_jax.training.build import known
from dib_jax.training.config import complete
from dib_jax.training.experiment import assemble
from dib_jax.training.steps import initial_state, train_step
from experiments.command_line import load_config

pytestmark = pytest.mark.once

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits_cnn.py"
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
    config = load_config(f"{CONFIG}:quick").config.to_dict()
    config["objective"] = {"name": rival, "weight": "much"}
    with pytest.raises(ValueError, match="objective.weight: got 'much'; must be a num"):
        complete(config)
    config["objective"]["weight"] = 2.0
    experiment = assemble(complete(config))
    assert experiment.objective == rival
    block = experiment.blocks[0]
    batch = {
        name: jnp.asarray(array[:8]) for name, array in experiment.dataset.train.items()
    }
    state = initial_state(block, jax.random.key(0), batch["images"])
    keys = (jax.random.key(1),)
    _, (terms,) = train_step((block,), (state,), (), batch, keys=keys)
    assert terms["lost"] > 0
    assert terms["loss"] == pytest.approx(terms["task_loss"] + 2 * terms["lost"])
