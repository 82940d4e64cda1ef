"""Probes of a run: what is recorded of moments, whoever makes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stand_in import experiment, features, moments, vectors

from dib_jax.analysis.probes import probe
from dib_jax.analysis.recording import (
    gather,
    probe_files,
    read_grams,
    read_information,
    recorder,
    sample_rows,
    stratified_rows,
    unpacked,
    write_information,
)
from dib_jax.information import gaussian_gram, label_gram
from dib_jax.tasks.classification import classification

ANALYSIS = {"every_epochs": 1, "samples": 24, "alpha": 1.01, "bandwidth": "mean"}


def record(workdir, pieces=None, **changes):
    workdir.mkdir(exist_ok=True)
    make = recorder(workdir, {"analysis": ANALYSIS | changes})
    observe = make(pieces or experiment())
    for moment in moments():
        observe(moment)
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = record(tmp_path_factory.mktemp("probed") / "run")
    write_information(workdir)
    return workdir


def test_information_npz_has_the_keys_and_axes_of_the_design(run):
    with np.load(run / "information.npz") as file:
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
        assert found[f"{split}/samples"] == 24
        np.testing.assert_array_equal(found[f"{split}/epoch"], range(5))
        trained = [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]]
        np.testing.assert_array_equal(found[f"{split}/trained"], trained)
        np.testing.assert_allclose(found[f"{split}/cka_final"][-1], 1, atol=1e-5)
        assert found[f"{split}/cka_final"][0, 0] < 0.999
        np.testing.assert_array_equal(
            found[f"{split}/cka_final"], found[f"{split}/cka_epoch"][:, :, -1]
        )


def test_a_frozen_stage_tells_the_same_for_ever_and_a_later_one_moves_with_it(run):
    first, second = gather(run)["train/entropy"].T
    assert np.ptp(first[2:]) == 0  # frozen from epoch 2 on
    assert np.ptp(first[:3]) > 0
    # Still at its initial weights, on an input that changes.
    assert np.ptp(second[:3]) > 0


def test_what_is_recorded_is_what_a_probe_of_the_same_samples_measures(run):
    rows = sample_rows(vectors(slice(0, 100)), 24, seed=0)
    taken = {name: array[rows] for name, array in vectors(slice(0, 100)).items()}
    batch = {"images": taken["features"] / 16, "labels": taken["labels"]}

    pieces, network = experiment(), moments()[3].network

    def apply(inputs):
        data = pieces.data({"features": 16 * inputs, "labels": taken["labels"]})
        return features(network, data.prepare(data.samples, data.common))

    wanted, found = probe(apply, batch, alpha=1.01), gather(run)
    for name in ("input_stage", "stage_target", "entropy", "sigma", "stage_stage"):
        np.testing.assert_allclose(
            found[f"train/{name}"][3], wanted[name], rtol=2e-5, atol=2e-5
        )


def test_probes_are_at_every_so_many_epochs_and_at_the_end_of_each_phase(tmp_path):
    pieces = experiment(epochs=(1, 3))
    record(tmp_path, pieces, every_epochs=3)
    assert [int(path.stem) for path in probe_files(tmp_path)] == [0, 1, 3, 4]


def test_a_moment_that_is_shown_again_leaves_the_same_and_half_a_file_is_passed_over(
    run, tmp_path
):
    record(tmp_path)
    probe_files(tmp_path)[3].write_bytes(b"of another time")
    (tmp_path / "probes" / ".00000004.npz.123").write_bytes(b"cut off")
    record(tmp_path)
    found, wanted = gather(tmp_path), gather(run)
    assert found.keys() == wanted.keys()
    for name in found.keys() - {"train/seconds", "validation/seconds"}:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def test_without_a_validation_split_there_are_probes_of_the_other(tmp_path):
    record(tmp_path, experiment(validation=0), every_epochs=4)
    assert {name.partition("/")[0] for name in gather(tmp_path)} == {"train"}


def test_a_split_of_one_sample_cannot_be_probed(tmp_path):
    make = recorder(tmp_path, {"analysis": ANALYSIS})
    with pytest.raises(ValueError, match=r"analysis.samples: .* only 1 sample"):
        make(experiment(validation=1))


def test_a_task_without_classes_is_probed_by_its_target_gram(tmp_path):
    def gram(targets):
        return gaussian_gram(targets, sigma=1.0)

    task = classification(num_classes=10)._replace(
        targets=lambda batch: batch["features"][:, :2], target_gram=gram
    )
    record(tmp_path, experiment(task=task), every_epochs=4)
    target, _ = read_grams(probe_files(tmp_path)[-1], "train")
    split = vectors(slice(0, 100))
    wanted = gram(jnp.asarray(split["features"][sample_rows(split, 24, seed=0), :2]))
    np.testing.assert_allclose(target, wanted, atol=1e-6)
    assert np.all(np.isfinite(gather(tmp_path)["train/stage_target"]))


@pytest.mark.parametrize("off", [{"every_epochs": 0}, {"samples": 0}])
def test_probes_can_be_switched_off(off, tmp_path):
    assert recorder(tmp_path, {"analysis": ANALYSIS | off}) is None
    assert write_information(tmp_path) is None
    with pytest.raises(ValueError, match="has no probes; a run has them with"):
        read_information(tmp_path)


def test_information_is_read_also_where_the_probes_are_gone(run, tmp_path):
    content = (run / "information.npz").read_bytes()
    (tmp_path / "information.npz").write_bytes(content)
    assert read_information(tmp_path).keys() == gather(run).keys()


def test_a_damaged_probe_is_named(run, tmp_path):
    (tmp_path / "probes").mkdir()
    whole = probe_files(run)[0].read_bytes()
    (tmp_path / "probes" / "00000000.npz").write_bytes(whole[:-400])
    with pytest.raises(ValueError, match=r"00000000\.npz is damaged"):
        gather(tmp_path)


def test_the_grams_of_a_probe_are_there(run):
    target, nodes = read_grams(probe_files(run)[-1], "validation")
    assert nodes.shape == (3, 24, 24)
    np.testing.assert_allclose(np.trace(nodes, axis1=1, axis2=2), 1, rtol=1e-5)
    split = vectors(slice(100, 160))
    labels = split["labels"][sample_rows(split, 24, seed=0)]
    np.testing.assert_allclose(target, label_gram(jnp.asarray(labels)))


def test_both_splits_and_all_moments_are_one_program(tmp_path):
    traces = []

    def counted(network, batch):
        traces.append(jax.tree.leaves(network)[0].shape)
        return features(network, batch)

    pieces = experiment()
    algorithm = pieces.algorithm._replace(features=counted)
    record(tmp_path, pieces._replace(algorithm=algorithm), every_epochs=2)
    assert len(traces) == 1


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


def test_a_split_without_classes_is_sampled_all_the_same():
    rows = sample_rows({"targets": np.zeros((50, 2))}, 20, seed=0)
    assert len(set(rows)) == 20
    floats = sample_rows({"labels": np.arange(50.0)}, 20, seed=0)
    np.testing.assert_array_equal(rows, floats)
