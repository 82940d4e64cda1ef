"""Probes of a run: what is recorded, and that a killed run leaves the same."""

import pathlib

import numpy as np
import pytest

from dib_jax import checkpoints
from dib_jax.analysis.recording import (
    gather,
    probe_files,
    read_grams,
    read_information,
    recorder,
    stratified_rows,
    unpacked,
    write_information,
)
from dib_jax.information import check_bandwidth
from dib_jax.training import config as configs
from dib_jax.training import train as engine
from dib_jax.training.config import complete
from dib_jax.training.train import load_trained, train
from experiments.command_line import load_config

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits_cnn.py"


def small(*, schedule="sequential", **analysis):
    config = load_config(f"{CONFIG}:quick").config
    config.model = dict(name="mlp", widths=(8, 6), batch_norm=True)
    config.objective = dict(name="cross_entropy")
    config.schedule.name = schedule
    config.epochs = 2
    config.analysis.update({"samples": 40, **analysis})
    return complete(config)


def probed(config, workdir):
    return train(
        config, workdir, config_name="digits", observer=recorder(workdir, config)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("probed") / "first"
    trained = probed(small(), workdir)
    write_information(workdir)
    return workdir, trained


def test_information_npz_has_the_keys_and_axes_of_the_design(run):
    with np.load(run[0] / "information.npz") as file:
        found = dict(file)
    for split in ("train", "validation"):
        shapes = {
            "epoch": (5,), "total_correlation": (5,), "seconds": (5,),
            "stage_stage": (5, 2, 2), "cka_stage": (5, 2, 2),
            "linear_cka_stage": (5, 2, 2), "cka_epoch": (5, 2, 5),
            "input_entropy": (), "target_entropy": (), "alpha": (), "samples": (),
        }  # fmt: skip
        shapes |= dict.fromkeys(
            (
                "trained", "input_stage", "stage_target", "stage_target_shuffled",
                "previous_stage", "entropy", "conditional_target", "nhsic_input",
                "nhsic_target", "nhsic_target_shuffled", "cka_final",
                "linear_cka_final", "effective_rank", "sigma",
            ),
            (5, 2),
        )  # fmt: skip
        for name, shape in shapes.items():
            assert found[f"{split}/{name}"].shape == shape, name
            assert np.all(np.isfinite(found[f"{split}/{name}"])), name
        assert found[f"{split}/samples"] == 40
        np.testing.assert_array_equal(found[f"{split}/epoch"], range(5))
        trained = [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]]
        np.testing.assert_array_equal(found[f"{split}/trained"], trained)
        np.testing.assert_allclose(found[f"{split}/cka_final"][-1], 1, atol=1e-5)
        assert found[f"{split}/cka_final"][0, 0] < 0.999
        np.testing.assert_array_equal(
            found[f"{split}/cka_final"], found[f"{split}/cka_epoch"][:, :, -1]
        )


def test_a_frozen_stage_tells_the_same_for_ever_and_a_later_one_moves_with_it(run):
    found = gather(run[0])
    first, second = found["train/entropy"].T
    assert np.ptp(first[2:]) == 0  # frozen from epoch 2 on
    assert np.ptp(first[:3]) > 0
    # Still at its initial weights, on an input that changes.
    assert np.ptp(second[:3]) > 0


def test_the_last_probe_is_of_the_network_that_is_kept(run, tmp_path):
    workdir, trained = run
    config = small()
    seen = []

    def observer(experiment):
        return seen.append

    again = train(config, tmp_path / "run", config_name="x", observer=observer)
    assert [moment.epoch for moment in seen] == [0, 1, 2, 3, 4]
    for one, other in zip(seen[-1].stages, again.network.stages, strict=True):
        assert one["params"].keys() == other["params"].keys()
        np.testing.assert_array_equal(
            one["params"]["Dense_0"]["kernel"], other["params"]["Dense_0"]["kernel"]
        )
    # Whether it is watched or not, a run trains to the same bits.
    assert again.results["test"] == trained.results["test"]
    assert load_trained(workdir).results["test"] == trained.results["test"]


