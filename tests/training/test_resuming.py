"""A run that was stopped, killed or damaged ends with the same bits."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest
from tiny_runs import (
    experiment,
    experiment_of,
    layer,
    lines,
    stop_at,
    without_seconds,
)

from dib_jax import checkpoints
from dib_jax.training import digests
from dib_jax.training import train as engine
from dib_jax.training.finished import load_trained
from dib_jax.training.train import train
from dib_jax.training.workdir import read_results, write_results

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[2]


def assert_same(resumed, workdir, whole):
    """Results and record are those of an uninterrupted run."""
    chex.assert_trees_all_equal(resumed.network, whole[1].network)
    assert without_seconds(lines(workdir)) == without_seconds(lines(whole[0]))


def test_a_run_goes_on_to_the_same_bits_wherever_it_was_stopped(
    in_turn, tmp_path, capfd
):
    """Stopped right after checkpoints within phases and at their end."""
    workdir, stages = tmp_path / "run", experiment_of()
    for done in (1, 3, 4, 6):
        stop_at(done, stages, workdir)
        assert len(lines(workdir)) == 2 * done
        # What was written after the checkpoint, a whole line or half of one, is cut.
        with (workdir / "metrics.jsonl").open("a") as record:
            record.write('{"stage": 9, "cut off in the mid')
    said = capfd.readouterr().err
    for done in (1, 3, 4):
        assert f"going on after epoch {done} of 6, from {workdir}" in said
    assert_same(train(stages, workdir), workdir, in_turn)


def test_heads_that_follow_and_half_precision_go_on_to_the_same_bits(tmp_path):
    """Blocks that train at once, of which the first has two stages."""
    both = experiment_of(
        model={"name": "mlp", "widths": (6, 5, 4)},
        head={"name": "momentum"},
        objective={"name": "dib", "alpha": 2.0, "samples": 16},
        algorithm={"name": "momentum", "decay": 0.9, "blocks": 2},
        precision={"compute": "bfloat16"},
        batch_size=256,
    )
    whole = train(both, tmp_path / "whole")
    # Of the second block the first stage is followed.
    shapes = jax.tree.map(np.shape, whole.network.stages[2]["params"])
    followed = whole.network.heads[0]["follower"]["params"]
    assert jax.tree.map(np.shape, followed) == shapes
    assert whole.results["head"] == whole.results["algorithm"] == "momentum"
    stop_at(1, both, tmp_path / "stopped")
    resumed = train(both, tmp_path / "stopped")
    assert_same(resumed, tmp_path / "stopped", (tmp_path / "whole", whole))


SCRIPT = """
import pathlib, sys
from tiny_runs import experiment_of
from dib_jax.training import evaluation
from dib_jax.training.train import train
evaluation._BATCH = int(sys.argv[2])
for name in ("sequential", "parallel"):
    workdir = pathlib.Path(sys.argv[1]) / name
    train(experiment_of(algorithm={"name": name}), workdir)
"""


def test_after_kill_9_at_any_moment_the_same_command_ends_with_the_same_bits(
    in_turn, at_once, small_evaluation, tmp_path
):
    """Killed twice in one run, and once in the other."""
    from dib_jax.training import evaluation

    words = [sys.executable, "-c", SCRIPT, str(tmp_path), str(evaluation._BATCH)]
    paths = (str(pathlib.Path(__file__).parent), str(ROOT))
    killed = []
    # Lines of the record that are there when it is killed.
    for name, wanted in (("sequential", 1), ("sequential", 7), ("parallel", 1)):
        process = subprocess.Popen(
            words,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                # Half of an entry in the cache of programs is an error for all others.
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9",
            },
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None:
            record = tmp_path / name / "metrics.jsonl"
            if record.exists() and record.read_bytes().count(b"\n") >= wanted:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[1]
        killed.append(process.returncode)
        assert killed[-1] == -signal.SIGKILL, said.decode()
    for name, whole in (("sequential", in_turn), ("parallel", at_once)):
        again = experiment_of(algorithm={"name": name})
        resumed = train(again, tmp_path / name)
        assert_same(resumed, tmp_path / name, whole)
    loaded = load_trained(again, tmp_path / "parallel")
    chex.assert_trees_all_equal(loaded.network, at_once[1].network)


# Of layers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("layers") / "run"
    return workdir, train(experiment(), workdir)


@pytest.mark.parametrize("done", [1, 2, 4])
def test_any_algorithm_goes_on_to_the_same_bits(whole, tmp_path, done):
    stop_at(done, experiment(), tmp_path / "run")
    resumed = train(experiment(), tmp_path / "run")
    assert_same(resumed, tmp_path / "run", whole)


def test_a_finished_run_is_not_trained_again(whole, tmp_path):
    def must_not_run(*arguments):
        raise AssertionError

    workdir, trained = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    again = train(experiment(layer(0), layer(1, 3, step=must_not_run)), workdir)
    chex.assert_trees_all_equal(again.network, trained.network)
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    whole, tmp_path, monkeypatch, capfd
):
    workdir = tmp_path / "run"
    monkeypatch.setattr(engine, "_CHECKPOINT_SHARE", float("inf"))
    train(experiment(), workdir)
    (workdir / "results.json").unlink()
    newest = max((workdir / "checkpoints").iterdir())
    flip_a_bit(newest)
    capfd.readouterr()
    resumed = train(experiment(), workdir)
    said = capfd.readouterr().err
    assert str(newest.name) in said
    assert "damaged" in said
    assert "going on after epoch 4 of 5" in said
    chex.assert_trees_all_equal(resumed.network, whole[1].network)


def test_a_finished_network_that_was_damaged_is_not_loaded(tmp_path):
    train(experiment(), tmp_path)
    flip_a_bit(max((tmp_path / "checkpoints").iterdir()))
    with pytest.raises(checkpoints.CheckpointError, match="damaged"):
        load_trained(experiment(), tmp_path)


def flip_a_bit(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def refined():
    """Two layers of which the second phase goes on training the first one, too."""
    plain = layer(1)

    def init(key, network, example):
        return {"first": network[0], "second": plain.init(key, network, example)}

    def step(state, network, batch, key):
        second, terms = plain.step(state["second"], network, batch, key)
        return {"first": state["first"] * 0.99, "second": second}, terms

    def read(state, network):
        return (state["first"], state["second"]["weights"])

    return layer(1, init=init, step=step, read=read, trains=(0, 1))


def test_a_phase_may_go_on_with_the_network_and_be_stopped(tmp_path):
    """Its first state is the network's own arrays, and those stay as they were."""
    whole = train(experiment(layer(0), refined()), tmp_path / "whole")
    for done in (2, 3):
        stop_at(done, experiment(layer(0), refined()), tmp_path / "run")
    resumed = train(experiment(layer(0), refined()), tmp_path / "run")
    assert_same(resumed, tmp_path / "run", (tmp_path / "whole", whole))
    alone = train(experiment(layer(0)), tmp_path / "alone")
    scale = np.float32(0.99) ** (5 * whole.results["stages"][1]["best_epoch"])
    np.testing.assert_allclose(whole.network[0], scale * alone.network[0], rtol=1e-5)


