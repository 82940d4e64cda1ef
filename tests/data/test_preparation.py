import importlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tiny_archives

from dib_jax import data
from dib_jax.data.preparation import downloadable, is_prepared, prepare

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(autouse=True)
def any_digest(monkeypatch):
    """Tiny archives have other digests than the official ones."""
    for name in downloadable():
        module = importlib.import_module(f"dib_jax.data.builders.{name}")
        archives = tuple(entry._replace(digest="") for entry in module.ARCHIVES)
        monkeypatch.setattr(module, "ARCHIVES", archives)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


def refuse(*arguments, **options):
    raise AssertionError("network")


@pytest.fixture
def archives(tmp_path):
    (tmp_path / "archives").mkdir()
    return tmp_path / "archives"


def made(name, archives, **options):
    root = archives.parent / "data"
    expected = getattr(tiny_archives, name)(archives, **options)
    return expected, prepare(name, root, archives=str(archives), report=print).parent


def in_any_order(images, labels):
    return sorted(
        (image.tobytes(), int(label))
        for image, label in zip(images, labels, strict=True)
    )


PLAIN = ["cifar10", "cifar100", "fashion_mnist", "mnist", "svhn_cropped"]


def test_these_sets_can_be_downloaded():
    assert downloadable() == tuple(sorted([*PLAIN, "gtsrb"]))


@pytest.mark.parametrize("name", PLAIN)
def test_a_prepared_set_holds_what_the_archives_hold(name, archives, capfd):
    expected, root = made(name, archives)
    dataset = data.load(name, data_dir=str(root), val_fraction=0)
    for split in ("train", "test"):
        arrays = getattr(dataset, split)
        found = in_any_order(arrays["images"], arrays["labels"])
        assert found == in_any_order(*expected[split])
        # Plain TFDS reads the same files.
        source = tfds.data_source(name, data_dir=root, split=split)
        assert in_any_order(
            [source[i]["image"] for i in range(len(source))],
            [source[i]["label"] for i in range(len(source))],
        ) == in_any_order(*expected[split])
    assert "tensorflow" not in sys.modules
    # One line of ours for each thing; nothing of TFDS' own.
    lines = capfd.readouterr().out.splitlines()
    assert all(line.startswith(f"{name}: written to") for line in lines)


@pytest.mark.parametrize("name", PLAIN)
def test_name_version_and_features_are_those_of_tfds_own_builder(name, archives):
    _, root = made(name, archives)
    own = tfds.builder_cls(name)
    (folder,) = root.glob(f"{name}/*/")
    assert folder.name == str(own.VERSION)
    found = tfds.builder_from_directory(folder).info.features
    assert repr(found) == repr(own(data_dir=root / "empty").info.features)


def test_class_names_stand_in_the_archive(archives):
    _, root = made("cifar10", archives)
    names = data.load("cifar10", data_dir=str(root), val_fraction=0).class_names
    assert names[:2] == ("airplane", "automobile")
    assert len(names) == 10


OFFICIAL = """
import importlib, pathlib, sys
import tensorflow_datasets as tfds
for name in sys.argv[1:]:
    module = importlib.import_module(f"dib_jax.data.builders.{name}")
    known = tfds.builder_cls(name).url_infos
    for archive in module.ARCHIVES:
        assert archive.digest == f"sha256:{known[archive.url].checksum}", archive
"""


def test_the_official_digests_are_those_that_tfds_records():
    command = [sys.executable, "-c", OFFICIAL, *PLAIN]
    subprocess.run(command, check=True)


def test_gtsrb_has_boxes_and_tracks_as_groups(archives):
    (images, labels, boxes, groups), root = made("gtsrb", archives)
    dataset = data.load("gtsrb", data_dir=str(root), val_fraction=0, boxes=True)
    train = dataset.train
    assert train["images"].shape == (12, 32, 32, 3)
    assert len(dataset.class_names) == 43
    assert dataset.class_names[14] == "Stop"
    order = np.lexsort((train["boxes"][:, 0], train["groups"]))
    expected = np.lexsort((boxes[:, 0], groups))
    np.testing.assert_array_equal(train["groups"][order], groups[expected])
    np.testing.assert_array_equal(train["labels"][order], labels[expected])
    np.testing.assert_allclose(train["boxes"][order], boxes[expected], atol=1e-5)
    kept = {image.tobytes() for image in images if image is not None}
    assert kept < {image.tobytes() for image in train["images"]}
    assert "groups" not in dataset.test  # its tracks are not known
    np.testing.assert_allclose(dataset.test["boxes"], [[1, 2, 30, 31]] * 4, atol=1e-5)
    assert sorted(dataset.test["labels"]) == [0, 0, 14, 14]