def test_a_run_that_was_stopped_goes_on_to_the_same_information(
    run, tmp_path, monkeypatch
):
    """Stopped after a probe whose checkpoint was not written, and half a file."""
    save, workdir = checkpoints.save, tmp_path / "run"

    class Stop(Exception):
        pass

    def stop_before_the_third(folder, step, tree, metadata):
        if step == 3:
            raise Stop
        save(folder, step, tree, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_CHECKPOINT_SHARE", float("inf"))
        patch.setattr(checkpoints, "save", stop_before_the_third)
        with pytest.raises(Stop):
            probed(small(), workdir)
    assert [int(path.stem) for path in probe_files(workdir)] == [0, 1, 2, 3]
    probe_files(workdir)[3].write_bytes(b"of another time")
    (workdir / "probes" / ".00000004.npz.123").write_bytes(b"cut off")
    probed(small(), workdir)
    found, wanted = gather(workdir), gather(run[0])
    assert found.keys() == wanted.keys()
    for name in found.keys() - {"train/seconds", "validation/seconds"}:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


@pytest.mark.parametrize("schedule", ["end_to_end", "parallel"])
def test_all_stages_of_other_schedules_train_at_once(schedule, tmp_path):
    config = small(schedule=schedule, every_epochs=2)
    probed(config, tmp_path / "run")
    found = gather(tmp_path / "run")
    np.testing.assert_array_equal(found["train/trained"], [[0, 0], [2, 2]])
    assert np.all(found["train/cka_final"][0] < 0.9999)


def test_without_a_validation_split_there_are_probes_of_the_other(tmp_path):
    config = small(schedule="end_to_end", every_epochs=2)
    config.dataset.val_fraction = 0.0
    config.dataset.placement = "stream"
    probed(config, tmp_path / "run")
    found = gather(tmp_path / "run")
    assert {name.partition("/")[0] for name in found} == {"train"}


@pytest.mark.parametrize("off", [{"every_epochs": 0}, {"samples": 0}])
def test_probes_can_be_switched_off(off, tmp_path):
    assert recorder(tmp_path, small(**off)) is None
    assert write_information(tmp_path) is None
    with pytest.raises(ValueError, match="has no probes; a run has them with"):
        read_information(tmp_path)


def test_information_is_read_also_where_the_probes_are_gone(run, tmp_path):
    (tmp_path / "information.npz").write_bytes(
        (run[0] / "information.npz").read_bytes()
    )
    assert read_information(tmp_path).keys() == gather(run[0]).keys()


def test_a_damaged_probe_is_named(run, tmp_path):
    (tmp_path / "probes").mkdir()
    whole = probe_files(run[0])[0].read_bytes()
    (tmp_path / "probes" / "00000000.npz").write_bytes(whole[:-400])
    with pytest.raises(ValueError, match=r"00000000\.npz is damaged"):
        gather(tmp_path)


def test_the_grams_of_a_probe_are_kept(run):
    target, nodes = read_grams(probe_files(run[0])[-1], "validation")
    assert nodes.shape == (3, 40, 40)
    np.testing.assert_allclose(np.trace(nodes, axis1=1, axis2=2), 1, rtol=1e-5)
    assert set(np.unique(target * 40)) == {0, 1}


def test_triangles_are_unpacked_to_the_matrix_they_were():
    matrix = np.random.default_rng(0).normal(size=(2, 5, 5)).astype(np.float32)
    matrix += matrix.transpose(0, 2, 1)
    rows, columns = np.triu_indices(5)
    np.testing.assert_array_equal(unpacked(matrix[:, rows, columns]), matrix)


def test_a_stratified_sample_has_each_class_by_its_share():
    labels = np.repeat([3, 7, 9], [50, 30, 20])
    rows = stratified_rows(labels, 21, seed=0)
    assert len(set(rows)) == 21
    counts = np.array([np.sum(labels[rows] == label) for label in (3, 7, 9)])
    assert np.all(np.abs(counts - [10.5, 6.3, 4.2]) < 1)
    np.testing.assert_array_equal(rows, stratified_rows(labels, 21, seed=0))
    assert not np.array_equal(rows, stratified_rows(labels, 21, seed=1))
    np.testing.assert_array_equal(stratified_rows(labels, 100, seed=0), range(100))


def test_the_config_knows_the_rules_that_the_measures_know():
    for rule in (*configs._BANDWIDTHS, "2.5"):
        check_bandwidth(rule)
        small(bandwidth=rule)
    with pytest.raises(ValueError, match=r"analysis\.bandwidth: got 'medan'.*'median'"):
        small(bandwidth="medan")
    with pytest.raises(ValueError, match=r"analysis\.samples: got 1; must be 0, or"):
        small(samples=1)
