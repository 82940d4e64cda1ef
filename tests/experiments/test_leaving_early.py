"""Leaving early, by the commands: what is measured, written, shown and refused."""

import json

import numpy as np
import pytest
from PIL import Image

from dib_jax.analysis import exits as measuring
from dib_jax.analysis import runs
from dib_jax.analysis.report import exits as shown
from dib_jax.analysis.runs import Run
from dib_jax.commands import evaluate, predict, run
from dib_jax.commands import exits as asked

WORDS = (
    "--config=configs/digits_cascade.py",
    "--config.model.name=mlp",
    "--config.model.widths=16,8",
    "--config.dataset.samples=640",
    "--config.epochs=3",
    "--config.algorithm.commitment_epochs=2",
    "--config.algorithm.blocks=1",
    "--config.algorithm.tau=0.3",
    "--config.analysis.every_epochs=0",
)
COSTS = ("train_flops", "inference_flops", "inference_seconds")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascade") / "run"
    run.main([*WORDS, f"--workdir={folder}"])
    return folder


def read(workdir, name="results.json"):
    return json.loads((workdir / name).read_text())


def test_a_cascade_is_measured_beside_the_same_network_end_to_end(workdir):
    results = read(workdir)
    exits = results["exits"]
    assert [each["exit"] for each in exits] == [0, 1]
    assert sum(each["share"] for each in exits) == pytest.approx(1)
    flops = [each["flops"] for each in exits]
    assert flops == sorted(flops)
    mean = sum(each["share"] * each["flops"] for each in exits)
    assert results["inference_flops"] == pytest.approx(mean)
    right = sum(each["share"] * (each["accuracy"] or 0) for each in exits)
    assert results["exit_accuracy"] == pytest.approx(right)
    for name in COSTS:
        assert results[name] > 0
        assert results["end_to_end"][name] > 0
    # Dense layers of 64 → 16 → 8 → 10 and a bit more.
    whole = results["end_to_end"]["inference_flops"]
    assert 1 < whole / (2 * (64 * 16 + 16 * 8 + 8 * 10)) < 1.3
    # Three times that, and the optimizer, for each of 3 epochs' samples.
    updates = results["end_to_end"]["train_flops"] / (3 * 576 * whole)
    assert 2 < updates < 5


def test_every_exit_is_validated_on_the_whole_split_and_trained_on_less(workdir):
    for entry in read(workdir)["stages"]:
        right = 64 * entry["validation"]["accuracy"]  # of 64 samples
        assert right == pytest.approx(round(right), abs=1e-4)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    shares = {
        row["stage"]: row["samples_share"]
        for row in map(json.loads, lines)
        if row["split"] == "train"
    }
    assert shares[0] == pytest.approx(0.9, abs=0.01)
    assert shares[1] < shares[0]
    assert shares[2] == pytest.approx(0.1, abs=0.01)


def test_the_report_shows_costs_shares_calibration_and_examples(workdir):
    page = (workdir / "report.html").read_text()
    assert 'id="exits"' in page
    assert "Staying to the last exit" in page or "Leaving first" in page
    for name in ("cost", "shares", "reliability"):
        assert (workdir / "figures" / f"exits_{name}.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (measuring.Goal(), "the threshold was chosen on the validation split"),
        (measuring.Goal(cost=0.5), "the threshold was chosen on the validation split"),
        (measuring.Goal(tau=0.0), "the threshold was given"),
        (measuring.Goal(tau=0.9), "the threshold was given"),
    ],
)
def test_the_report_says_where_the_threshold_comes_from(goal, said):
    costs = dict.fromkeys(COSTS, 1.0)
    measured = {
        "rule": "confidence", "tau": 0.9, "goal": goal._asdict(), "accuracy": 0.8,
        "end_to_end": {"accuracy": None, **costs}, **costs,
    }  # fmt: skip
    sentence = shown._sentence(measured)
    assert f"is 0.9 or more; {said}. Test" in sentence


def test_the_threshold_is_chosen_on_the_validation_split_alone(workdir):
    from dib_jax.commands.run import load_run

    trained = load_run(workdir)
    found = asked.record(workdir, trained, "confidence", measuring.Goal(loss=0.01))
    test = trained.experiment.dataset.test
    shuffled = {**test, "labels": np.roll(test["labels"], 1)}
    dataset = trained.experiment.dataset._replace(test=shuffled)
    other = trained._replace(experiment=trained.experiment._replace(dataset=dataset))
    again = asked.record(workdir, other, "confidence", measuring.Goal(loss=0.01))
    assert again["tau"] == found["tau"]
    with pytest.raises(ValueError, match=r"--cost=0.001: .* leave at the first exit"):
        asked.record(workdir, trained, "confidence", measuring.Goal(cost=0.001))
    assert again["accuracy"] < 0.5 < found["accuracy"]


