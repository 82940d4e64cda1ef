import pathlib

import ml_collections
import pytest

from dib_jax.models.heads.linear import linear
from dib_jax.training.config import complete
from dib_jax.training.experiment import assemble
from experiments.command_line import load_config

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits_cnn.py"


def test_a_head_may_have_one_number_per_stage_and_the_baseline_takes_the_last():
    config = load_config(f"{CONFIG}:quick").config
    config.head = ml_collections.ConfigDict(dict(name="conv", layers=(2, 1, 0), pool=2))

    def heads(schedule):
        config.schedule.name = schedule
        return [block.head for block in assemble(complete(config)).blocks]

    kinds = [getattr(head, "layers", 0) for head in heads("sequential")]
    assert kinds == [2, 1, 0]
    assert heads("sequential")[-1] == heads("end_to_end")[0] == linear(num_outputs=10)
    config.head.layers = (2, 1)
    config.schedule.name = "sequential"
    with pytest.raises(ValueError, match="head.layers: .* 2 numbers for 3 stages"):
        complete(config)