# What a run has written beside its checkpoints ----------------------------------------


def noting(workdir):
    """An observer that leaves a file for every moment."""

    def observe(moment):
        path = workdir / "notes" / f"{moment.epoch}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"epoch {moment.epoch}")
        return path

    return lambda experiment: observe


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run with checkpoints after the epochs 2, 3 and 4 of 5."""
    stop_at(4, experiment(), tmp_path / "run", observer=noting(tmp_path / "run"))
    return tmp_path / "run"


def change_a_digit(path, line):
    text = path.read_text().splitlines()
    text[line] = text[line].replace("0.", "1.", 1)
    path.write_text("\n".join(text) + "\n")


def test_a_changed_line_of_the_record_is_made_again_from_before_it(
    stopped, whole, capfd
):
    change_a_digit(stopped / "metrics.jsonl", -1)
    capfd.readouterr()
    resumed = train(experiment(), stopped, observer=noting(stopped))
    said = capfd.readouterr().err
    assert f"00000004 is not used: {stopped / 'metrics.jsonl'} is not as it was" in said
    assert "going on after epoch 3 of 5" in said
    assert_same(resumed, stopped, whole)


def test_a_run_does_not_go_on_with_a_record_that_cannot_be_made_again(stopped):
    change_a_digit(stopped / "metrics.jsonl", 0)
    with pytest.raises(checkpoints.CheckpointError, match="metrics.jsonl is not as it"):
        train(experiment(), stopped, observer=noting(stopped))


@pytest.mark.parametrize(("epoch", "made_again"), [(4, True), (0, False)])
def test_a_file_that_was_deleted_is_made_again_or_its_loss_is_said(
    stopped, whole, capfd, epoch, made_again
):
    lost = stopped / "notes" / f"{epoch}.txt"
    lost.unlink()
    capfd.readouterr()
    resumed = train(experiment(), stopped, observer=noting(stopped))
    said = capfd.readouterr().err
    assert f"{lost} is missing" in said
    assert ("goes on without" not in said) is lost.exists() is made_again
    assert_same(resumed, stopped, whole)


def test_what_a_finished_run_has_left_is_not_read_when_it_was_changed(whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    for name in ("results.json", "inputs.json", "metrics.jsonl", "config.json"):
        before = (workdir / name).read_text()
        (workdir / name).write_text(before + " ")
        with pytest.raises(ValueError, match=f"{name} is not as it was written; put"):
            digests.check(workdir, name)
        (workdir / name).write_text(before)
        digests.check(workdir, name)
    (workdir / "results.json").write_text(
        (workdir / "results.json").read_text().replace("0.", "1.", 1)
    )
    with pytest.raises(ValueError, match="remove .*digests.json to take the run as it"):
        read_results(workdir)
    (workdir / "digests.json").unlink()
    assert read_results(workdir)["test"]


def test_a_run_does_not_go_on_with_other_random_numbers(stopped):
    with (
        jax.threefry_partitionable(not jax.config.jax_threefry_partitionable),
        pytest.raises(ValueError, match="set JAX_THREEFRY_PARTITIONABLE as it was"),
    ):
        train(experiment(), stopped)


def test_results_that_get_more_are_written_with_their_digest(whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    write_results(workdir, {**read_results(workdir), "more": 1})
    digests.check(workdir, "")
    assert read_results(workdir)["more"] == 1
    assert "metrics.jsonl" in digests.known(workdir)
