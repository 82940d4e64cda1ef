import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from dib_jax.training.config import complete
from dib_jax.training.steps import initial_state
from experiments.command_line import load_config

from dib_jax.models.heads.linear import linear
from dib_jax.training.experiment import assemble

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


def scheduled(schedule, *, objective=None, epochs=1):
    config = load_config(f"{CONFIG}:quick").config.to_dict()
    config["schedule"]["name"] = schedule
    return {**config, "objective": objective or config["objective"], "epochs": epochs}


def test_an_output_layer_is_trained_alone_after_all_stages():
    """Its turn has epochs of its own, and its stage hands on what it gets."""
    experiment = assemble(complete(scheduled("parallel_readout", epochs=(2, 5))))
    assert [len(turn) for turn in experiment.phases] == [3, 1]
    assert experiment.epochs == (2, 5)
    last = experiment.blocks[-1]
    assert (last.stage, len(last.trunk)) == (3, 3)
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(last.stages[0].apply({}, x, train=True), x)
    signals = ml_collections.ConfigDict({"task_loss": 1.25})
    assert last.objective(signals) == (1.25, {})
    with pytest.raises(ValueError, match="epochs: .* 3 numbers for 2 blocks"):
        complete(scheduled("parallel_readout", epochs=(2, 5, 1)))


def test_an_objective_may_ask_for_the_number_of_stages_and_bring_modules():
    objective = {"name": "infopro", "prediction": "classification"}
    experiment = assemble(complete(scheduled("sequential", objective=objective)))
    assert [sorted(block.modules) for block in experiment.blocks] == [
        ["decoder"],
        ["decoder"],
        [],
    ]
    assert experiment.blocks[0].modules["decoder"].shape == (8, 8, 1)


def test_modules_of_an_objective_are_not_for_penalties_end_to_end():
    with pytest.raises(ValueError, match=r"schedule.name: .* modules of the objective"):
        complete(scheduled("end_to_end_penalized", objective={"name": "infopro"}))


def test_an_inner_stage_has_its_own_weight_end_to_end():
    objective = {"name": "dib", "beta": (0.1, 0.2, 0.3)}
    config = scheduled("end_to_end_penalized", objective=objective)
    (block,) = assemble(complete(config)).blocks
    assert block.every_stage
    assert len(block.stages) == 3
    objective["beta"] = (0.1, 0.2)
    with pytest.raises(ValueError, match="objective.beta: .* 2 numbers for 3 stages"):
        complete(config)


def test_a_head_may_ask_for_the_networks_stages_and_has_weights_of_its_own():
    config = scheduled("parallel_readout", epochs=1)
    config["head"] = {"name": "augmented", "depth": 1}
    experiment = assemble(complete(config))
    first, second, *last = experiment.blocks
    assert first.head.later == (*second.stages, *last[0].stages)
    assert [block.head for block in last] == [linear(num_outputs=10)] * 2
    images = experiment.dataset.train["images"][:2]
    kernels = [
        jax.tree.leaves(tree)[-1]
        for tree in (
            initial_state(second, jax.random.key(0), images).head["params"]["later_0"],
            initial_state(last[0], jax.random.key(0), images).params[0],
        )
    ]
    assert kernels[0].shape == kernels[1].shape == (3, 3, 64, 128)
    assert (kernels[0] != kernels[1]).any()
    config["head"] = {"name": "augmented", "least": 3}
    with pytest.raises(ValueError, match="head.least: .* 0 to depth = 2, got 3"):
        complete(config)
