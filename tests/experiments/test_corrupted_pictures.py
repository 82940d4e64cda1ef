"""Corrupted test pictures, by the command: what is written, shown and refused."""

import json
import shutil

import numpy as np
import pytest

from dib_jax.analysis import corruptions as measuring
from dib_jax.commands import corruptions, evaluate
from dib_jax.data.corruptions import CORRUPTIONS, STRENGTHS
from dib_jax.training.workdir import read_results


@pytest.fixture(scope="module")
def measured(finished_run, tmp_path_factory):
    """A copy of a tiny run after the command: its folder."""
    workdir = tmp_path_factory.mktemp("corrupted") / "run"
    shutil.copytree(finished_run, workdir)
    evaluate.main(["--corruptions", f"--workdir={workdir}"])
    return workdir


def read(workdir):
    return json.loads((workdir / measuring.FILE).read_text())


def test_clean_pictures_have_the_results_of_the_run(measured):
    found, test = read(measured), read_results(measured)["test"]
    assert found["clean"]["accuracy"] == pytest.approx(test["accuracy"], abs=1e-6)
    assert found["clean"]["loss"] == pytest.approx(test["loss"], rel=1e-5)
    assert 0 < found["clean"]["ece"] < 1


def test_every_corruption_is_measured_at_every_strength(measured):
    found = read(measured)
    assert list(found["corrupted"]) == list(CORRUPTIONS)
    for name, rows in found["corrupted"].items():
        assert [row["strength"] for row in rows] == list(STRENGTHS)
        assert [row["parameter"] for row in rows] == list(CORRUPTIONS[name].parameters)
    every = [row for rows in found["corrupted"].values() for row in rows]
    for measure in ("accuracy", "loss", "ece"):
        mean = np.mean([row[measure] for row in every])
        assert found["mean"][measure] == pytest.approx(mean)
    # Digits are white on black: with less contrast a network that knows no such
    # pictures is less right.
    assert found["mean"]["loss"] > found["clean"]["loss"]


def test_the_report_gets_a_section_with_figure_numbers_and_pictures(measured):
    page = (measured / "report.html").read_text()
    assert 'id="corruptions"' in page
    assert "Corrupted pictures" in page
    assert "Negative log likelihood, nats" in page
    for name in ("corruptions", "corruptions_examples"):
        assert (measured / "figures" / f"{name}.png").stat().st_size > 5_000


def test_several_runs_are_printed_with_means_and_deviations(measured):
    one = read(measured)
    clean = {**one["clean"], "accuracy": one["clean"]["accuracy"] + 0.02}
    printed = corruptions.as_text([one, {**one, "clean": clean}]).splitlines()
    assert printed[0].endswith("; 2 runs")
    accuracy = 100 * one["clean"]["accuracy"] + 1
    assert f"{accuracy:.2f} ± 1.41" in printed[2]
    assert [line.split()[0] for line in printed[2:]] == ["clean", *CORRUPTIONS, "all"]
    alone = corruptions.as_text([one])
    assert "±" not in alone
    noise = alone.splitlines()[3].split()
    wanted = [100 * row["accuracy"] for row in one["corrupted"]["noise"]]
    assert [float(cell) for cell in noise[1:6]] == pytest.approx(wanted, abs=0.006)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corruptions", "--exits"], "--exits and --corruptions measure apart; give"),
        (["elsewhere"], "several folders belong to --exits or --corruptions"),
        (["--samples=9"], "--samples belongs to --corruptions; give both"),
        (
            ["--corruptions", "--samples=none"],
            "--samples must be a whole number ≥ 1, got",
        ),
        (["--corruptions=noise"], "--corruptions has no value: write it alone"),
    ],
)
def test_a_wrong_flag_gets_one_line(finished_run, monkeypatch, words, message):
    words = [str(finished_run) if word == "elsewhere" else word for word in words]
    with pytest.raises(ValueError, match=message):
        evaluate.main([f"--workdir={finished_run}", *words])


def test_other_tasks_are_refused_in_a_line(finished_run):
    from dib_jax.commands.assemble import assemble_from

    experiment = assemble_from(finished_run)
    boxes = experiment._replace(
        task=experiment.task._replace(ensemble=None), about={"task": "detection"}
    )
    with pytest.raises(ValueError, match="got the task 'detection' with pictures"):
        measuring.check(boxes)
    dataset = experiment.dataset
    vectors = dataset._replace(kind=dataset.kind._replace(name="vectors"))
    with pytest.raises(ValueError, match="with vectors; give a run with task.name="):
        measuring.check(experiment._replace(dataset=vectors))


def test_a_part_of_the_test_split_is_the_same_one_and_has_every_class():
    labels = np.arange(300) % 10
    split = {"images": np.arange(300)[:, None, None, None], "labels": labels}
    part, again = (measuring.some(split, 50) for _ in range(2))
    assert np.bincount(part["labels"]).tolist() == [5] * 10
    np.testing.assert_array_equal(part["images"], again["images"])
    # Also where almost all are wanted, or one of a class.
    assert [len(measuring.some(split, n)["labels"]) for n in (295, 5)] == [295, 5]
    assert measuring.some(split, 0) is measuring.some(split, 300) is split
    with pytest.raises(ValueError, match="301 of the 300 test pictures; give 1 to 300"):
        measuring.some(split, 301)
