import importlib
import pkgutil
import subprocess
import sys
import time

import numpy as np
import pytest

import dib_jax.data
from dib_jax.data import Dataset, known_names, load


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    dataset = load("digits", val_fraction=0)
    assert dataset.train["images"].shape == (1438, 8, 8, 1)
    assert dataset.test["images"].shape == (359, 8, 8, 1)
    assert dataset.train["images"].dtype == np.uint8
    assert dataset.train["labels"].dtype == np.int32
    assert dataset.class_names == tuple("0123456789")
    assert {0, 128, 255} <= set(np.unique(dataset.train["images"]))
    rows = [
        (label, *np.round(image.ravel() / 255 * 16))
        for split in (dataset.train, dataset.test)
        for image, label in zip(split["images"], split["labels"], strict=True)
    ]
    bunch = load_digits()
    original = np.column_stack([bunch.target, bunch.data])
    assert sorted(rows) == sorted(map(tuple, original))


def test_the_test_split_depends_on_no_seed_and_the_validation_split_does():
    first, second = load("digits", seed=1), load("digits", seed=2)
    np.testing.assert_array_equal(first.test["images"], second.test["images"])
    assert len(first.validation["labels"]) == len(second.validation["labels"]) == 144
    different = first.validation["images"] != second.validation["images"]
    assert different.any()
    again = load("digits", seed=1)
    for split in ("train", "validation"):
        for key, value in getattr(first, split).items():
            np.testing.assert_array_equal(value, getattr(again, split)[key])
    counts = np.bincount(first.test["labels"]) / np.bincount(first.train["labels"])
    np.testing.assert_allclose(counts, 0.2 / 0.72, rtol=0.05)


def test_at_a_fraction_of_zero_validation_is_empty_with_the_same_keys():
    dataset = load("digits", val_fraction=0)
    assert set(dataset.validation) == set(dataset.train)
    assert dataset.validation["images"].shape == (0, 8, 8, 1)
    assert dataset.validation["labels"].shape == (0,)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, np.nan])
def test_an_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match="val_fraction must be a number"):
        load("digits", val_fraction=fraction)


def write(folder, name, count=60, **extra):
    (folder / name).mkdir(parents=True)
    for split, rows in (("train", count), ("test", 6)):
        images = np.arange(rows * 4, dtype=np.uint8).reshape(rows, 2, 2, 1)
        arrays = {"images": images, "labels": np.arange(rows) % 3}
        if split == "train":
            arrays |= {key: value[:rows] for key, value in extra.items()}
        np.savez(folder / name / f"{split}.npz", **arrays)


def test_array_files_go_before_a_data_set_of_the_same_name(tmp_path):
    write(tmp_path, "digits")
    assert load("digits", data_dir=str(tmp_path)).test["images"].shape == (6, 2, 2, 1)


