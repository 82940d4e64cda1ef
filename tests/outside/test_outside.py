"""Two algorithms and a data set of somebody's own, by the command."""

import json
import pathlib

import numpy as np
import pytest

from dib_jax.commands import run
from dib_jax.training import train

HERE = pathlib.Path(__file__).parent

DIGITS = ("--config=configs/digits_cnn.py",)
RUNS = {
    "cascade:cascade": (
        *DIGITS,
        "--config.algorithm.name=cascade:cascade",
        "--config.head.pool=4",
        "--config.epochs=8",
    ),
    "feedback:feedback": (
        *DIGITS,
        "--config.algorithm.name=feedback:feedback",
        "--config.optimizer.learning_rate=0.01",
        "--config.optimizer.weight_decay=0",
        "--config.epochs=12",
    ),
    "breast_cancer:breast_cancer": (
        "--config=configs/mnist_mlp.py",
        "--config.dataset.name=breast_cancer:breast_cancer",
        "--config.model.widths=16,16",
        "--config.batch_size=32",
        "--config.epochs=4",
    ),
}


@pytest.fixture(autouse=True)
def _own_files_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.chdir(HERE.parents[1])


class Stopped(Exception):
    """The run was killed."""


def rows(workdir: pathlib.Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


@pytest.mark.parametrize("name", RUNS)
def test_ones_own_file_is_trained_stopped_resumed_probed_and_reported(
    name, tmp_path, monkeypatch
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    few = "--config.analysis.every_epochs=4"
    run.main([*RUNS[name], few, f"--workdir={whole}"])
    results = json.loads((whole / "results.json").read_text())
    assert results["test"]["accuracy"] > 0.95
    assert len((whole / "report.html").read_text()) > 20_000
    with np.load(whole / "information.npz") as information:
        assert np.isfinite(information["validation/input_stage"]).all()
        assert information["validation/trained"][0].sum() == 0
        assert information["validation/trained"][-1].max() > 0

    # Stopped in the middle of a phase, it goes on to the same bits.
    saved = train.save_position

    def save_and_stop(workdir, experiment, position, network, training):
        saved(workdir, experiment, position, network, training)
        if position.phase == len(experiment.phases) - 1 and position.epoch == 2:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(train, "_CHECKPOINT_SHARE", 1e9)
        patched.setattr(train, "save_position", save_and_stop)
        with pytest.raises(Stopped):
            run.main([*RUNS[name], few, f"--workdir={stopped}"])
    assert len(rows(stopped)) < len(rows(whole))
    run.main([*RUNS[name], few, f"--workdir={stopped}"])
    assert rows(stopped) == rows(whole)
    again = json.loads((stopped / "results.json").read_text())
    assert again["test"] == results["test"]


def test_a_cascade_trains_on_what_the_exit_before_got_wrong(tmp_path, monkeypatch):
    counts = []
    compiled = train.compile_epoch

    def counted(experiment, index, state, network, stored):
        counts.append(stored.length)
        return compiled(experiment, index, state, network, stored)

    monkeypatch.setattr(train, "compile_epoch", counted)
    short = ("--config.epochs=2", "--config.analysis.every_epochs=0")
    words = [word for word in RUNS["cascade:cascade"] if "epochs" not in word]
    run.main([*words, *short, f"--workdir={tmp_path / 'run'}"])
    results = json.loads(
        (tmp_path / "run" / "metrics.jsonl").read_text().split("\n")[0]
    )
    assert results["stage"] == 0
    assert counts[0] == 1294
    assert counts[0] > counts[1] > 0
