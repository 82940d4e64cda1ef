"""The same run on one device, on several, and by several processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from dib_jax.training.config import complete
from experiments.command_line import load_config, override

from dib_jax.training import train as engine
from dib_jax.training.devices import choose
from dib_jax.training.train import load_trained, train

pytestmark = pytest.mark.once

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits_cnn.py"
CHANGES = {
    "model.name": "mlp",
    "model.widths": "(8, 6)",
    "epochs": "1",
    "objective.alpha": "1.01",
}
ON_FOUR_DEVICES = """
import functools, sys
import jax, jax.numpy as jnp, numpy as np, pytest
from dib_jax.training.config import complete
from dib_jax.training.devices import by_sample, choose, put, replicated
from dib_jax.training.experiment import assemble
from dib_jax.training.steps import frozen, initial_state, predict, train_steps
from experiments.command_line import load_config, override

assert jax.device_count() == 4
for count, message in ((3, "32 cannot be split evenly over 3 devices; take 30, or "
                           "fewer devices: --devices=2"),
                       (5, "--devices: got 5; allowed are 1 to 4")):
    with pytest.raises(ValueError, match=message):
        choose(count, batch_size=32)
assert choose(None, batch_size=32).size == 4

MODELS = {"parallel": {"model.widths": "(3, 4)", "model.pools": "1"},
          "end_to_end": {"model.name": "mlp", "model.widths": "(6, 5)"}}

def trained(name, count):
    changes = {"batch_size": "32", "schedule.name": name, **MODELS[name]}
    config = complete(override(load_config(sys.argv[1] + ":quick").config, changes))
    mesh = choose(count, batch_size=32)
    experiment = assemble(config, mesh=mesh)
    (blocks,) = experiment.phases
    images = experiment.dataset.train["images"]
    keys = tuple(jax.random.key(block.stage) for block in blocks)
    init = [jax.jit(functools.partial(initial_state, b)) for b in blocks]
    states = put(tuple(f(k, images[:2]) for f, k in zip(init, keys)), replicated(mesh))
    data = put(dict(experiment.dataset.train), replicated(mesh))
    rows = put(np.arange(96, dtype=np.int32).reshape(3, 32), replicated(mesh))

    def run(states, data, rows):
        states, terms = train_steps(blocks, states, (), data, rows, {}, keys=keys)
        stages = sum((frozen(s)[0] for s in states), ())
        outputs = predict(blocks, (), stages, [s.head for s in states],
                          data["images"][:70], batch_size=32)
        return states, terms, outputs

    run = jax.jit(run, out_shardings=replicated(mesh))
    compiled = run.lower(states, data, rows).compile()
    flops = compiled.cost_analysis()["flops"]
    return jax.tree.map(np.asarray, compiled(states, data, rows)), flops

for name, counts in {"end_to_end": (4,), "parallel": (2, 4)}.items():
    want, work = trained(name, 1)
    for count in counts:
        found, own_work = trained(name, count)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4),
            found, want,
        )
        assert own_work < 1.5 / count * work, (own_work, work)  # of one device
"""


def environment(**more):
    return {**os.environ, "JAX_PLATFORMS": "cpu", **more}


def test_steps_and_outputs_are_the_same_on_one_two_and_four_devices():
    """Batch statistics and the information of whole batches, and work that is split."""
    done = subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES, str(CONFIG)],
        env=environment(XLA_FLAGS="--xla_force_host_platform_device_count=4"),
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


@pytest.fixture(scope="module")
def config():
    return complete(override(load_config(f"{CONFIG}:quick").config, CHANGES))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run by one process."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return train(config, workdir, config_name="digits_cnn")


def test_two_processes_go_on_with_a_run_of_one_to_the_same_result(
    config, whole, tmp_path, monkeypatch
):
    """Of which the second one sees no file, and writes none."""
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    workdir = places[0] / "run"
    train_phase = engine._train_phase

    def until_the_second_stage(workdir, experiment, data, validation, position, *rest):
        if position.phase == 1:
            raise KeyboardInterrupt
        return train_phase(workdir, experiment, data, validation, position, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_train_phase", until_the_second_stage)
        with pytest.raises(KeyboardInterrupt):
            train(config, workdir, config_name="digits_cnn")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "experiments.run", f"--config={CONFIG}:quick"]
    words += [f"--config.{field}={value}" for field, value in CHANGES.items()]
    processes = [
        subprocess.Popen(
            [*words, "--distributed", "--workdir=run"],
            cwd=place,
            env=environment(
                JAX_COORDINATOR_ADDRESS=f"localhost:{port}",
                JAX_NUM_PROCESSES="2",
                JAX_PROCESS_ID=str(index),
                PYTHONPATH=str(CONFIG.parents[1]),
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
    assert "going on after epoch 1 of 2" in said[0][1]
    assert "report run/report.html" in said[0][0]
    assert "report" not in said[1][0]
    assert list(places[1].iterdir()) == []
    found = load_trained(workdir)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
        found.network,
        whole.network,
    )
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [(line["stage"], line["split"]) for line in map(json.loads, lines)] == [
        (stage, split) for stage in (0, 1) for split in ("train", "validation")
    ]
