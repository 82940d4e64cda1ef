"""Pictures that stay on the host train the same network as those on the device."""

import pathlib

import chex
import jax
import numpy as np
import pytest
from dib_jax.training.cache import Kept
from dib_jax.training.steps import epoch_rows
from test_train import lines, small, without_seconds

from dib_jax.training import compilation, evaluation
from dib_jax.training import experiment as assembly
from dib_jax.training.compilation import compile_epoch
from dib_jax.training.experiment import assemble
from dib_jax.training.position import block_keys, initial_training
from dib_jax.training.train import Trained, load_trained, train

pytestmark = pytest.mark.once


def placed(placement, schedule="sequential"):
    config = small()
    config.model.widths = (12, 8)
    config.objective.alpha = 2.0  # no eigenvalues: compiles fast
    config.schedule.name = schedule
    config.dataset.placement = placement
    return config


@pytest.fixture(scope="module")
def on_device(request, tmp_path_factory) -> tuple[pathlib.Path, Trained]:
    workdir = tmp_path_factory.mktemp("run") / "device"
    config = placed("device", getattr(request, "param", "sequential"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_EVALUATION_BATCH", 50)
        return workdir, train(config, workdir, config_name="digits_cnn")


@pytest.mark.parametrize(
    ("on_device", "steps"),
    [("parallel", 3), ("end_to_end", 3), ("sequential", 3), ("sequential", 1000)],
    indirect=["on_device"],
)
def test_a_stream_ends_with_the_same_bits(on_device, tmp_path, steps, monkeypatch):
    workdir, trained = on_device
    config = placed("stream", trained.results["schedule"])
    # A sample is 8x8 pixels and an int32; at three steps one of ten is left over.
    monkeypatch.setattr(compilation, "_CHUNK_BYTES", steps * config.batch_size * 68)
    monkeypatch.setattr(evaluation, "_EVALUATION_BATCH", 50)
    streamed = train(config, tmp_path / "run", config_name="digits_cnn")
    assert streamed.experiment.streams
    assert not trained.experiment.streams
    chex.assert_trees_all_equal(streamed.network, trained.network)
    np.testing.assert_array_equal(streamed.outputs, trained.outputs)
    record = without_seconds(lines(tmp_path / "run"))
    assert record == without_seconds(lines(workdir))


def test_the_placement_of_a_run_may_change(on_device):
    workdir, trained = on_device
    again = train(placed("stream"), workdir, config_name="digits_cnn")
    chex.assert_trees_all_equal(again.network, trained.network)
    chex.assert_trees_all_equal(load_trained(workdir).network, trained.network)


def test_a_stream_takes_the_samples_in_the_order_of_the_epoch(monkeypatch):
    config = placed("stream")
    monkeypatch.setattr(compilation, "_CHUNK_BYTES", 4 * config.batch_size * 68)
    monkeypatch.setattr(
        compilation,
        "train_steps",
        lambda blocks, states, trunk, data, rows, streamed, *, keys: (
            states, {"rows": rows, **streamed}
        ),
    )  # fmt: skip
    experiment = assemble(config)
    blocks, data = experiment.phases[0], experiment.dataset.train
    states = initial_training(experiment, blocks, data["images"]).states
    _, key = block_keys(experiment, blocks[0])
    order = epoch_rows(blocks[0], key, states[0].step, samples=len(data["labels"]))
    kept = Kept({}, data, 1, "")
    run, _, _ = compile_epoch(blocks, states, (), kept, (key,), experiment.mesh)
    _, seen = run(states, (), kept, (key,))
    np.testing.assert_array_equal(seen["rows"], order)
    np.testing.assert_array_equal(seen["labels"], data["labels"][order])
    np.testing.assert_array_equal(seen["images"], data["images"][order])


class Device:
    def __init__(self, limit):
        self.limit = limit

    def memory_stats(self):
        return self.limit and {"bytes_limit": self.limit}


@pytest.mark.parametrize(
    ("placement", "factor", "streams"),
    [
        ("auto", 1.99, True),
        ("auto", 2.01, False),
        ("auto", 0, False),  # no figures: a CPU
        ("device", 0.1, False),
        ("stream", 1000, True),
    ],
)
def test_pictures_go_on_the_device_up_to_half_of_its_memory(
    placement, factor, streams, monkeypatch
):
    dataset = assemble(placed("device")).dataset
    size = sum(a.nbytes for split in dataset[1:4] for a in split.values())
    limit = round(size * factor) or None
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(limit)])
    assert assembly._streams(placement, dataset) is streams
