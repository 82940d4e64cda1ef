"""What an experiment is made of, as its config says."""

import functools

import jax
import numpy as np
import pytest

from dib_jax.commands.assemble import assemble, assemble_from
from dib_jax.commands.config import complete
from dib_jax.tasks import Task
from dib_jax.tasks.classification import classification
from dib_jax.training.experiment import Cache
from dib_jax.training.workdir import claim, write_inputs


def settings(algorithm="sequential", **sections):
    usual = {
        "dataset": {"samples": 100},
        "model": {"name": "cnn", "widths": (4, 6, 8), "pools": 2},
        "algorithm": {"name": algorithm},
        "epochs": 1,
        "batch_size": 16,
    }
    return {**usual, **sections}


def states(experiment, make=jax.eval_shape):
    """The initial state of every block, or its shapes."""
    network, found = experiment.algorithm.network, []
    for phase in experiment.phases:
        state = make(phase.init, experiment.key, network, experiment.example())
        network = phase.read(state, network)
        found += state
    return found


def test_a_head_may_have_one_number_per_stage_and_the_baseline_takes_the_last():
    head = {"name": "conv", "layers": (2, 1, 0), "pool": 2}

    def heads(algorithm):
        """Names of what each head is made of, with how many convolutions."""
        experiment = assemble(complete(settings(algorithm, head=head)))
        params = [state.head["params"] for state in states(experiment)]
        convolutions = [
            str(jax.tree.structure(p)).count("Convolution_") for p in params
        ]
        return [(set(p), n) for p, n in zip(params, convolutions, strict=True)]

    in_turn = heads("sequential")
    assert [convolutions for _, convolutions in in_turn] == [2, 1, 0]
    assert in_turn[-1] == heads("end_to_end")[0] == ({"Dense_0"}, 0)
    head["layers"] = (2, 1)
    with pytest.raises(ValueError, match="head.layers: .* 2 numbers for 3 stages"):
        complete(settings(head=head))


def test_each_phase_has_its_epochs():
    experiment = assemble(complete(settings("parallel_readout", epochs=(2, 5))))
    assert [phase.exits for phase in experiment.phases] == [(0, 1, 2), (3,)]
    assert experiment.epochs == (2, 5)
    with pytest.raises(ValueError, match="epochs: .* 3 numbers for 2 phases"):
        complete(settings("parallel_readout", epochs=(2, 5, 1)))


def test_an_objective_may_ask_for_the_number_of_stages_and_bring_modules():
    objective = {"name": "infopro", "prediction": "classification"}
    experiment = assemble(complete(settings(objective=objective)))
    modules = [state.modules["params"] for state in states(experiment)]
    assert [sorted(params) for params in modules] == [["decoder"], ["decoder"], []]


def test_modules_of_an_objective_are_not_for_penalties_end_to_end():
    objective = {"name": "infopro"}
    with pytest.raises(ValueError, match=r"algorithm.name: .* modules of this object"):
        complete(settings("end_to_end_penalized", objective=objective))


def test_an_inner_stage_has_its_own_weight_end_to_end():
    objective = {"name": "dib", "beta": (0.1, 0.2, 0.3)}
    experiment = assemble(
        complete(settings("end_to_end_penalized", objective=objective))
    )
    (state,) = states(experiment)
    assert len(state.params) == 3
    objective["beta"] = (0.1, 0.2)
    with pytest.raises(ValueError, match="objective.beta: .* 2 numbers for 3 stages"):
        complete(settings("end_to_end_penalized", objective=objective))


def test_a_head_may_ask_for_the_networks_stages_and_has_weights_of_its_own():
    head = {"name": "augmented", "depth": 1}
    experiment = assemble(complete(settings("parallel_readout", head=head)))

    def make(init, *arguments):
        return jax.jit(init)(*arguments)

    first, second, *last = states(experiment, make)
    # At depth 1, of the two later stages the last one.
    assert jax.tree.leaves(first.head["params"]["later_1"])[-1].shape == (3, 3, 4, 8)
    for state in last:
        assert set(state.head["params"]) == {"Dense_0"}
    kernels = [
        jax.tree.leaves(tree)[-1]
        for tree in (second.head["params"]["later_0"], last[0].params[0])
    ]
    assert kernels[0].shape == kernels[1].shape == (3, 3, 6, 8)
    assert (kernels[0] != kernels[1]).any()
    head = {"name": "augmented", "least": 3}
    with pytest.raises(ValueError, match="head.least: .* 0 to depth = 2, got 3"):
        complete(settings("parallel_readout", head=head))


def test_past_its_pieces_nothing_is_left_of_the_config_but_its_record():
    cache = {"place": "host", "copies": 2, "renew": 3}
    dataset = {"samples": 100, "augment": "crop", "placement": "stream"}
    config = complete(settings(cache=cache, dataset=dataset, seed=7))
    experiment = assemble(config, name="mine")
    assert experiment.cache == Cache("host", 2, 3)
    assert experiment.streams
    assert experiment.batch_size == 16
    assert experiment.about == {
        "config_name": "mine", "dataset": "digits", "task": "classification",
        "objective": "dib", "head": "linear", "algorithm": "sequential", "seed": 7,
        "unused": [],
        "algorithm_about": "Blocks of stages in turn, each frozen before the next one "
        "starts.",
    }  # fmt: skip
    assert experiment.config["model"]["widths"] == [4, 6, 8]
    samples = {k: x[:3] for k, x in experiment.dataset.train.items()}
    changed = experiment.augment(jax.random.key(0), samples)
    assert (changed["images"] != samples["images"]).any()
    np.testing.assert_array_equal(changed["labels"], samples["labels"])
    assert assemble(complete(settings())).augment is None


def singular(*, num_classes: int) -> Task:
    """A classification that has no ensemble."""
    return classification(num_classes=num_classes)._replace(ensemble=None)


def test_views_are_for_tasks_whose_outputs_can_be_averaged():
    dataset = {"views": "shift"}
    assert len(assemble(complete(settings(dataset=dataset))).views) == 3
    task = {"name": f"{__name__}:singular"}
    with pytest.raises(ValueError, match=r"dataset.views: got 'shift'; .* be averaged"):
        assemble(complete(settings(dataset=dataset, task=task)))


def test_a_run_can_be_assembled_from_its_workdir_without_its_data(
    tmp_path, monkeypatch
):
    whole = assemble(complete(settings()))
    claim(tmp_path, whole.config)
    write_inputs(tmp_path, whole)
    again = assemble_from(tmp_path)
    assert again.config == whole.config

    def must_not_load(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr("dib_jax.data.load", must_not_load)
    without = assemble_from(tmp_path, with_data=False)
    assert without.dataset.class_names == tuple("0123456789")
    assert without.dataset.train["images"].shape == (0, 8, 8, 1)
    images = {"images": whole.dataset.test["images"][:4]}
    np.testing.assert_array_equal(
        without.prepare_inputs(images, without.common).inputs,
        whole.prepare_inputs(images, whole.common).inputs,
    )
    shape = functools.partial(jax.tree.map, np.shape)
    assert shape(states(without)) == shape(states(whole))
