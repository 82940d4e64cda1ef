"""The same run on one device, on several, and by several processes."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_runs import experiment_of

from dib_jax.training import train as engine
from dib_jax.training.devices import choose
from dib_jax.training.finished import load_trained
from dib_jax.training.train import train

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent
ON_FOUR_DEVICES = """
import functools
import jax, numpy as np, pytest
from tiny_runs import settings
from dib_jax.commands.assemble import assemble
from dib_jax.training.compilation import _lower_steps, compile_epoch
from dib_jax.training.devices import choose, put, replicated
from dib_jax.training.evaluation import place, predictor
from dib_jax.training.position import initial_state
from dib_jax.training.storage import store

assert jax.device_count() == 4
for count, message in ((3, "32 cannot be split evenly over 3 devices; take 30, or "
                           "fewer devices: --devices=2"),
                       (5, "--devices: got 5; allowed are 1 to 4")):
    with pytest.raises(ValueError, match=message):
        choose(count, batch_size=32)
assert choose(None, batch_size=32).size == 4

MODELS = {"parallel": {"name": "cnn", "widths": (3, 4), "convolutions": 1, "pools": 1},
          "end_to_end": {"name": "mlp", "widths": (6, 5)}}

def trained(name, count):
    config = settings(algorithm={"name": name}, model=MODELS[name], batch_size=32,
                      dataset={"samples": 110}, objective={"alpha": 2.0})
    made = assemble(config, mesh=choose(count, batch_size=32))
    assert made.mesh.size == count
    (phase,) = made.phases
    state = initial_state(made, phase, made.algorithm.network)
    state = put(state, replicated(made.mesh))
    data = place(made, made.dataset.train)
    stored = store(made, 0, made.algorithm.network, data, augment=None, place="none",
                   folder=None, key=made.key)
    epoch = compile_epoch(made, 0, state, made.algorithm.network, stored)
    assert epoch.steps == 3
    state, terms = epoch.run(state, made.algorithm.network, stored, 0)
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.is_fully_replicated
    network = phase.read(state, made.algorithm.network)
    some = place(made, {k: x[:70] for k, x in made.dataset.test.items()})
    outputs = predictor(made, made.algorithm.predict)(
        network, some.common, {"images": some.samples["images"]})
    assert outputs[0].shape == (70, 10)
    found = jax.tree.map(np.asarray, (state, terms, outputs))
    steps = _lower_steps(made, 0, stored, state, made.algorithm.network, 3)
    return found, steps.compile().cost_analysis()["flops"]

for name, counts in {"end_to_end": (4,), "parallel": (2, 4)}.items():
    want, work = trained(name, 1)
    for count in counts:
        found, one_work = trained(name, count)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4),
            found, want,
        )
        assert one_work < 1.5 / count * work, (one_work, work)  # of one device
"""


def environment(**more):
    paths = os.pathsep.join((str(HERE), str(ROOT)))
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths, **more}


def test_steps_and_outputs_are_the_same_on_one_two_and_four_devices():
    """Batch statistics and the information of whole batches, and work that is split."""
    flags = os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES],
        env=environment(XLA_FLAGS=f"{flags} --xla_force_host_platform_device_count=4"),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_device_that_is_not_there_is_named():
    count = len(jax.local_devices())
    message = f"--devices: got {count + 1}; allowed are 1 to {count}, the cpu devices"
    with pytest.raises(ValueError, match=message):
        choose(count + 1, batch_size=8)


CHANGES = {
    "model": {"name": "mlp", "widths": (8, 6)},
    "dataset": {"samples": 300},
    "epochs": 1,
}
OF_TWO = """
import pathlib
from tiny_runs import settings
from dib_jax.training.devices import choose, initialize
initialize()
from test_devices import CHANGES
from dib_jax.commands.assemble import assemble
from dib_jax.training.train import train
mesh = choose(None, batch_size=64)
assert mesh.size == 2
train(assemble(settings(**CHANGES), name="digits_cnn", mesh=mesh), pathlib.Path("run"))
"""


CONFIG = """
from test_devices import CHANGES
from tiny_runs import settings

def get_config():
    return settings(**CHANGES)
"""
# A finished run whose report is missing; its network on the devices of both processes,
# as after training, and a report that takes one program in place of many figures.
THE_COMMAND = """
from dib_jax.commands import run
from dib_jax.training.devices import choose, put, replicated
from dib_jax.training.evaluation import evaluate
load = run.load_run

def load_on_both(workdir):
    trained, mesh = load(workdir), choose(None, batch_size=64)
    assert mesh.size == 2
    return trained._replace(experiment=trained.experiment._replace(mesh=mesh),
                            network=put(trained.network, replicated(mesh)))

def write_report(workdir, trained, *, command):
    load(workdir)  # as another run beside this one is
    dataset = trained.experiment.dataset
    even = {name: x[:64] for name, x in dataset.test.items()}  # split over a mesh
    dataset = dataset._replace(test=even)
    evaluate(trained.experiment._replace(dataset=dataset), trained.network)
    (workdir / "report.html").write_text("of the first process")
    return workdir / "report.html"

run.load_run, run.write_report = load_on_both, write_report
run.main(["--config=../config.py", "--workdir=run", "--distributed"])
"""


def by_two(script, places):
    """What two processes of a run say, each in its place."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=place,
            env=environment(
                JAX_COORDINATOR_ADDRESS=f"localhost:{port}",
                JAX_NUM_PROCESSES="2",
                JAX_PROCESS_ID=str(index),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, place in enumerate(places)
    ]
    try:
        said = [process.communicate(timeout=250) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run by one process, and where it is."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, train(experiment_of(**CHANGES), workdir)


def test_two_processes_go_on_with_a_run_of_one_to_the_same_result(
    whole, tmp_path, monkeypatch
):
    """Of which the second one sees no file, and writes none."""
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    workdir = places[0] / "run"
    train_phase = engine._train_phase

    def until_the_second_stage(run, position, *rest):
        if position.phase == 1:
            raise KeyboardInterrupt
        return train_phase(run, position, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_train_phase", until_the_second_stage)
        with pytest.raises(KeyboardInterrupt):
            train(experiment_of(**CHANGES), workdir)
    said = by_two(OF_TWO, places)
    assert "going on after epoch 1 of 2" in said[0][1]
    assert "epoch" not in said[1][1]
    assert list(places[1].iterdir()) == []
    found = load_trained(experiment_of(**CHANGES), workdir)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
        found.network,
        whole[1].network,
    )
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [(line["stage"], line["split"]) for line in map(json.loads, lines)] == [
        (stage, split) for stage in (0, 1) for split in ("train", "validation")
    ]


def test_the_first_of_two_processes_reports_alone_whatever_the_others_disk_holds(
    whole, tmp_path
):
    (tmp_path / "config.py").write_text(CONFIG)
    places = [tmp_path / "first", tmp_path / "second"]
    shutil.copytree(whole[0], places[0] / "run")
    (places[1] / "run").mkdir(parents=True)
    (places[1] / "run" / "note.txt").write_text("of somebody else")
    said = by_two(THE_COMMAND, places)
    assert "test accuracy" in said[0][0]
    assert "test accuracy" not in said[1][0]
    report = places[0] / "run" / "report.html"
    assert report.read_text() == "of the first process"
    assert [path.name for path in (places[1] / "run").iterdir()] == ["note.txt"]
