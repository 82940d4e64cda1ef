"""Two algorithms and a data set of somebody's own, by the command."""

import json
import pathlib

import numpy as np
import pytest

from dib_jax.commands import command_line, run
from dib_jax.training import train

HERE = pathlib.Path(__file__).parent

DIGITS = ("--config=configs/digits_cnn.py",)
RUNS = {
    "leftovers:leftovers": (
        *DIGITS,
        "--config.algorithm.name=leftovers:leftovers",
        "--config.head.pool=4",
        "--config.objective.name=cross_entropy",
        "--config.epochs=6",
        "--config.analysis.every_epochs=6",
    ),
    "alignment:feedback": (
        *DIGITS,
        "--config.algorithm.name=alignment:feedback",
        "--config.optimizer.learning_rate=0.01",
        "--config.optimizer.weight_decay=0",
        "--config.epochs=12",
        "--config.analysis.every_epochs=6",
    ),
    "breast_cancer:breast_cancer": (
        "--config=configs/mnist_mlp.py",
        "--config.dataset.name=breast_cancer:breast_cancer",
        "--config.model.widths=16,16",
        "--config.batch_size=32",
        "--config.epochs=4",
        "--config.analysis.every_epochs=4",
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
def test_ones_own_file_is_trained_probed_and_reported(name, tmp_path, monkeypatch):
    counts = []
    compiled = train.compile_epoch

    def counted(experiment, index, state, network, stored):
        counts.append(stored.length)
        return compiled(experiment, index, state, network, stored)

    monkeypatch.setattr(train, "compile_epoch", counted)
    workdir = tmp_path / "run"
    run.main([*RUNS[name], f"--workdir={workdir}"])
    results = json.loads((workdir / "results.json").read_text())
    assert results["test"]["accuracy"] > 0.95
    assert len((workdir / "report.html").read_text()) > 20_000
    with np.load(workdir / "information.npz") as information:
        assert np.isfinite(information["validation/input_stage"]).all()
        assert information["validation/trained"][0].sum() == 0
        assert information["validation/trained"][-1].max() > 0
    if name == "leftovers:leftovers":
        # Each stage trains on what the exits before it got wrong: less and less.
        assert counts[0] == 1294
        assert 0 < counts[2] <= counts[1] < 100


@pytest.mark.parametrize("name", ["leftovers:leftovers", "alignment:feedback"])
def test_stopped_within_a_phase_it_goes_on_to_the_same_bits(
    name, tmp_path, monkeypatch
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = [word for word in RUNS[name] if "epochs" not in word]
    words += ["--config.epochs=3", "--config.analysis.every_epochs=0"]
    words += ["--config.dataset.samples=300", "--config.batch_size=32"]
    words += ["--config.model.widths=16,16"]

    def trained(workdir):
        given = command_line.read_request([*words, f"--workdir={workdir}"], help="")
        return run.train_run(given.config, workdir, config_name="digits_cnn")

    results = trained(whole).results
    save = train.save_position

    def save_and_stop(workdir, experiment, position, network, training):
        save(workdir, experiment, position, network, training)
        if position.phase == len(experiment.phases) - 1 and position.epoch == 2:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(train, "_CHECKPOINT_SHARE", 1e9)
        patched.setattr(train, "save_position", save_and_stop)
        with pytest.raises(Stopped):
            trained(stopped)
    assert len(rows(stopped)) < len(rows(whole))
    assert trained(stopped).results["test"] == results["test"]
    assert rows(stopped) == rows(whole)