def test_no_group_is_on_both_sides_of_the_validation_split(tmp_path):
    write(tmp_path, "mine", groups=np.arange(60) // 6)
    dataset = load("mine", data_dir=str(tmp_path), val_fraction=0.3)
    groups = [set(split["groups"]) for split in (dataset.train, dataset.validation)]
    assert groups[0].isdisjoint(groups[1])
    assert len(groups[1]) == 3
    assert len(dataset.validation["labels"]) == 18


def test_groups_can_be_left_out_of_training_and_only_of_it(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    images = np.arange(40, dtype=np.uint8)[:, None, None, None]
    for split, first in (("train", 0), ("test", 100)):
        groups = first + np.arange(40) // 4
        np.savez(
            folder / f"{split}.npz",
            images=images, labels=np.arange(40) % 2, groups=groups,
        )  # fmt: skip

    def with_skipped(*skipped):
        return load("mine", data_dir=str(tmp_path), skip_groups=skipped)

    dataset = with_skipped(3, 7)
    there = np.concatenate([dataset.train["groups"], dataset.validation["groups"]])
    assert sorted(there) == sorted(g for g in np.arange(40) // 4 if g not in (3, 7))
    assert len(dataset.validation["labels"])
    assert len(dataset.test["labels"]) == 40
    assert "groups left out of training: 3, 7" in dataset.description
    with pytest.raises(ValueError, match=r"no group 100 in .* 10 groups .* 0 to 9$"):
        with_skipped(3, 100)
    with pytest.raises(ValueError, match="data set 'digits' has no groups"):
        load("digits", skip_groups=(1,))


def test_a_part_of_the_training_split_is_the_same_for_all_seeds(tmp_path):
    write(tmp_path, "mine", count=240, groups=np.arange(240))

    def numbers(seed, **changes):
        dataset = load(
            "mine", data_dir=str(tmp_path), seed=seed, val_fraction=0.25, **changes
        )
        splits = (dataset.train, dataset.validation)
        return dataset, [set(split["groups"]) for split in splits]

    dataset, (train, held) = numbers(0, samples=24)
    assert (len(train), len(held), len(dataset.test["labels"])) == (18, 6, 6)
    both = np.concatenate([dataset.train["labels"], dataset.validation["labels"]])
    np.testing.assert_array_equal(np.bincount(both), [8, 8, 8])
    _, (other_train, other_held) = numbers(1, samples=24)
    assert train | held == other_train | other_held
    assert held != other_held
    assert "24 of 240 training samples used" in dataset.description
    _, whole = numbers(0, samples=240)
    assert whole == numbers(0)[1]
    with pytest.raises(ValueError, match="samples: 241 of the 240 .* use 1 to 240"):
        numbers(0, samples=241)


def test_a_class_of_one_sample_is_in_a_large_part_of_the_training_split(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    labels = np.repeat([0, 1, 2], [50, 49, 1])
    images = np.zeros((100, 4, 4, 1), np.uint8)
    for split in ("train", "test"):
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    for samples in (99, 80, 60):
        dataset = load(
            "mine", data_dir=str(tmp_path), samples=samples, val_fraction=0.0
        )
        counts = np.bincount(dataset.train["labels"], minlength=3)
        assert counts[2] == 1
        assert counts.sum() == pytest.approx(samples, abs=1)


def test_a_part_of_fewer_samples_than_classes_has_no_more_than_was_asked(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    labels = np.arange(400) % 100
    images = np.zeros((400, 4, 4, 1), np.uint8)
    for split in ("train", "test"):
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    dataset = load("mine", data_dir=str(tmp_path), samples=50, val_fraction=0.0)
    assert len(dataset.train["labels"]) == 50


def test_a_given_validation_split_is_used_unless_the_fraction_is_zero(tmp_path):
    write(tmp_path, "mine")
    test = (tmp_path / "mine" / "test.npz").read_bytes()
    (tmp_path / "mine" / "validation.npz").write_bytes(test)
    dataset = load("mine", data_dir=str(tmp_path), val_fraction=0.5)
    assert (len(dataset.train["labels"]), len(dataset.validation["labels"])) == (60, 6)
    dataset = load("mine", data_dir=str(tmp_path), val_fraction=0)
    assert (len(dataset.train["labels"]), len(dataset.validation["labels"])) == (60, 0)
    with pytest.raises(ValueError, match="val_fraction must be a number"):
        load("mine", data_dir=str(tmp_path), val_fraction=np.nan)


def test_the_tfds_folder_is_looked_into_where_data_dir_is_empty(tmp_path, monkeypatch):
    write(tmp_path / "other", "mine")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "other"))
    assert load("mine").name == "mine"
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="tensorflow_datasets/mine"):
        load("mine")


def missing(name, **options):
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as error:
        load(name, **options)
    assert time.perf_counter() - start < 0.5
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_set_that_is_not_there_says_where_it_was_looked_for_and_what_to_do(tmp_path):
    message = missing("cifar10", data_dir=str(tmp_path))
    assert message.startswith("data set 'cifar10' was not found")
    assert (
        f"{tmp_path}/cifar10 holds neither array files (train.npz, test.npz)" in message
    )
    assert "images uint8 (n, h, w, c) and labels (n,)" in message
    assert "DIR/cifar10/train.npz" in message
    assert "set dataset.data_dir=DIR, or TFDS_DATA_DIR=DIR in the env" in message
    assert "that TFDS prepared" in message
    assert "Did you mean" not in message


def test_a_misspelt_name_is_answered_with_the_nearest_one(tmp_path):
    assert "Did you mean 'cifar10'?" in missing("cifra10", data_dir=str(tmp_path))
    assert "Did you mean 'digits'?" in missing("digit", data_dir=str(tmp_path))
    write(tmp_path, "roadsign")
    message = missing("roadsigns", data_dir=str(tmp_path))
    assert "Did you mean 'roadsign'?" in message
    assert "Known names: cifar10, cifar100, digits, fashion_mnist" in message


def test_a_missing_set_neither_imports_tfds_nor_asks_the_network(tmp_path):
    code = (
        "import sys, socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from dib_jax.data import load\n"
        "try:\n"
        "    load('cifar10', data_dir=sys.argv[1])\n"
        "except FileNotFoundError:\n"
        "    slow = {'tensorflow_datasets', 'jax', 'sklearn'}\n"
        "    print(sorted(slow & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("name", ["", "../x", "/etc", ".", "..", "a\\b"])
def test_a_name_that_leaves_the_folder_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="must be a plain folder name"):
        load(name, data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["augment", "split", "arrays", "dataset", "prepared"])
def test_the_machinery_is_no_data_set(name, tmp_path):
    missing(name, data_dir=str(tmp_path))


def test_every_other_module_makes_a_data_set_of_its_name():
    modules = {module.name for module in pkgutil.iter_modules(dib_jax.data.__path__)}
    assert set(known_names()) < modules
    for name in known_names():
        module = importlib.import_module(f"dib_jax.data.{name}")
        assert callable(getattr(module, name))


def own(data_dir):
    assert data_dir == "here"
    images = np.zeros((8, 2, 2, 1), np.uint8)
    split = {"images": images, "labels": np.arange(8) % 2}
    return Dataset("any", split, {}, split, ("a", "b"), "one's own")


def own_with_bad_labels(data_dir):
    dataset = own("here")
    dataset.train["labels"] = np.arange(8)
    return dataset


def own_of_another_type(data_dir):
    return {}


def test_a_function_of_ones_own_is_found_by_module_and_name():
    dataset = load(f"{__name__}:own", data_dir="here", val_fraction=0.5)
    assert dataset.name == f"{__name__}:own"
    assert [len(split["labels"]) for split in dataset[1:4]] == [4, 4, 8]


def test_what_ones_own_function_returns_is_checked():
    with pytest.raises(
        ValueError, match="train split: labels must be 0..1, row 2 hold"
    ):
        load(f"{__name__}:own_with_bad_labels")
    with pytest.raises(
        ValueError, match="must return a dib_jax.data.Dataset, got dict"
    ):
        load(f"{__name__}:own_of_another_type")
    for name in ("no_such_module:x", f"{__name__}:nothing", ":x"):
        with pytest.raises(ValueError, match="must be module:function"):
            load(name)