def test_no_track_is_on_both_sides_of_the_validation_split(archives):
    _, root = made("gtsrb", archives)
    for seed in range(5):
        dataset = data.load("gtsrb", data_dir=str(root), val_fraction=0.5, seed=seed)
        kept, held = set(dataset.train["groups"]), set(dataset.validation["groups"])
        assert kept.isdisjoint(held)
        assert len(kept) == len(held) == 2
        assert len(dataset.validation["labels"]) == 6


def test_gtsrb_at_another_size_is_a_set_of_its_own(archives):
    tiny_archives.gtsrb(archives)
    root = archives.parent / "data"
    assert prepare("gtsrb48", root, archives=str(archives)) == root / "gtsrb48"
    dataset = data.load("gtsrb48", data_dir=str(root), val_fraction=0, boxes=True)
    assert dataset.test["images"].shape == (4, 48, 48, 3)
    expected = [[1.5, 3, 45, 46.5]] * 4
    np.testing.assert_allclose(dataset.test["boxes"], expected, atol=1e-4)
    for name in ("gtsrb32", "gtsrb5000"):
        with pytest.raises(ValueError, match="8 to 512 pixels a side; at 32 the set's"):
            prepare(name, root, archives=str(archives))


def test_a_set_that_is_there_is_not_made_again(archives):
    _, root = made("mnist", archives)
    shutil.rmtree(archives)
    assert is_prepared("mnist", root)
    assert prepare("mnist", root, report=refuse) == root / "mnist"


def refused(name, archives, **options):
    """The message of a refusal, after which nothing may have been left."""
    root = archives.parent / "data"
    if options:
        getattr(tiny_archives, name)(archives, **options)
    with pytest.raises(ValueError, match=str(archives)) as error:
        prepare(name, root, archives=str(archives))
    assert "\n" not in str(error.value)
    assert not is_prepared(name, root)
    assert not [path for path in root.rglob("*") if path.is_file()]
    return str(error.value)


def test_an_unknown_class_is_refused(archives):
    message = refused("cifar10", archives, last_label=10)
    assert "unknown class 10, label of the test picture 5; there are 10" in message
    message = refused("gtsrb", archives, bad_class=43)
    assert "GT-final_test.csv, row 3: unknown class 43; must be 0..42" in message


@pytest.mark.parametrize("box", [[1, 2, 33, 31], [-1, 2, 3, 4], [5, 2, 5, 9]])
def test_a_box_outside_its_picture_or_without_area_is_refused(archives, box):
    message = refused("gtsrb", archives, bad_box=box)
    assert f"GT-final_test.csv, row 3: box {box} has no area or leaves" in message


def test_a_truncated_picture_is_refused(archives):
    message = refused("gtsrb", archives, cut=True)
    assert "GTSRB/Final_Test/Images/00003.ppm is no picture, or truncated" in message
    members = {
        "cifar-10-batches-bin/batches.meta.txt": "\n".join("abcdefghij").encode()
    }
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    members |= {f"cifar-10-batches-bin/{name}": bytes(3000) for name in names}
    tiny_archives.write_tar(archives / "cifar-10-binary.tar.gz", members)
    message = refused("cifar10", archives)
    assert "data_batch_1.bin: 3000 bytes are not a whole number of pictures" in message
    tiny_archives.mnist(archives)
    short = tiny_archives.idx(np.zeros((3, 28, 28)))
    (archives / "t10k-images-idx3-ubyte.gz").write_bytes(short)
    message = refused("mnist", archives)
    assert "4 labels for the 3 pictures of t10k-images-idx3-ubyte.gz" in message


@pytest.mark.parametrize("name", ["cifar10", "gtsrb", "mnist", "svhn_cropped"])
def test_a_cut_archive_is_refused(name, archives):
    getattr(tiny_archives, name)(archives)
    for path in archives.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])
    assert "damaged or cut off" in refused(name, archives)


def test_a_missing_member_is_refused(archives):
    tiny_archives.gtsrb(archives)
    with zipfile.ZipFile(archives / "GTSRB_Final_Test_GT.zip", "w") as empty:
        empty.writestr("other.csv", "")
    assert "there is no GT-final_test.csv in it" in refused("gtsrb", archives)


def test_a_wrong_number_of_class_names_is_refused(archives):
    tiny_archives.cifar10(archives, names=("a", "b"))
    assert "2 names for the 10 classes of label" in refused("cifar10", archives)


def test_an_unknown_name_is_answered_with_the_nearest_one(tmp_path):
    with pytest.raises(ValueError, match="cannot be downloaded; .* 'cifar10'\\?"):
        prepare("cifar11x", tmp_path)
    with pytest.raises(FileNotFoundError, match="--archives: there is no folder"):
        prepare("cifar10", tmp_path, archives=str(tmp_path / "nowhere"))