def test_several_runs_are_summed_up_with_intervals(workdir):
    measured = read(workdir, measuring.FILE)
    other = {**measured, "accuracy": measured["accuracy"] + 0.02}
    whole = {**measured["end_to_end"], "accuracy": 0.9}
    printed = asked.over_seeds([{**m, "end_to_end": whole} for m in (measured, other)])
    mean = 100 * measured["accuracy"] + 1
    assert "2 runs, mean ± standard deviation:" in printed
    assert f"test accuracy with exits {mean:.2f} ± 1.41" in printed
    assert f"with exits minus end to end: {mean - 90:+.2f} points" in printed
    assert "commitment minus confidence at equal FLOPs, over all work" in printed


def test_predict_says_at_which_stage_a_picture_left(workdir, tmp_path):
    picture = Image.fromarray(np.full((8, 8), 120, np.uint8))
    picture.save(tmp_path / "a.png")
    for tau, stage in (("0", 0), ("1", 1)):
        out = tmp_path / f"out{tau}"
        words = [f"--workdir={workdir}", "--exits", "--rule=confidence"]
        predict.main([*words, f"--tau={tau}", f"--out={out}", str(tmp_path / "a.png")])
        (entry,) = read(out, "predictions.json")
        assert entry["exit"] == stage
        assert 0 < entry["objects"][0]["score"] < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rule=hope", "--exits"], "must be one of confidence, entropy, commitment"),
        (["--tau=1.2", "--exits"], "--tau must be a number 0 to 1, got '1.2'"),
        (["--tau=much", "--exits"], "--tau must be a number 0 to 1, got 'much'"),
        (["--loss=-1", "--exits"], "--loss must be a number 0 to 100, got '-1'"),
        (["--cost=0", "--exits"], "--cost must be a number above 0, got '0'"),
        (["--tau=0.5"], "--tau belongs to --exits; give both"),
        (["--tau=0.5", "--loss=1", "--exits"], "are two goals; give one of"),
    ],
)
def test_a_wrong_flag_gets_one_line(workdir, words, message):
    with pytest.raises(ValueError, match=message):
        evaluate.main([f"--workdir={workdir}", *words])


def test_predict_without_a_threshold_says_how_to_get_one(workdir, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="no threshold has been chosen"):
        asked.read_leaving(tmp_path / "run", {"exits": ""})
    assert asked.read_leaving(tmp_path / "run", {}) is None
    (tmp_path / "run" / "exits.json").write_text('{"rule": "entropy", "tau": "high"}')
    with pytest.raises(ValueError, match="is damaged: its threshold tau is 'high'"):
        asked.read_leaving(tmp_path / "run", {"exits": ""})


def test_a_network_trained_otherwise_can_be_left_too(tmp_path, capsys):
    folder = tmp_path / "run"
    own = ("--config.algorithm", "--config.epochs")
    words = [word for word in WORDS if not word.startswith(own)]
    words.append("--config.epochs=1")
    run.main([*words, "--config.algorithm.name=parallel", f"--workdir={folder}"])
    with pytest.raises(ValueError, match="no commitment layers; use confidence or"):
        evaluate.main([f"--workdir={folder}", "--exits", "--rule=commitment"])
    evaluate.main([f"--workdir={folder}", "--exits", "--rule=entropy", "--tau=0.5"])
    assert "entropy ≥ 0.5: test accuracy" in capsys.readouterr().out
    assert read(folder)["exit_rule"] == "entropy"
    assert read(folder, measuring.FILE)["tau"] == 0.5
    assert (folder / "figures" / "exits_cost.png").is_file()


def test_a_network_with_one_exit_cannot_be_left(finished_run):
    with pytest.raises(ValueError, match=r"gives 1 exit\(s\) to leave at; train by"):
        evaluate.main([f"--workdir={finished_run}", "--exits"])


def test_exits_stand_beside_one_view_of_the_network_end_to_end(workdir, monkeypatch):
    # They see each sample as it is, and the average over views is better than that.
    results = {"metric": "accuracy", "test": {"accuracy": 0.9}}
    for more, wanted in (({}, 0.9), ({"one_view": {"accuracy": 0.8}}, 0.8)):
        other = Run(workdir, read(workdir, "config.json"), {**results, **more})
        whole = other._replace(results={**other.results, "algorithm": "end_to_end"})
        monkeypatch.setattr(runs, "find_baseline", lambda _, whole=whole: whole)
        assert asked._reference(workdir).accuracy == wanted
