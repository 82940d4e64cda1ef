import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import chex
import jax
import numpy as np
import pytest
from dib_jax.training.config import complete
from experiments.command_line import load_config

from dib_jax import checkpoints
from dib_jax.objectives import Occasional
from dib_jax.training import train as engine
from dib_jax.training.compilation import compiler_figures
from dib_jax.training.evaluation import predictor_of
from dib_jax.training.train import NonFiniteError, load_trained, train
from dib_jax.training.workdir import read_results

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits_cnn.py"


def small(*, blocks=1, **changes):
    """Digits, three dense stages, which compile fast, and two epochs each."""
    config = load_config(f"{CONFIG}:quick").config
    config.model = dict(name="mlp", widths=(16, 12, 8), batch_norm=True)
    config.schedule.blocks = blocks
    with config.ignore_type():  # epochs may be a number or a tuple
        config.update({"epochs": 2, **changes})
    return complete(config)


def silencing():
    """A loss that drives every unit of a stage below its ReLU."""

    def objective(signals):
        return signals.features.mean(axis=0).sum() + signals.head_loss, {}

    return objective


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def without_seconds(entries):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "first"
    return workdir, train(small(), workdir, config_name="digits_cnn")


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("parallel") / "first"
    return workdir, train(in_parallel(), workdir, config_name="digits_cnn")


def in_parallel(**changes):
    config = small()
    config.schedule.name = "parallel"
    with config.ignore_type():
        config.update(changes)
    return complete(config)


def test_a_run_leaves_what_the_design_promises(run):
    workdir, trained = run
    results = read_results(workdir)
    assert results == json.loads(json.dumps(trained.results))
    assert list(results) == [
        "config_name", "dataset", "dataset_description", "task", "objective", "head",
        "schedule", "seed", "metric", "loss_unit", "duplicates", "test", "validation",
        "stages", "temp_bytes", "peak_bytes", "seconds", "compile_seconds", "hardware",
        "versions", "ensemble",
    ]  # fmt: skip
    assert (results["metric"], results["loss_unit"]) == ("accuracy", "nats")
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
    record = lines(workdir)
    assert [(e["stage"], e["epoch"], e["split"]) for e in record] == [
        (stage, epoch, split)
        for stage in range(3)
        for epoch in (1, 2)
        for split in ("train", "validation")
    ]
    assert {"loss", "task_loss", "accuracy", "input_information"} <= set(record[0])
    # loss = task_loss + β I(X; T), β = 0.01
    penalty = record[0]["loss"] - record[0]["task_loss"]
    assert penalty == pytest.approx(0.01 * record[0]["input_information"], rel=1e-3)


def test_the_results_are_those_of_the_saved_network(run):
    workdir, trained = run
    again = load_trained(workdir)
    chex.assert_trees_all_equal(again.network, trained.network)
    np.testing.assert_array_equal(again.outputs, trained.outputs)
    labels = trained.experiment.dataset.test["labels"]
    accuracy = np.mean(trained.outputs.argmax(-1) == labels)
    assert trained.results["test"]["accuracy"] == pytest.approx(accuracy)


def test_the_ensemble_of_all_heads_is_evaluated_on_the_test_split(run):
    workdir, (experiment, network, results, *_) = run
    test = experiment.dataset.test
    heads = [
        np.asarray(outputs)
        for outputs in predictor_of(experiment, experiment.blocks)(
            (), *network, test["images"]
        )
    ]
    together = heads[0] + 2 * heads[1] + 4 * heads[2]
    accuracy = np.mean(together.argmax(-1) == test["labels"])
    assert results["ensemble"]["accuracy"] == pytest.approx(accuracy)
    assert set(results["ensemble"]) == set(results["test"])
    assert load_trained(workdir).ensemble == results["ensemble"]


def test_the_same_config_and_seed_give_the_same_bits_twice(run, tmp_path):
    workdir, trained = run
    again = train(small(), tmp_path / "run", config_name="digits_cnn")
    chex.assert_trees_all_equal(again.network, trained.network)
    assert without_seconds(lines(tmp_path / "run")) == without_seconds(lines(workdir))


def test_another_seed_gives_another_network(run, tmp_path):
    other = train(small(seed=1), tmp_path / "run", config_name="digits_cnn")
    assert other.results["validation"] != run[1].results["validation"]


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
        config = small(epochs=1, seed=seed, batch_size=batch_size)
        config.model.widths = (4, 4)
        config.optimizer.update(rates)
        train(config, tmp_path / name, config_name="digits_cnn")
        return sorted(compiled)

    first = programs("first", learning_rate=0.1)
    assert first
    other = programs("other", seed=1, learning_rate=0.3, weight_decay=0.01)
    assert other == first
    assert programs("smaller", batch_size=32) != first


