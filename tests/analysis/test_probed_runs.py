"""Probes of real runs: of the network that stays, and the same after a stop."""

import functools

import numpy as np
import pytest

from dib_jax import checkpoints
from dib_jax.analysis.recording import gather, probe_files, recorder
from dib_jax.commands.assemble import assemble
from dib_jax.commands.config import complete
from dib_jax.training.finished import load_trained
from dib_jax.training.train import train


def small(*, algorithm="sequential", **changes):
    sections = {
        "dataset": {"name": "digits"},
        "model": {"name": "mlp", "widths": (8, 6), "batch_norm": True},
        "objective": {"name": "cross_entropy"},
        "algorithm": {"name": algorithm},
        "epochs": 2,
        "analysis": {"every_epochs": 1, "samples": 40},
    }
    return complete(sections | changes)


def probed(config, workdir):
    experiment = assemble(config)
    observer = recorder(workdir, config)
    return train(experiment, workdir, observer=observer)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("probed") / "first"
    return workdir, probed(small(), workdir)


def test_the_last_probe_is_of_the_network_that_stays(run, tmp_path):
    workdir, trained = run
    seen = []
    experiment = assemble(small())
    again = train(experiment, tmp_path / "run", observer=lambda _: seen.append)
    assert [moment.epoch for moment in seen] == [0, 1, 2, 3, 4]
    last, kept = seen[-1].network.stages, again.network.stages
    for one, other in zip(last, kept, strict=True):
        kernels = [each["params"]["Dense_0"]["kernel"] for each in (one, other)]
        np.testing.assert_array_equal(*kernels)
    # Whether it is watched or not, a run trains to the same bits.
    assert again.results["test"] == trained.results["test"]
    loaded = load_trained(experiment, workdir)
    assert loaded.results["test"] == trained.results["test"]


def test_a_run_that_was_stopped_goes_on_to_the_same_information(
    run, tmp_path, monkeypatch
):
    """Stopped at a checkpoint that is not written, after the probe before it."""
    save, workdir = checkpoints.save, tmp_path / "run"

    class Stop(Exception):
        pass

    def stop_at(last, folder, step, *arguments, **options):
        if step == last:
            raise Stop
        save(folder, step, *arguments, **options)

    with monkeypatch.context() as patch:
        # The second phase ends at epoch 4, whatever is written before.
        patch.setattr(checkpoints, "save", functools.partial(stop_at, 4))
        with pytest.raises(Stop):
            probed(small(), workdir)
    assert [int(path.stem) for path in probe_files(workdir)] == [0, 1, 2, 3, 4]
    probe_files(workdir)[4].write_bytes(b"of another time")
    probed(small(), workdir)
    found, wanted = gather(workdir), gather(run[0])
    assert found.keys() == wanted.keys()
    for name in found.keys() - {"train/seconds", "validation/seconds"}:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


@pytest.mark.parametrize("algorithm", ["end_to_end", "parallel"])
def test_all_stages_train_at_once(algorithm, tmp_path):
    analysis = {"every_epochs": 2, "samples": 40}
    probed(small(algorithm=algorithm, analysis=analysis), tmp_path / "run")
    found = gather(tmp_path / "run")
    np.testing.assert_array_equal(found["train/trained"], [[0, 0], [2, 2]])
    assert np.all(found["train/cka_final"][0] < 0.9999)
