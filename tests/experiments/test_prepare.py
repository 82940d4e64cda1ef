import importlib
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from dib_jax.commands import command_line, prepare
from dib_jax.data import contact_sheet
from dib_jax.data.archives import Archive
from dib_jax.data.preparation import downloadable


def run(*arguments):
    return command_line.main(
        prepare.main, command="experiments.prepare", arguments=arguments
    )


def refused(capsys, *arguments):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("experiments.prepare: ")
    return captured.err.removeprefix("experiments.prepare: ").rstrip()


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """A tiny MNIST in the official format, whose digests are not asked for."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "data")
    tiny = importlib.import_module("tiny_archives")
    module = importlib.import_module("dib_jax.data.builders.mnist")
    entries = tuple(entry._replace(digest="") for entry in module.ARCHIVES)
    monkeypatch.setattr(module, "ARCHIVES", entries)
    (tmp_path / "archives").mkdir()
    tiny.mnist(tmp_path / "archives")
    return tmp_path / "archives"


def test_a_set_is_prepared_and_shown(archives, tmp_path, capsys):
    root = tmp_path / "data"
    command = ("mnist", f"--data_dir={root}", "--archives", str(archives))
    assert run(*command) == 0
    sheet = root / "mnist" / "contact_sheet.png"
    assert capsys.readouterr().out.splitlines() == [
        f"mnist: written to {root}/mnist/3.0.1",
        "train 15, test 4 pictures of 28x28x1, 10 classes",
        "exact duplicates of training pictures: 0 of 4 test pictures, 0 of 0 "
        "validation pictures",
        f"contact sheet: {sheet}",
    ]
    with Image.open(sheet) as opened:
        assert opened.size == (10 * 102 + 6, 2 * 116 + 6)
    sheet.unlink()
    assert run("mnist", "--data_dir", str(root)) == 0
    assert capsys.readouterr().out.startswith(f"mnist is already in {root}/mnist\n")
    assert sheet.exists()
    assert "tensorflow" not in sys.modules


def test_a_folder_of_pictures_is_prepared_and_shown(tmp_path, capsys):
    for number in range(8):
        shade = np.full((8, 8, 3), 30 * number, np.uint8)
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(shade).save(path)
        path.with_suffix(".txt").write_text(f"{number % 2} 0.5 0.5 0.5 0.5\n")
    command = ["mine", f"--source={tmp_path / 'pictures'}", "--size=16"]
    command += [f"--data_dir={tmp_path}", "--classes=left,right"]
    assert run(*command, "--test_fraction=0.25") == 0
    out = capsys.readouterr().out
    assert "train 6, test 2 pictures of 16x16x3, 2 classes" in out
    assert (tmp_path / "mine" / "contact_sheet.png").exists()
    assert "mine is there already; move it away" in refused(capsys, *command)
    command[0] = "cifar10"
    assert "'cifar10' is the name of another set" in refused(capsys, *command)


def test_folders_of_classes_are_prepared_and_nothing_is_left_of_what_fails(
    tmp_path, capsys, monkeypatch
):
    for number in range(8):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 30 * number, np.uint8)).save(path)
    source = f"--source={tmp_path / 'pictures'}"
    command = ["mine", source, "--size=8", f"--data_dir={tmp_path / 'data'}"]

    def full(dataset, path):
        assert path.parent.parent != tmp_path / "data"
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(contact_sheet, "write_contact_sheet", full)
        assert "No space left on device" in refused(capsys, *command)
    assert not (tmp_path / "data").exists()
    left = tmp_path / "data" / ".mine" / "99" / "mine"  # by a process that was killed
    left.mkdir(parents=True)
    (left / "train.npz").write_bytes(b"half")
    assert run(*command) == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]
    out = capsys.readouterr().out
    assert "read as classes by folder; no splits in it; the class names are " in out
    assert "train 6, test 2 pictures of 8x8x3, 2 classes" in out
    names = {path.name for path in (tmp_path / "data" / "mine").iterdir()}
    assert names == {"train.npz", "test.npz", "contact_sheet.png"}


def test_a_download_that_fails_says_what_to_do(tmp_path, capsys, monkeypatch):
    module = importlib.import_module("dib_jax.data.builders.cifar10")
    archive = Archive("http://127.0.0.1:9/cifar-10-binary.tar.gz", "")
    monkeypatch.setattr(module, "ARCHIVES", (archive,))
    message = refused(capsys, "cifar10", f"--data_dir={tmp_path / 'data'}")
    assert message.startswith(f"data set 'cifar10' is not in {tmp_path / 'data'}, and")
    assert "http://127.0.0.1:9/cifar-10-binary.tar.gz could not be fetched: Conn" in (
        message
    )
    assert "download cifar-10-binary.tar.gz elsewhere and run `python -m" in message
    assert "--archives=DIR` with the folder that holds them" in message
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, capsys):
    place = f"--data_dir={tmp_path}"
    assert "give the name of one data set, got none" in refused(capsys, place)
    assert "got a b" in refused(capsys, "a", "b")
    assert "did you mean 'cifar10'?" in refused(capsys, "cifar11x", place)
    assert "'digits' is embedded" in refused(capsys, "digits", place)
    assert "must be a plain folder name" in refused(capsys, "../x", place)
    assert "--size goes with --source=FOLDER" in refused(capsys, "x", "--size=3")
    message = refused(capsys, "x", "--source=a", "--size=big")
    assert message == "--size: got 'big'; must be an integer"
    assert "do not go together" in refused(capsys, "x", "--source=a", "--archives=b")
    assert "there is no folder a" in refused(capsys, "x", "--source=a", place)
    assert "unknown flag --sorce" in refused(capsys, "x", "--sorce=a")
    assert not list(tmp_path.iterdir())


def test_help_lists_the_sets_and_flags(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    out = capsys.readouterr().out
    flags = ("--archives", "--source", "--skip_bad_boxes")
    for word in (*downloadable(), "gtsrb48", *flags):
        assert word in out
    assert max(map(len, out.splitlines())) <= 88