def stop_at(done, config, workdir, monkeypatch):
    """A run that ends when so many epochs, of all its stages, have been saved."""
    save = checkpoints.save

    class Stop(Exception):
        pass

    def save_and_stop(folder, step, tree, metadata):
        save(folder, step, tree, metadata)
        if step == done:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_CHECKPOINT_SHARE", float("inf"))  # after each epoch
        patch.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(Stop):
            train(config, workdir, config_name="digits_cnn")


def test_later_stages_change_no_bit_of_earlier_ones(run, tmp_path):
    config = small()
    config.model.widths = (16, 12)
    shorter = train(config, tmp_path / "run", config_name="digits_cnn")
    chex.assert_trees_all_equal(shorter.network.stages, run[1].network.stages[:2])
    chex.assert_trees_all_equal(shorter.network.heads, run[1].network.heads[:2])


@pytest.mark.parametrize("at", [(0, 1), (1, 1), (1, 2), (2, 2)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    run, tmp_path, at, monkeypatch
):
    """Stopped right after the checkpoint of (stage, epoch); a line too many is cut."""
    workdir, done = tmp_path / "run", 2 * at[0] + at[1]
    stop_at(done, small(), workdir, monkeypatch)
    assert len(lines(workdir)) == 2 * done
    with (workdir / "metrics.jsonl").open("a") as record:
        record.write('{"stage": 9, "cut off in the mid')
    resumed = train(small(), workdir, config_name="digits_cnn")
    chex.assert_trees_all_equal(resumed.network, run[1].network)
    assert without_seconds(lines(workdir)) == without_seconds(lines(run[0]))


@pytest.mark.parametrize(
    ("make", "whole"), [("small", "run"), ("in_parallel", "at_once")]
)
def test_after_kill_9_at_any_moment_the_same_command_ends_with_the_same_bits(
    request, tmp_path, make, whole
):
    uninterrupted, wanted_result = request.getfixturevalue(whole)
    workdir = tmp_path / "run"
    script = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = [{str(pathlib.Path(__file__).parent)!r}]
        import pathlib, test_train
        from dib_jax.training.train import train
        train(test_train.{make}(), pathlib.Path({str(workdir)!r}),
              config_name="digits_cnn")
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(CONFIG.parents[1])}
    killed = []
    for wanted in (1, 3):  # lines of the record that are there when it is killed
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            record = workdir / "metrics.jsonl"
            if record.exists() and record.read_text().count("\n") >= wanted:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed.append(process.returncode)
    assert killed == [-signal.SIGKILL] * 2
    config = {"small": small, "in_parallel": in_parallel}[make]()
    resumed = train(config, workdir, config_name="digits_cnn")
    chex.assert_trees_all_equal(resumed.network, wanted_result.network)
    assert without_seconds(lines(workdir)) == without_seconds(lines(uninterrupted))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    run, tmp_path, monkeypatch, capfd
):
    workdir = tmp_path / "run"
    monkeypatch.setattr(engine, "_CHECKPOINT_SHARE", float("inf"))
    train(small(), workdir, config_name="digits_cnn")
    (workdir / "results.json").unlink()
    newest = max((workdir / "checkpoints").iterdir())
    largest = max(
        newest.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    capfd.readouterr()
    resumed = train(small(), workdir, config_name="digits_cnn")
    said = capfd.readouterr().err
    assert str(newest.name) in said
    assert "damaged" in said
    assert "going on after epoch 5 of 6" in said
    chex.assert_trees_all_equal(resumed.network, run[1].network)


def test_a_loss_that_is_not_finite_stops_the_run_with_stage_step_and_term(tmp_path):
    config = small()
    config.optimizer.learning_rate = 1e20
    with pytest.raises(
        NonFiniteError,
        match=r"stage 0, epoch 1, step \d+ of the epoch: \w+ is (nan|inf)",
    ):
        train(config, tmp_path / "run", config_name="digits_cnn")
    assert not (tmp_path / "run" / "results.json").exists()


def test_end_to_end_trains_all_stages_as_one_block_on_the_task_loss(tmp_path):
    config = small()
    config.schedule.name = "end_to_end"
    trained = train(config, tmp_path / "run", config_name="digits_cnn")
    assert [entry["stage"] for entry in trained.results["stages"]] == [2]
    assert "ensemble" not in trained.results
    assert trained.results["objective"] == "task_loss"
    for entry in lines(tmp_path / "run"):
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


def test_the_first_stage_trained_at_once_is_that_of_the_sequential_schedule(
    run, at_once
):
    """By its record. They are two programs, so equal to rounding."""
    of_first = [
        [line for line in without_seconds(lines(workdir)) if line["stage"] == 0]
        for workdir in (run[0], at_once[0])
    ]
    for one, other in zip(*of_first, strict=True):
        assert one.pop("split") == other.pop("split")
        assert one == pytest.approx(other, rel=1e-4)
    assert len(of_first[0]) == 4


def test_stages_trained_at_once_go_on_to_the_same_bits(at_once, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    stop_at(1, in_parallel(), workdir, monkeypatch)
    assert len(lines(workdir)) == 6
    resumed = train(in_parallel(), workdir, config_name="digits_cnn")
    chex.assert_trees_all_equal(resumed.network, at_once[1].network)
    assert without_seconds(lines(workdir)) == without_seconds(lines(at_once[0]))
    again = load_trained(workdir)
    chex.assert_trees_all_equal(again.network, resumed.network)


def test_blocks_trained_at_once_on_a_loss_without_an_information_term(tmp_path):
    config = in_parallel(epochs=1)
    config.schedule.blocks = 2
    config.objective = dict(name="cross_entropy")
    trained = train(complete(config), tmp_path / "run", config_name="digits_cnn")
    assert [entry["stage"] for entry in trained.results["stages"]] == [1, 2]
    for line in lines(tmp_path / "run"):
        if line["split"] == "train":
            assert line["loss"] == line["task_loss"]


def test_stages_trained_at_once_take_one_number_of_epochs():
    with pytest.raises(ValueError, match=r"epochs: got \(1, 2, 3\), 3 numbers for 1"):
        in_parallel(epochs=(1, 2, 3))
    assert in_parallel(epochs=(2,)).epochs == (2,)


def test_blocks_of_two_stages_and_epochs_for_each(tmp_path):
    config = small(epochs=(1, 2), blocks=2)
    trained = train(config, tmp_path / "run", config_name="digits_cnn")
    stages = trained.results["stages"]
    assert [(e["stage"], e["epochs"]) for e in stages] == [(1, 1), (2, 2)]


def test_without_a_validation_split_the_last_epoch_counts(tmp_path):
    config = small()
    config.dataset.val_fraction = 0.0
    trained = train(config, tmp_path / "run", config_name="digits_cnn")
    assert trained.results["validation"] == {}
    assert [entry["best_epoch"] for entry in trained.results["stages"]] == [2, 2, 2]
    assert {entry["split"] for entry in lines(tmp_path / "run")} == {"train"}


def test_the_epoch_that_was_best_on_validation_is_kept(run):
    workdir, trained = run
    for entry in trained.results["stages"]:
        scores = [
            line["accuracy"]
            for line in lines(workdir)
            if line["stage"] == entry["stage"] and line["split"] == "validation"
        ]
        assert entry["validation"]["accuracy"] == max(scores)
        assert scores[entry["best_epoch"] - 1] == max(scores)


def test_a_workdir_of_another_config_is_refused_by_the_fields_that_differ(run):
    config = small(seed=3)
    config.objective.beta = 0.5
    before = sorted(p.name for p in run[0].rglob("*"))
    with pytest.raises(ValueError, match="beta is 0.01 there and 0.5 here; seed is"):
        train(config, run[0], config_name="digits_cnn")
    assert sorted(p.name for p in run[0].rglob("*")) == before


def test_a_moved_workdir_with_the_data_elsewhere_is_the_same_run(run, tmp_path):
    import shutil

    shutil.copytree(run[0], tmp_path / "moved")
    config = small(workdir=str(tmp_path / "moved"))
    config.dataset.data_dir = str(tmp_path)
    again = train(config, tmp_path / "moved", config_name="digits_cnn")
    chex.assert_trees_all_equal(again.network, run[1].network)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="not empty and holds no config.json"):
        train(small(), tmp_path, config_name="digits_cnn")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_batch_larger_than_the_training_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"batch_size: 5000 .* allowed are 1 to"):
        train(small(batch_size=5000), tmp_path / "run", config_name="digits_cnn")
    assert not (tmp_path / "run").exists()


