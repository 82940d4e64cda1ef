import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dib_jax.data import load
from dib_jax.data.prepared import find_prepared

tfds = pytest.importorskip("tensorflow_datasets")


def png(picture):
    # Of a file TFDS stores the bytes; to encode an array it would need TensorFlow.
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return io.BytesIO(file.getvalue())


def pictures(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Of the name and version of TFDS' own builder."""

    VERSION = tfds.core.Version("3.0.2")
    pkg_dir_path = None
    size = 8

    def _info(self):
        names = ["plane", "car", "bird"]
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(8, 8, 3)),
            "label": tfds.features.ClassLabel(names=names),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            description="Small pictures.",
            homepage="https://example.org",
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(30),
            "test": self._generate_examples(9),
        }

    def _generate_examples(self, count):
        for row, picture in enumerate(pictures(count, seed=count)):
            yield row, {"id": str(row), "image": png(picture), "label": row % 3}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    Cifar10(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def by_content(split):
    return sorted(
        (image.tobytes(), int(label))
        for image, label in zip(split["images"], split["labels"], strict=True)
    )


def test_a_set_that_tfds_prepared_is_read_without_tensorflow(data_dir, capfd):
    dataset = load("cifar10", data_dir=str(data_dir), val_fraction=0)
    for split, count in ((dataset.train, 30), (dataset.test, 9)):
        written = {
            "images": pictures(count, seed=count),
            "labels": np.arange(count) % 3,
        }
        assert by_content(split) == by_content(written)  # TFDS shuffles
        assert split["images"].dtype == np.uint8
        assert split["labels"].dtype == np.int32
    assert dataset.class_names == ("plane", "car", "bird")
    assert dataset.description == "cifar10 3.0.2 as prepared by TFDS"
    assert "tensorflow" not in sys.modules
    assert capfd.readouterr() == ("", "")


def test_plain_tfds_reads_the_same_directory(data_dir):
    source = tfds.data_source("cifar10", data_dir=data_dir, split="test")
    dataset = load("cifar10", data_dir=str(data_dir))
    np.testing.assert_array_equal(source[4]["image"], dataset.test["images"][4])


class Mixed(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures of 16 bits, and splits under other names."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = None

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        names = ("train", "val", "test", "extra")
        return {name: self._generate_examples() for name in names}

    def _generate_examples(self):
        for row in range(4):
            picture = np.full((4, 4), 257 * 50 * row, np.uint16)
            yield row, {"image": png(picture), "label": row % 2}


def test_pictures_of_tfds_are_read_as_all_others_and_its_splits_are_used(tmp_path):
    Mixed(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    dataset = load("mixed", data_dir=str(tmp_path))
    for split in (dataset.train, dataset.validation, dataset.test):
        assert sorted(split["images"][:, 2, 2, 0]) == [0, 50, 100, 150]
    end = "as prepared by TFDS; not used: extra"
    assert dataset.description == f"mixed 1.0.0 {end}"


def test_no_network_is_asked(data_dir):
    code = (
        "import sys, socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from dib_jax.data import load\n"
        "print(len(load('cifar10', data_dir=sys.argv[1]).test['labels']))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(data_dir)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("9\n", "")


def test_array_files_go_before_a_prepared_directory(data_dir, tmp_path):
    copy = tmp_path / "cifar10"
    copy.mkdir()
    (copy / "3.0.2").symlink_to(data_dir / "cifar10" / "3.0.2")
    arrays = {"images": np.zeros((4, 2, 2, 1), np.uint8), "labels": [0, 1, 0, 1]}
    for split in ("train", "test"):
        np.savez(copy / f"{split}.npz", **arrays)
    dataset = load("cifar10", data_dir=str(tmp_path), val_fraction=0)
    assert dataset.test["images"].shape == (4, 2, 2, 1)


def prepared_copy(data_dir, folder, **changes):
    """A copy whose dataset_info.json is changed."""
    version = folder / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    for file in (data_dir / "cifar10" / "3.0.2").iterdir():
        (version / file.name).write_bytes(file.read_bytes())
    info = json.loads((version / "dataset_info.json").read_text())
    (version / "dataset_info.json").write_text(json.dumps(info | changes))
    return version


def error_of(folder):
    with pytest.raises(ValueError, match="cifar10") as error:
        load("cifar10", data_dir=str(folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_tfrecord_directory_is_refused_with_what_to_do(data_dir, tmp_path):
    version = prepared_copy(data_dir, tmp_path, fileFormat="tfrecord")
    message = error_of(tmp_path)
    assert f"{version}: prepared as tfrecord, which only TensorFlow reads" in message
    assert "file_format=array_record" in message


def test_array_record_beside_tfrecord_is_read(data_dir, tmp_path):
    formats = {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    prepared_copy(data_dir, tmp_path, **formats)
    assert len(load("cifar10", data_dir=str(tmp_path)).test["labels"]) == 9


def test_damaged_files_are_one_line(data_dir, tmp_path):
    version = prepared_copy(data_dir, tmp_path)
    (file,) = version.glob("*train.array_record*")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert str(version) in error_of(tmp_path)
    file.unlink()
    assert str(version) in error_of(tmp_path)
    (version / "dataset_info.json").write_text("{")
    assert f"{version / 'dataset_info.json'}: cannot be read" in error_of(tmp_path)


def test_a_set_without_a_test_split_or_labels_is_refused(data_dir, tmp_path):
    version = prepared_copy(data_dir, tmp_path)
    info = json.loads((version / "dataset_info.json").read_text())
    del info["splits"][1]
    (version / "dataset_info.json").write_text(json.dumps(info))
    assert "has no test split, only train" in error_of(tmp_path)
    features = (version / "features.json").read_text().replace('"label"', '"kind"')
    (version / "features.json").write_text(features)
    assert "has no feature 'label', only " in error_of(tmp_path)


def test_the_newest_version_is_taken_by_number(tmp_path):
    for version in ("3.0.2", "3.0.10", "2.9.9", "incomplete.3.0.11_x", "downloads"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "dataset_info.json").touch()
    assert find_prepared(tmp_path).name == "3.0.10"
    (tmp_path / "empty").mkdir()
    assert find_prepared(tmp_path / "empty") is None
