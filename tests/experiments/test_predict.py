"""Pictures in, boxes in their own pixels out."""

import importlib
import json
import os
import types
import urllib.parse

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dib_jax.commands import assemble, command_line
from dib_jax.commands.predict import fit, main, predict, read_picture
from dib_jax.commands.prediction_page import class_of_folder
from dib_jax.commands.run import train_run
from dib_jax.tasks import Objects
from dib_jax.training import evaluation, finished, workdir

SIDE = 64


class Finder:
    """In place of an experiment: its network finds the white pixels."""

    def __init__(self, *, several=False, boxes=True, found=True):
        empty = {"images": np.zeros((0, SIDE, SIDE, 3), np.uint8)}
        if several:
            empty["box_labels"] = np.zeros((0, 2), np.int32)
        kind = types.SimpleNamespace(name="pictures")
        self.dataset = types.SimpleNamespace(
            train=empty, class_names=("stop", "yield"), kind=kind
        )
        self.task = self
        self.about = {"task": "classification"}
        self._boxes, self._found = boxes, found

    def outputs(self, experiment, network, samples):
        assert experiment is self
        images = self.seen = samples["images"]
        outputs = []
        for picture in images:
            ys, xs = np.nonzero(picture.mean(axis=-1) > 127)
            box = (
                [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0] * 4
            )
            outputs.append(box)
        return jnp.array(outputs) / SIDE

    def objects(self, outputs):
        shape = (len(outputs), 2)
        return Objects(
            jnp.tile(jnp.array([1, -1]), (shape[0], 1)),
            jnp.tile(jnp.array([0.875, 0.0]), (shape[0], 1)),
            jnp.tile(jnp.array([self._found, False]), (shape[0], 1)),
            jnp.stack([outputs, outputs * 0], axis=1) if self._boxes else None,
        )


@pytest.fixture
def use(monkeypatch):
    def use(finder):
        monkeypatch.setattr(assemble, "assemble_from", lambda *_, **__: finder)
        monkeypatch.setattr(workdir, "read_results", lambda _: {})
        monkeypatch.setattr(finished, "restore", lambda *_: (None, {}))
        monkeypatch.setattr(evaluation, "outputs_of", finder.outputs)

    return use


def rectangle(size, box):
    """A black picture with a white rectangle."""
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), box)
    return picture


def read(out):
    return json.loads((out / "predictions.json").read_text())