def test_a_flip_that_makes_one_class_of_another_is_refused_for_training(tmp_path):
    arrays = {
        "images": np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1), np.uint8),
        "labels": np.arange(80) % 2,
        "class_names": np.array(["keep left", "keep right"]),
    }
    (tmp_path / "signs").mkdir()
    for split in ("train", "test"):
        np.savez(tmp_path / "signs" / f"{split}.npz", **arrays)
    config = small(epochs=1, batch_size=16)
    config.dataset.update(name="signs", data_dir=str(tmp_path), augment="flip")
    with pytest.raises(ValueError, match="dataset.augment: flip makes class 0, 'keep "):
        train(config, tmp_path / "run", config_name="signs")
    assert not (tmp_path / "run").exists()


def test_with_the_frozen_stages_in_files_the_bits_are_the_same(run, tmp_path, capfd):
    config = small()
    config.schedule.cache = "file"
    trained = train(config, tmp_path / "run", config_name="digits_cnn")
    chex.assert_trees_all_equal(trained.network, run[1].network)
    assert not (tmp_path / "run" / "cache").exists()
    said = capfd.readouterr().err
    assert "stage 0: the output" not in said
    for stage in (1, 2):
        line = f"stage {stage}: the output of the stages before it is cached, place: fi"
        assert said.count(line) == 1


