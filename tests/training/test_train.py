"""Whole runs of configs: what they leave, and that they are the same every time."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest
from tiny_runs import experiment_of, lines, settings, without_seconds

from dib_jax.algorithms import Batch
from dib_jax.commands.assemble import assemble
from dib_jax.data.views import views
from dib_jax.training import evaluation
from dib_jax.training.finished import load_trained
from dib_jax.training.records import NonFiniteError
from dib_jax.training.train import train
from dib_jax.training.workdir import read_results

pytestmark = pytest.mark.once

FIGURES = True  # of the compiler, for one step


def silencing():
    """A loss that drives every unit of a stage below its ReLU."""

    def objective(signals):
        return signals.features.mean(axis=0).sum() + signals.head_loss, {}

    return objective


def test_a_run_leaves_what_the_design_promises(in_turn):
    workdir, trained = in_turn
    results = read_results(workdir)
    assert results == json.loads(json.dumps(trained.results))
    assert set(results) == {
        "config_name", "dataset", "dataset_description", "task", "objective", "head",
        "algorithm", "algorithm_about", "unused", "seed", "metric", "measures",
        "duplicates", "test", "validation", "stages", "temp_bytes", "peak_bytes",
        "seconds", "compile_seconds", "hardware", "versions", "ensemble", "jax",
        "ensemble_validation",
    }  # fmt: skip
    assert next(iter(results)) == "config_name"
    assert results["config_name"] == "digits_cnn"
    assert results["metric"] == "accuracy"
    units = {name: each["unit"] for name, each in results["measures"].items()}
    assert (units["accuracy"], units["loss"]) == ("%", "nats")
    assert (results["algorithm"], results["objective"]) == ("sequential", "dib")
    assert results["duplicates"] == {"test": 0, "validation": 0}
    assert [entry["stage"] for entry in results["stages"]] == [0, 1, 2]
    for entry in results["stages"]:
        assert set(entry) >= {
            "stage", "validation", "test", "seconds", "epochs", "temp_bytes",
            "peak_bytes", "flops",
        }  # fmt: skip
        assert entry["flops"] > 0
        assert entry["epochs"] == 2
    assert results["test"] == results["stages"][-1]["test"]
    assert results["temp_bytes"] == max(e["temp_bytes"] for e in results["stages"])
    # Those who trained in turn have each had their own time.
    seconds = sum(entry["seconds"] for entry in results["stages"])
    assert results["seconds"] == pytest.approx(seconds, abs=2e-3)
    record = lines(workdir)
    assert [(e["stage"], e["epoch"], e["split"]) for e in record] == [
        (stage, epoch, split)
        for stage in range(3)
        for epoch in (1, 2)
        for split in ("train", "validation")
    ]
    assert [e["step"] for e in record[:4]] == [9, 9, 18, 18]
    assert {"loss", "task_loss", "accuracy", "input_information"} <= set(record[0])
    # loss = task_loss + β I(X; T), β = 0.01; measured at each fourth step of nine.
    penalty = record[0]["loss"] - record[0]["task_loss"]
    weight = 0.01 * 4 * 3 / 9
    assert penalty == pytest.approx(weight * record[0]["input_information"], rel=1e-3)
    assert sorted(path.name for path in workdir.iterdir()) == [
        ".lock", "checkpoints", "config.json", "digests.json", "inputs.json",
        "metrics.jsonl", "results.json",
    ]  # fmt: skip


def test_the_results_are_those_of_the_saved_network(in_turn):
    workdir, trained = in_turn
    again = load_trained(trained.experiment, workdir)
    chex.assert_trees_all_equal(again.network, trained.network)
    np.testing.assert_array_equal(again.outputs, trained.outputs)
    assert (again.test, again.ensemble) == (trained.test, trained.ensemble)
    labels = trained.experiment.dataset.test["labels"]
    accuracy = np.mean(trained.outputs.argmax(-1) == labels)
    assert trained.results["test"]["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("split", "name"), [("test", "ensemble"), ("validation", "ensemble_validation")]
)
def test_the_ensemble_of_all_heads_is_evaluated(in_turn, split, name):
    _, (experiment, network, results, *_) = in_turn
    samples = getattr(experiment.dataset, split)
    batch = experiment.prepare_inputs(samples, dict(experiment.common))
    assert isinstance(batch, Batch)
    heads = [np.asarray(x) for x in experiment.algorithm.predict(network, batch)]
    together = heads[0] + 2 * heads[1] + 4 * heads[2]
    accuracy = np.mean(together.argmax(-1) == samples["labels"])
    assert results[name]["accuracy"] == pytest.approx(accuracy)
    assert set(results[name]) == set(results["test"])


def test_outputs_are_averaged_over_views_for_the_test_split_and_for_samples(in_turn):
    _, (experiment, network, results, *_) = in_turn
    seen = experiment._replace(views=views("flip,shift"))
    found = evaluation.evaluate(seen, network)
    test = experiment.dataset.test
    expected = sum(
        view.weight
        * evaluation.outputs_of(experiment, network, dict(view.change(test)))
        for view in seen.views
    )
    np.testing.assert_allclose(found.outputs, expected, atol=1e-5)
    accuracy = np.mean(found.outputs.argmax(-1) == test["labels"])
    assert found.test[-1]["accuracy"] == pytest.approx(accuracy)
    assert found.one_view == results["test"]
    assert "one_view" not in results
    # Read from the host, batch by batch, they are the same.
    some = {"images": test["images"][:7]}
    streamed = evaluation.outputs_of(seen._replace(streams=True), network, some)
    np.testing.assert_allclose(streamed, expected[:7], atol=1e-5)


def test_what_the_last_exit_gives_for_some_samples_is_as_for_the_whole_split(in_turn):
    """Whether the labels are there or not."""
    _, (experiment, network, _, _, outputs, *_) = in_turn
    some = {"images": experiment.dataset.test["images"][:7]}
    found = evaluation.outputs_of(experiment, network, some)
    np.testing.assert_allclose(found, outputs[:7], atol=1e-5)


def test_the_same_config_and_seed_give_the_same_bits_twice(in_turn, tmp_path):
    workdir, trained = in_turn
    again = train(experiment_of(), tmp_path / "run")
    chex.assert_trees_all_equal(again.network, trained.network)
    assert without_seconds(lines(tmp_path / "run")) == without_seconds(lines(workdir))


def test_later_stages_change_no_bit_of_earlier_ones(in_turn, tmp_path):
    model = {"name": "mlp", "widths": (16, 12)}
    shorter = train(experiment_of(model=model), tmp_path / "run")
    chex.assert_trees_all_equal(shorter.network.stages, in_turn[1].network.stages[:2])
    chex.assert_trees_all_equal(shorter.network.heads, in_turn[1].network.heads[:2])


def test_seeds_and_learning_rates_share_the_programs_of_their_epochs(
    tmp_path, monkeypatch
):
    compile_program, compiled = jax.stages.Lowered.compile, []

    def recorded(lowered, *args, **kwargs):
        compiled.append(lowered.as_text())
        return compile_program(lowered, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", recorded)

    def programs(name, *, seed=0, batch_size=64, **rates):
        compiled.clear()
        experiment = experiment_of(
            model={"name": "mlp", "widths": (4,)},
            objective={"name": "cross_entropy"},
            optimizer=rates,
            epochs=1,
            seed=seed,
            batch_size=batch_size,
        )
        return train(experiment, tmp_path / name), sorted(compiled)

    one, first = programs("first", learning_rate=0.1)
    assert first
    two, other = programs("other", seed=1, learning_rate=0.3, weight_decay=0.01)
    assert other == first
    assert one.results["validation"] != two.results["validation"]
    assert programs("smaller", batch_size=32)[1] != first


def test_end_to_end_trains_all_stages_as_one_block_on_the_task_loss(end_to_end):
    workdir, trained = end_to_end
    assert [entry["stage"] for entry in trained.results["stages"]] == [2]
    assert "ensemble" not in trained.results
    assert trained.results["objective"] == "task_loss"
    assert trained.results["unused"] == ["objective"]
    for entry in lines(workdir):
        if entry["split"] == "train":
            assert entry["loss"] == entry["task_loss"]
    assert len(trained.network.stages) == 3
    assert len(trained.network.heads) == 1


def test_stages_trained_at_once_have_an_entry_and_lines_each(at_once):
    workdir, trained = at_once
    stages = trained.results["stages"]
    assert [(e["stage"], e["epochs"]) for e in stages] == [(0, 2), (1, 2), (2, 2)]
    assert {e["best_epoch"] for e in stages} == {stages[-1]["best_epoch"]}
    assert len({e["test"]["loss"] for e in stages}) == 3
    # They share one step and its seconds.
    assert trained.results["seconds"] == stages[0]["seconds"] == stages[2]["seconds"]
    assert [(e["epoch"], e["stage"], e["split"]) for e in lines(workdir)] == [
        (epoch, stage, split)
        for epoch in (1, 2)
        for stage in range(3)
        for split in ("train", "validation")
    ]
    best = {e["stage"]: e["validation"] for e in stages}
    for line in lines(workdir):
        if (line["split"], line["epoch"]) == ("validation", stages[0]["best_epoch"]):
            assert line["loss"] == best[line["stage"]]["loss"]


def test_the_first_stage_trained_at_once_is_that_of_stages_in_turn(in_turn, at_once):
    """By its record. They are two programs, so equal to rounding."""
    of_first = [
        [line for line in without_seconds(lines(workdir)) if line["stage"] == 0]
        for workdir in (in_turn[0], at_once[0])
    ]
    for one, other in zip(*of_first, strict=True):
        assert one.pop("split") == other.pop("split")
        assert one == pytest.approx(other, rel=1e-4)
    assert len(of_first[0]) == 4


def test_the_epoch_that_was_best_on_validation_is_kept(in_turn):
    workdir, trained = in_turn
    for entry in trained.results["stages"]:
        scores = [
            line["accuracy"]
            for line in lines(workdir)
            if line["stage"] == entry["stage"] and line["split"] == "validation"
        ]
        assert entry["validation"]["accuracy"] == max(scores)
        assert scores[entry["best_epoch"] - 1] == max(scores)


def test_a_workdir_of_another_config_is_refused_by_the_fields_that_differ(in_turn):
    workdir, _ = in_turn
    other = experiment_of(seed=3, objective={"beta": 0.5})
    before = sorted(p.name for p in workdir.rglob("*"))
    with pytest.raises(ValueError, match="beta is 0.01 there and 0.5 here; seed is"):
        train(other, workdir)
    assert sorted(p.name for p in workdir.rglob("*")) == before


def test_a_moved_workdir_with_the_data_elsewhere_is_the_same_run(in_turn, tmp_path):
    workdir, trained = in_turn
    shutil.copytree(workdir, tmp_path / "moved")
    moved = experiment_of(
        workdir=str(tmp_path / "moved"),
        dataset={"samples": 640, "data_dir": str(tmp_path), "placement": "device"},
    )
    again = train(moved, tmp_path / "moved")
    chex.assert_trees_all_equal(again.network, trained.network)
    assert lines(tmp_path / "moved") == lines(workdir)


def test_a_batch_larger_than_the_training_split_is_refused():
    with pytest.raises(ValueError, match=r"batch_size: 5000 .* allowed are 1 to 576"):
        assemble(settings(batch_size=5000))


def test_a_flip_that_makes_one_class_of_another_is_refused_for_training(tmp_path):
    arrays = {
        "images": np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1), np.uint8),
        "labels": np.arange(80) % 2,
        "class_names": np.array(["keep left", "keep right"]),
    }
    (tmp_path / "signs").mkdir()
    for split in ("train", "test"):
        np.savez(tmp_path / "signs" / f"{split}.npz", **arrays)
    signs = {"name": "signs", "data_dir": str(tmp_path), "augment": "flip"}
    with pytest.raises(ValueError, match="dataset.augment: flip makes class 0, 'keep "):
        assemble(settings(dataset=signs, batch_size=16))


def test_a_loss_that_is_not_finite_stops_the_run_with_stage_step_and_term(tmp_path):
    experiment = experiment_of(optimizer={"learning_rate": 1e20})
    with pytest.raises(
        NonFiniteError,
        match=r"stage 0, epoch 1, step \d+ of the epoch: \w+ is (nan|inf)",
    ):
        train(experiment, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_stage_that_collapses_is_named_and_the_run_goes_on(tmp_path, capsys):
    experiment = experiment_of(
        model={"name": "mlp", "widths": (6, 4), "batch_norm": False},
        objective={"name": f"{__name__}:silencing"},
        optimizer={"weight_decay": 0.0, "learning_rate": 0.2},
        epochs=3,
    )
    results = train(experiment, tmp_path / "run").results
    assert [entry["collapsed"] for entry in results["stages"]] == [True, True]
    said = capsys.readouterr()
    assert "stage 0, epoch 3: its features have collapsed" in said.out + said.err
    spread = [line["spread"] for line in lines(tmp_path / "run") if "spread" in line]
    assert spread[-1] == 0
    assert max(spread) > 0.01


def test_stages_that_learn_have_not_collapsed(in_turn):
    workdir, trained = in_turn
    assert not any("collapsed" in entry for entry in trained.results["stages"])
    assert min(line.get("spread", 1) for line in lines(workdir)) > 0.1


def test_the_output_layer_trained_alone_is_the_last_entry(tmp_path):
    experiment = experiment_of(
        algorithm={"name": "parallel_readout"},
        objective={"name": "random_features"},
        epochs=(1, 2),
    )
    trained = train(experiment, tmp_path / "run")
    entries = trained.results["stages"]
    assert [(e["stage"], e["epochs"]) for e in entries] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 2),
    ]
    assert trained.results["test"] == entries[-1]["test"]
    # It reads the features of the last stage, and they are as that stage left them.
    assert trained.network.stages[3]["params"] == {}
    again = load_trained(experiment, tmp_path / "run")
    np.testing.assert_array_equal(again.outputs, trained.outputs)
