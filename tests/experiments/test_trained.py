"""A finished run as a function of pictures and arrays, and as files for others."""

import atexit
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import dib_jax
from dib_jax.commands import export, predict, trained
from dib_jax.data.views import views

LEVELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def model(finished_run):
    return dib_jax.load(finished_run)


def test_pictures_are_read_as_predict_reads_them_however_they_are_given(
    model, finished_run, tmp_path, capsys
):
    path = tmp_path / "a.png"
    Image.fromarray(LEVELS[0, ..., 0]).save(path)
    predict.predict(finished_run, [path], tmp_path / "out")
    said = json.loads((tmp_path / "out" / "predictions.json").read_text())
    wanted = said[0]["objects"]
    assert model(path) == model(str(path)) == wanted
    assert model(Image.open(path)) == wanted
    assert model(LEVELS[0]) == model(LEVELS[0, ..., 0]) == wanted
    assert model(LEVELS[0] / np.float32(255)) == wanted
    assert model(np.repeat(LEVELS[0], 3, axis=-1)) == wanted
    assert model([path, LEVELS[0]]) == [wanted, wanted]
    assert model(LEVELS)[0] == wanted


def test_outputs_exits_and_features_are_those_of_the_algorithm(model, monkeypatch):
    outputs, exits = model.outputs(LEVELS), model.exits(LEVELS)
    assert outputs.shape == (3, 10)
    np.testing.assert_array_equal(exits[-1], outputs)
    best = [objects[0] for objects in model(LEVELS)]
    assert [each["label"] for each in best] == outputs.argmax(axis=1).tolist()
    assert [x.shape for x in model.features(LEVELS)] == [(3, 8), (3, 6)]
    # Of one sample, and in a session of 64 bits, it is the same.
    with jax.enable_x64(True):
        alone = model.outputs(LEVELS[1])
    np.testing.assert_allclose(alone[0], outputs[1], rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(trained, "_SAMPLES", 2)  # computed at once
    parts = model.outputs(LEVELS)
    np.testing.assert_allclose(parts, outputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            LEVELS.astype(float),
            r"float64\[8, 8, 1\] from .* to 2\d\d; levels",
        ),
        (np.full((8, 8), np.nan), "from nan to nan"),
        (LEVELS.astype(int), r"got int64\[8, 8, 1\]"),
        (LEVELS[..., 0], r"uint8\[3, 8, 8\]; several pictures are \(n, h, w, c\)"),
        ([], "no picture is given"),
    ],
)
def test_an_array_that_is_no_picture_for_certain_is_refused(model, given, message):
    with pytest.raises(ValueError, match=message):
        model(given)


@pytest.mark.parametrize("name", ["none.png", "."])
def test_a_picture_that_cannot_be_read_is_named(model, tmp_path, name):
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / name))}: .*No|Is"):
        model([LEVELS[0], tmp_path / name])


def test_a_file_is_no_run(finished_run):
    with pytest.raises(ValueError, match="there is no config.json in .*results.json"):
        dib_jax.load(finished_run / "results.json")


def test_what_is_exported_does_as_the_run_does_with_any_number_of_samples(
    model, finished_run, tmp_path
):
    numpy = pytest.importorskip("safetensors.numpy")
    pytest.importorskip("flatbuffers")
    differences = export.export(finished_run, tmp_path)
    assert differences.keys() == {export.WEIGHTS, export.FUNCTION}
    assert max(differences.values()) < 1e-4
    weights = numpy.load((tmp_path / export.WEIGHTS).read_bytes())
    assert sum(x.size for x in weights.values()) == sum(
        x.size for x in jax.tree.leaves(model.network)
    )
    content = bytearray((tmp_path / export.FUNCTION).read_bytes())
    *_, outputs = jax.export.deserialize(content).call({"images": LEVELS})
    np.testing.assert_allclose(outputs, model.outputs(LEVELS), rtol=1e-4, atol=1e-4)


def test_a_run_with_views_averages_over_them_wherever_it_answers(finished_run):
    pytest.importorskip("flatbuffers")
    plain, seeing = dib_jax.load(finished_run), dib_jax.load(finished_run)
    seeing.experiment = seeing.experiment._replace(views=views("shift"))
    changed = [
        np.asarray(v.change({"images": LEVELS})["images"]) for v in views("shift")
    ]
    one, *moved = (plain.outputs(images) for images in changed)
    want = one / 2 + sum(moved) / 4
    assert abs(want - plain.outputs(LEVELS)).max() > 1e-3
    np.testing.assert_allclose(seeing.outputs(LEVELS), want, rtol=1e-5, atol=1e-5)
    for features, same in zip(
        seeing.features(LEVELS), plain.features(LEVELS), strict=True
    ):
        np.testing.assert_array_equal(features, same)
    content = bytearray(export._function(seeing, {"images": LEVELS}))
    *_, outputs = jax.export.deserialize(content).call({"images": LEVELS})
    np.testing.assert_allclose(outputs, want, rtol=1e-4, atol=1e-4)


def test_weights_that_are_not_the_runs_are_not_passed_on(
    finished_run, tmp_path, monkeypatch
):
    pytest.importorskip("safetensors")
    pytest.importorskip("flatbuffers")

    def zeros(path, network):
        return jax.tree.map(np.zeros_like, network)

    monkeypatch.setattr(export, "_read_weights", zeros)
    with pytest.raises(export.ExportError, match=r"weights.safetensors gives outputs"):
        export.export(finished_run, tmp_path)


def test_curves_go_to_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    from dib_jax.commands.watchers.tensorboard import tensorboard

    at_exit = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    watch = tensorboard(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    watch({"stage": 1, "epoch": 1, "step": 9, "split": "train", "loss": 0.5})
    at_exit[0]()
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"stage_1/train_loss" in events.read_bytes()