def renewing(place):
    config = small(epochs=4)
    config.dataset.augment = "flip"
    config.model.widths = (16, 12)
    config.schedule.update(copies=1, renew=2, cache=place)
    return config


def renewals(monkeypatch):
    """The training pictures of every copy from now on, as they are kept."""
    seen, keep = [], engine.keep

    def watched(block, *arguments, **options):
        kept = keep(block, *arguments, **options)
        if block.augment and block.trunk:
            seen.append(np.array(kept.arrays["images"]))
        return kept

    monkeypatch.setattr(engine, "keep", watched)
    return seen


def test_copies_are_drawn_anew_after_so_many_epochs_and_the_run_goes_on_to_the_same(
    tmp_path, monkeypatch
):
    drawn = renewals(monkeypatch)
    whole = train(renewing("device"), tmp_path / "whole", config_name="digits_cnn")
    assert len(drawn) == 2  # four epochs of the one stage that has others before it
    assert (drawn[0] != drawn[1]).any()
    for done in (5, 6, 7):  # within a period, at its end, after the renewal
        stop_at(done, renewing("file"), tmp_path / "run", monkeypatch)
    drawn.clear()
    resumed = train(renewing("file"), tmp_path / "run", config_name="digits_cnn")
    assert len(drawn) == 1
    chex.assert_trees_all_equal(resumed.network, whole.network)
    assert not (tmp_path / "run" / "cache").exists()


def test_a_term_that_is_measured_now_and_then_is_averaged_where_it_was():
    measured = np.array([True, False, False, True])
    terms = {
        "loss": np.array([4.0, 1.0, 1.0, 2.0]),
        "entropy": Occasional(np.array([3.0, 0.0, 0.0, 1.0]), measured),
        "never": Occasional(np.zeros(4), np.zeros(4, bool)),
    }
    assert engine._averages(terms, None, 1) == {"loss": 2.0, "entropy": 2.0}


def test_compiler_figures_are_those_of_the_program():
    def product(x):
        return x @ x

    compiled = jax.jit(product).lower(np.ones((64, 64), np.float32)).compile()
    figures = compiler_figures(compiled)
    assert figures["flops"] == 2 * 64**3
    assert set(figures) == {"temp_bytes", "peak_bytes", "flops"}


def test_a_stage_that_collapses_is_named_and_the_run_goes_on(tmp_path, capsys):
    objective = {"name": f"{__name__}:silencing"}
    config = load_config(f"{CONFIG}:quick").config.to_dict()
    model = {"name": "mlp", "widths": (6, 4), "batch_norm": False}
    config |= {"model": model, "objective": objective}
    config["optimizer"]["weight_decay"] = 0.0
    results = train(complete(config), tmp_path / "run", config_name="x").results
    assert [entry["collapsed"] for entry in results["stages"]] == [True, True]
    said = capsys.readouterr()
    assert "stage 0, epoch 3: its features have collapsed" in said.out + said.err
    spread = [line["spread"] for line in lines(tmp_path / "run") if "spread" in line]
    assert spread[-1] == 0
    assert max(spread) > 0.01


def test_stages_that_learn_have_not_collapsed(run):
    workdir, trained = run
    assert not any(entry["collapsed"] for entry in trained.results["stages"])
    assert min(line.get("spread", 1) for line in lines(workdir)) > 0.1


def test_the_output_layer_trained_alone_is_the_last_entry(tmp_path):
    config = small().to_dict()
    config["schedule"]["name"] = "parallel_readout"
    config |= {"epochs": (1, 2), "objective": {"name": "random_features"}}
    trained = train(complete(config), tmp_path / "run", config_name="x")
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
    again = load_trained(tmp_path / "run")
    np.testing.assert_array_equal(again.outputs, trained.outputs)