@pytest.mark.parametrize("size", [(640, 320), (320, 640), (64, 64), (16, 48)])
@pytest.mark.parametrize("several", [False, True])
def test_boxes_are_in_pixels_of_the_picture_as_given(tmp_path, use, size, several):
    finder = Finder(several=several)
    use(finder)
    width, height = size
    box = [width // 4, height // 2, width // 2, height * 3 // 4]
    rectangle(size, tuple(box)).save(tmp_path / "a.png")
    assert predict(tmp_path, [tmp_path / "a.png"], tmp_path / "out") == []
    (entry,) = read(tmp_path / "out")
    assert entry["file"] == str(tmp_path / "a.png")
    assert entry["size"] == [width, height]
    (found,) = entry["objects"]
    assert list(found) == ["label", "class_name", "score", "box"]
    assert (found["label"], found["class_name"], found["score"]) == (1, "yield", 0.875)
    # To half a pixel of the 64 that the network sees.
    slack = 1.01 * max(size) / SIDE
    np.testing.assert_allclose(found["box"], box, atol=slack)
    # Scenes keep their proportion on the way to the network.
    ys, xs = np.nonzero(finder.seen[0, :, :, 0] > 127)
    ratio = np.ptp(xs) / np.ptp(ys)
    assert ratio == pytest.approx(width / height if several else 1, rel=0.5)


def test_the_box_is_drawn_where_the_object_is_and_the_words_beside_it(tmp_path, use):
    use(Finder())
    rectangle((480, 480), (120, 240, 240, 360)).save(tmp_path / "a.png")
    predict(tmp_path, [tmp_path / "a.png"], tmp_path / "out")
    drawn = np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(int)
    before = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    ys, xs = np.nonzero((drawn != before).any(axis=-1))
    assert drawn.shape == (480, 480, 3)
    assert abs(xs.min() - 120) <= 8
    assert abs(ys.max() - 360) <= 8
    assert 200 < ys.min() < 235  # the words, above
    assert (drawn[270:330, 150:210] == 255).all()


def formats(folder):
    picture = rectangle((80, 40), (10, 10, 30, 30))
    picture.save(folder / "jpeg.jpg", quality=95)
    picture.convert("P").save(folder / "palette.gif")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("1").save(folder / "bits.tiff")
    picture.convert("CMYK").save(folder / "cmyk.tif")
    clear = picture.convert("RGBA")
    clear.putalpha(picture.convert("L"))  # black is clear, so it becomes white
    Image.composite(clear, Image.new("RGBA", (80, 40), (0, 0, 0, 255)),
                    picture.convert("L")).save(folder / "rgba.png")  # fmt: skip
    levels = np.asarray(picture.convert("L"), np.uint16) * 257
    Image.fromarray(levels).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    picture.rotate(90, expand=True).save(folder / "turned.jpg", exif=exif, quality=95)
    picture.save(folder / "web.webp", lossless=True)


def test_every_format_gives_the_same_picture_and_so_the_same_box(tmp_path, use):
    use(Finder())
    folder = tmp_path / "pictures"
    folder.mkdir()
    formats(folder)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    assert predict(tmp_path, [folder], tmp_path / "out") == []
    entries = read(tmp_path / "out")
    assert len(entries) == 9
    for entry in entries:
        assert entry["size"] == [80, 40], entry["file"]
        box = entry["objects"][0]["box"]
        np.testing.assert_allclose(box, [10, 10, 30, 30], atol=1.3)
    assert len(list((tmp_path / "out").glob("*.png"))) == 9


def test_what_is_clear_is_white_and_sixteen_bits_keep_their_grey(tmp_path):
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").getpixel((1, 1)) == (255, 255, 255)
    for grey in (5, 128, 255):
        Image.fromarray(np.full((4, 4), 257 * grey, np.uint16)).save(tmp_path / "x.png")
        assert read_picture(tmp_path / "x.png").getpixel((1, 1)) == grey


def test_a_broken_file_is_named_and_skipped_with_status_1(tmp_path, use, capsys):
    use(Finder())
    (tmp_path / "config.json").write_text("{}")
    rectangle((80, 40), (10, 10, 30, 30)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.jpg").touch()
    names = [str(tmp_path / name) for name in ("cut.png", "whole.png", "empty.jpg")]
    status = command_line.main(
        main,
        command="experiments.predict",
        arguments=[f"--workdir={tmp_path}", *names],
    )
    captured = capsys.readouterr()
    assert status == 1
    assert f"skipped {names[0]}: " in captured.err
    assert f"skipped {names[2]}: " in captured.err
    assert "2 files could not be read" in captured.err
    entries = read(tmp_path / "predictions")
    assert [entry["file"] for entry in entries] == [names[1]]


def test_names_that_are_taken_get_a_number_and_nothing_is_overwritten(tmp_path, use):
    use(Finder())
    for folder, name in (("a", "x.png"), ("b", "x.png"), ("b", "X.bmp")):
        (tmp_path / folder).mkdir(exist_ok=True)
        rectangle((80, 40), (10, 10, 30, 30)).save(tmp_path / folder / name)
    original = (tmp_path / "a" / "x.png").read_bytes()
    paths = [tmp_path / "a" / "x.png", tmp_path / "b", tmp_path / "a"]
    predict(tmp_path, paths, tmp_path / "a")
    assert (tmp_path / "a" / "x.png").read_bytes() == original
    names = {path.name for path in (tmp_path / "a").iterdir()}
    drawn = {"x-2.png", "X-3.png", "x-4.png"}
    if "X-2.png" in names:
        drawn = {"X-2.png", "x-3.png", "x-4.png"}
    assert names == {"x.png", *drawn, "predictions.json", "index.html"}
    assert len(read(tmp_path / "a")) == 3  # the file that is named twice counts once
    with pytest.raises(ValueError, match="is there already and is not overwritten"):
        predict(tmp_path, paths, tmp_path / "a")


def test_without_boxes_the_class_is_written_below_the_picture(tmp_path, use):
    use(Finder(boxes=False))
    rectangle((500, 250), (10, 10, 30, 30)).save(tmp_path / "a.png")
    predict(tmp_path, [tmp_path / "a.png"], tmp_path / "out")
    (found,) = read(tmp_path / "out")[0]["objects"]
    assert found == {"label": 1, "class_name": "yield", "score": 0.875}
    drawn = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert drawn.shape[1] == 500
    assert drawn.shape[0] > 250
    np.testing.assert_array_equal(drawn[:250], Image.open(tmp_path / "a.png"))


def test_more_pictures_than_are_held_at_once_and_one_without_an_object(tmp_path, use):
    use(Finder(found=False))
    for number in range(40):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number:02d}.png")
    predict(tmp_path, [tmp_path], tmp_path / "out")
    entries = read(tmp_path / "out")
    assert [entry["objects"] for entry in entries] == [[]] * 40
    assert entries == sorted(entries, key=lambda entry: entry["file"])


def test_few_large_pictures_are_held_at_once(tmp_path, use, monkeypatch):
    finder = Finder()
    use(finder)
    monkeypatch.setattr(
        importlib.import_module("dib_jax.commands.predict"), "_PIXELS", 99
    )
    seen = []
    monkeypatch.setattr(
        evaluation,
        "outputs_of",
        lambda *given: seen.append(1) or finder.outputs(*given),
    )
    for number in range(5):
        rectangle((8, 8), (2, 2, 6, 6)).save(tmp_path / f"{number}.png")
    predict(tmp_path, [tmp_path], tmp_path / "out")
    assert len(read(tmp_path / "out")) == 5
    assert len(seen) == 3  # of 64 pixels each, two at a time


def test_fitting_keeps_proportion_by_padding_right_and_below():
    picture = Image.new("RGB", (100, 50), "white")
    padded = fit(picture, (20, 20, 3), pad=True)
    np.testing.assert_array_equal(padded[:10], 255)
    np.testing.assert_array_equal(padded[10:], 0)
    np.testing.assert_array_equal(fit(picture, (20, 20, 1), pad=False), 255)
    with pytest.raises(ValueError, match="have 4 channels"):
        fit(picture, (20, 20, 4), pad=False)


def test_folders_in_folders_are_read_and_those_of_classes_give_an_accuracy(
    tmp_path, use, capsys
):
    use(Finder(boxes=False))  # it finds "yield" on every picture
    for name in ("yield/a.png", "yield/deep/b.png", "stop/a.png", "other/a.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        rectangle((20, 20), (5, 5, 15, 15)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "yield" / "<b>&ü.png").symlink_to("a.png")
    out = tmp_path / "photos" / "out"
    assert predict(tmp_path, [tmp_path / "photos"], out) == []
    assert len(read(out)) == 5
    assert (
        "accuracy 0.7500: 3 of 4 pictures are of the class that their folder is named "
        "like; 1 others are in no folder named like a class" in capsys.readouterr().out
    )
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.index("Wrong (1)") < page.index("Right (3)") < page.index("Others (1)")
    assert "<bdi>&lt;b&gt;&amp;ü.png</bdi>" in page
    for entry in out.glob("*.png"):
        assert urllib.parse.quote(os.fsencode(entry.name)) in page
    # What was drawn is not looked at again.
    predict(tmp_path, [tmp_path / "photos"], tmp_path / "again")
    assert len(read(tmp_path / "again")) == 5


def test_a_second_call_goes_to_a_folder_of_its_own(tmp_path, use, capsys):
    use(Finder())
    (tmp_path / "config.json").write_text("{}")
    rectangle((80, 40), (10, 10, 30, 30)).save(tmp_path / "a.png")
    for _ in range(3):
        assert main([f"--workdir={tmp_path}", str(tmp_path / "a.png")]) == 0
    for name in ("predictions", "predictions-2", "predictions-3"):
        assert len(read(tmp_path / name)) == 1
    said = capsys.readouterr().err
    first, second = tmp_path / "predictions", tmp_path / "predictions-2"
    assert f"{first} has predictions already; these go to {second}" in said


@pytest.mark.skipif(os.name != "posix", reason="locks of Unix")
def test_two_at_once_go_to_folders_of_their_own(tmp_path, use, capsys):
    import fcntl

    use(Finder())
    (tmp_path / "config.json").write_text("{}")
    rectangle((80, 40), (10, 10, 30, 30)).save(tmp_path / "a.png")
    (tmp_path / "predictions").mkdir()
    with open(tmp_path / "predictions" / ".lock", "w") as other:
        other.write("process 1 on earth")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main([f"--workdir={tmp_path}", str(tmp_path / "a.png")]) == 0
        with pytest.raises(ValueError, match="out: .* is in use by process 1 on earth"):
            predict(tmp_path, [tmp_path / "a.png"], tmp_path / "predictions")
    assert len(read(tmp_path / "predictions-2")) == 1
    names = {path.name for path in (tmp_path / "predictions-2").iterdir()}
    assert names == {"a.png", "index.html", "predictions.json"}
    assert "to look at in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no picture is given"),
        (["nowhere.png"], "nowhere.png is not there"),
        (["."], ". holds no picture"),
        (["--out=", "x.png"], "--out is empty"),
        (["--ot=x", "x.png"], "unknown flag --ot"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    status = command_line.main(
        main, command="experiments.predict", arguments=["--workdir=run", *arguments]
    )
    captured = capsys.readouterr()
    assert status == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_a_run_that_has_not_learnt_from_pictures_says_so(tmp_path, use):
    finder = Finder()
    finder.dataset.train = {"features": np.zeros((0, 13), np.float32)}
    finder.dataset.kind.name = "vectors"
    use(finder)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match="is classification of vectors; only classes and obj"
    ):
        predict(tmp_path, [tmp_path / "a.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_trained_run_says_what_is_on_a_picture(tmp_path):
    """The whole way, by a real network that has learnt two signs and where they are."""
    rng = np.random.default_rng(0)
    low, side = rng.integers(0, 8, (400, 2)), rng.integers(4, 9, 400)
    boxes = np.concatenate([low, low + side[:, None]], axis=1)
    labels = np.arange(400) % 2
    images = np.zeros((400, 16, 16, 3), np.uint8)
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        images[row, y1:y2, x1:x2, labels[row]] = 255
    (tmp_path / "signs").mkdir()
    for split in ("train", "test"):
        np.savez(
            tmp_path / "signs" / f"{split}.npz",
            images=images, labels=labels, boxes=boxes.astype(np.float32),
            class_names=np.array(["red", "green"]),
        )  # fmt: skip
    config = command_line.load_config("configs/gtsrb_detection.py:quick").config
    # Without validation, whose metrics are compiled and computed in every epoch.
    place = {"name": "signs", "data_dir": str(tmp_path), "val_fraction": 0.0}
    config.dataset.update(place, augment="")
    config.model = dict(name="mlp", widths=(64,))
    config.head = dict(name="linear")
    config.objective = dict(name="cross_entropy")
    config.batch_size, config.epochs, config.analysis.every_epochs = 40, 30, 0
    run = tmp_path / "run"
    trained = train_run(config, run, config_name="signs")
    assert trained.results["test"]["accuracy"] > 0.95
    assert trained.results["test"]["mean_iou"] > 0.6
    mean_box = trained.results["mean_box"]
    assert set(mean_box) == {"ap50", "map", "mean_iou"}
    assert 0 < mean_box["mean_iou"] < trained.results["test"]["mean_iou"]
    assert trained.results["duplicates"]["test"] == 400  # here test is train
    # What is needed of the data set lies in the run's folder.
    (tmp_path / "signs").rename(tmp_path / "elsewhere")
    Image.fromarray(images[3]).resize((160, 160), Image.Resampling.NEAREST).save(
        tmp_path / "sign.png"
    )
    assert main([f"--workdir={run}", str(tmp_path / "sign.png")]) == 0
    (entry,) = read(run / "predictions")
    (found,) = entry["objects"]
    assert found["class_name"] == "green"
    np.testing.assert_allclose(found["box"], boxes[3] * 10, atol=30)


def test_a_folder_is_of_the_class_that_prepare_makes_of_its_name(tmp_path):
    for folder, name in (("stop \n sign", "stop sign"), ("é", "é"), ("yield", "")):
        file = tmp_path / folder / "a.png"
        found = class_of_folder(file, tmp_path, ["stop sign", "é"])
        assert found == name
