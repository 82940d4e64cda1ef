"""Wherever samples and what frozen parts make of them lie: the same network."""

import chex
import jax
import numpy as np
import pytest
from tiny_runs import (
    experiment,
    experiment_of,
    joined,
    layer,
    lines,
    one_by_one,
    vectors,
    without_seconds,
)

from dib_jax.training import compilation
from dib_jax.training import experiment as assembly
from dib_jax.training.compilation import compile_epoch, epoch_rows, keys_of
from dib_jax.training.finished import load_trained
from dib_jax.training.position import initial_state
from dib_jax.training.storage import store
from dib_jax.training.train import train

pytestmark = pytest.mark.once

BATCH = 64


@pytest.fixture(autouse=True, scope="module")
def usual_emitters():
    """As programs are compiled outside of tests.

    The emitters that tests use round a mean otherwise where a gather stands before it.
    """
    usual = jax.stages.Lowered.compile

    def compile_as_usual(lowered, compiler_options=None, **options):
        if jax.default_backend() == "cpu":
            compiler_options = {"xla_cpu_use_fusion_emitters": True}
        return usual(lowered, compiler_options, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.stages.Lowered, "compile", compile_as_usual)
        yield


def placed(**changes):
    sections = {
        "dataset": {"samples": 640, "placement": "device"},
        "model": {"name": "mlp", "widths": (12, 8)},
        "objective": {"name": "dib", "alpha": 2.0},  # no eigenvalues: compiles fast
    }
    return experiment_of(**{**sections, **changes})


STREAMED = {"samples": 640, "placement": "stream"}


def assert_same(other, folder, first):
    workdir, trained = first
    chex.assert_trees_all_equal(other.network, trained.network)
    np.testing.assert_array_equal(other.outputs, trained.outputs)
    assert without_seconds(lines(folder)) == without_seconds(lines(workdir))


@pytest.fixture(scope="module")
def on_device(tmp_path_factory, usual_emitters):
    workdir = tmp_path_factory.mktemp("run") / "device"
    return workdir, train(placed(), workdir)


def test_a_stream_with_the_frozen_stages_in_files_ends_with_the_same_bits(
    on_device, tmp_path, monkeypatch, capfd
):
    # Of nine steps three at a time. A sample is 8x8 pixels and an int32.
    monkeypatch.setattr(compilation, "_CHUNK_BYTES", 3 * BATCH * 68 + 1)
    in_files = placed(dataset=STREAMED, cache={"place": "file"})
    streamed = train(in_files, tmp_path / "run")
    assert streamed.experiment.streams
    assert not on_device[1].experiment.streams
    assert_same(streamed, tmp_path / "run", on_device)
    assert not (tmp_path / "run" / "cache").exists()
    said = capfd.readouterr().err
    assert "stage 0: the output" not in said
    line = "stage 1: the output of what is frozen before it is cached, place: file"
    assert said.count(line) == 1


def test_the_placement_of_a_run_may_change(on_device):
    workdir, trained = on_device
    streamed = placed(dataset=STREAMED)
    again = train(streamed, workdir)
    chex.assert_trees_all_equal(again.network, trained.network)
    loaded = load_trained(streamed, workdir)
    chex.assert_trees_all_equal(loaded.network, trained.network)


# Of layers ----------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "count"), [(3, 1), (3, 2), (1000, 2)])
def test_a_stream_of_any_algorithm_ends_with_the_same_bits(
    tmp_path, monkeypatch, steps, count
):
    """In chunks of which the last one is smaller, and in one."""
    dataset, phases = vectors(train=57, validation=73), [layer(0), layer(1)][:count]
    places = []
    for streams in (False, True):
        # A sample is five floats and an int32.
        monkeypatch.setattr(compilation, "_CHUNK_BYTES", steps * 8 * 24)
        workdir = tmp_path / str(streams)
        made = experiment(*phases, dataset=dataset, streams=streams)
        places.append((workdir, train(made, workdir)))
    (_, trained), streamed = places[1], places[0]
    assert_same(trained, tmp_path / "True", streamed)


def test_a_stream_takes_the_samples_in_the_order_of_the_epoch(monkeypatch):
    monkeypatch.setattr(compilation, "_CHUNK_BYTES", 4 * 8 * 24)

    def remember(state, network, batch, key):
        return state, {0: one_by_one(x=batch.inputs, label=batch.targets)}

    made = experiment(layer(0, step=remember), dataset=vectors(50), streams=True)
    data = made.data(made.dataset.train)
    stored = store(
        made, 0, (), data, augment=None, place="auto", folder=None, key=made.key
    )
    assert len(stored.on_host) == 2
    state = initial_state(made, made.phases[0], ())
    epoch = compile_epoch(made, 0, state, (), stored)
    assert epoch.steps == 6
    _, seen = epoch.run(state, (), stored, 12)
    keys = keys_of(made, made.phases[0])
    rows = epoch_rows(keys.order, 12, samples=50, batch_size=8)
    labels = joined(seen[0], "label")
    np.testing.assert_array_equal(labels, made.dataset.train["labels"][rows])
    whole = made.dataset.kind.prepare(made.dataset.train, made.common)
    inputs = joined(seen[0], "x").reshape(whole[rows].shape)
    np.testing.assert_allclose(inputs, whole[rows], rtol=1e-5, atol=1e-6)


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
def test_samples_go_on_the_device_up_to_half_of_its_memory(
    placement, factor, streams, monkeypatch
):
    dataset = vectors()
    size = sum(a.nbytes for split in dataset[1:4] for a in split.values())
    limit = round(size * factor) or None
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(limit)])
    assert assembly.streams(placement, dataset) is streams
