import contextlib
import io
import zipfile

import numpy as np
import pytest

from dib_jax.data import load


def arrays(count=12, **changes):
    """A sound split; a change of None leaves the array out."""
    base = {
        "images": np.arange(count * 4 * 6 * 3, dtype=np.uint8).reshape(count, 4, 6, 3),
        "labels": np.arange(count) % 3,
        "class_names": np.array(["a", "b", "c"]),
        "description": "three kinds",
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


def write(folder, train=None, test=None, validation=None):
    folder = folder / "mine"
    folder.mkdir()
    np.savez(folder / "train.npz", **(train or arrays()))
    np.savez(folder / "test.npz", **(test or arrays(6)))
    if validation:
        np.savez(folder / "validation.npz", **validation)
    return folder


def error_of(folder, *, kind=ValueError, **options):
    with pytest.raises(kind, match=".") as error:
        load("mine", data_dir=str(folder), **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_array_files_come_back_as_they_were_written(tmp_path):
    folder = write(tmp_path, validation=arrays(9))
    dataset = load("mine", data_dir=str(tmp_path))
    for split in ("train", "validation", "test"):
        written, read = np.load(folder / f"{split}.npz"), getattr(dataset, split)
        np.testing.assert_array_equal(read["images"], written["images"])
        np.testing.assert_array_equal(read["labels"], written["labels"])
        assert (read["images"].dtype, read["labels"].dtype) == (np.uint8, np.int32)
        assert set(read) == {"images", "labels"}
    assert dataset.name == "mine"
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.description == "three kinds"
    assert dataset.skipped == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64, ">i4"])
def test_labels_of_any_integer_type_become_int32(tmp_path, dtype):
    write(tmp_path, arrays(labels=(np.arange(12) % 3).astype(dtype)))
    labels = load("mine", data_dir=str(tmp_path), val_fraction=0).train["labels"]
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, np.arange(12) % 3)


def test_without_class_names_the_classes_are_called_by_their_number(tmp_path):
    labels = np.array([0, 1, 0, 1, 4, 4])
    write(
        tmp_path, arrays(class_names=None), arrays(6, labels=labels, class_names=None)
    )
    names = load("mine", data_dir=str(tmp_path)).class_names
    assert names == ("0", "1", "2", "3", "4")


def test_compressed_files_and_the_home_folder_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = write(tmp_path)
    np.savez_compressed(folder / "train.npz", **arrays(15))
    assert len(load("mine", data_dir="~", val_fraction=0).train["labels"]) == 15


def test_boxes_box_labels_and_groups_are_kept(tmp_path):
    boxes = np.tile(np.array([0, 1, 2, 3]), (12, 2, 1))
    box_labels = np.tile(np.array([1, -1]), (12, 1))
    extra = {"boxes": boxes, "box_labels": box_labels, "groups": np.arange(12) // 2}
    write(tmp_path, arrays(**extra))
    dataset = load("mine", data_dir=str(tmp_path), val_fraction=0.2)
    assert set(dataset.train) == set(dataset.validation) == {*extra, "images", "labels"}
    assert dataset.train["boxes"].dtype == np.float32
    assert dataset.train["box_labels"].dtype == np.int32
    assert set(dataset.test) == {"images", "labels"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "no array 'images'"),
        ({"labels": None}, "no array 'labels'"),
        ({"images": np.zeros((12, 4, 6, 3))}, "images must be uint8 .* got float64"),
        ({"images": np.zeros((12, 4, 6), np.uint8)}, r"\(12, 4, 6\): add the channel"),
        ({"images": np.zeros((12, 4, 0, 3), np.uint8)}, r"got \(12, 4, 0, 3\)"),
        (
            {"labels": np.arange(11) % 3},
            r"labels must have shape \(12,\).* got \(11,\)",
        ),
        (
            {"labels": np.zeros((12, 1), int)},
            r"labels must have shape .* got \(12, 1\)",
        ),
        ({"labels": np.zeros(12)}, "labels must be integers, got float64"),
        ({"labels": np.array(["a"] * 12)}, "labels must be integers, got <U1"),
        ({"class_names": np.arange(3)}, "class_names must be strings .* int64"),
        ({"class_names": np.array("abc")}, r"class_names must be strings .* \(\)"),
        ({"description": np.arange(3)}, "description must be one string, got int64"),
        ({"groups": np.zeros(12)}, "groups must be integers of shape .* float64"),
        ({"groups": np.zeros(5, int)}, r"groups must be integers of .* int64 \(5,\)"),
        ({"boxes": np.zeros((12, 5))}, r"boxes must have shape .* got \(12, 5\)"),
        ({"boxes": np.zeros((11, 4))}, r"boxes must have shape .* got \(11, 4\)"),
        ({"boxes": np.array([["x"] * 4] * 12)}, "boxes must be float32, got <U1"),
        ({"boxes": np.zeros((12, 2, 4))}, "need box_labels"),
        (
            {"box_labels": np.zeros((12, 2), int)},
            "box_labels of shape .* boxes of shape",
        ),
        ({"box": np.zeros((12, 4))}, "unknown array 'box'; did you mean 'boxes'?"),
        ({"class_name": np.array(["a"]), "class_names": None}, "mean 'class_names'"),
    ],
)
def test_a_wrong_array_is_named_with_its_file(tmp_path, changes, message):
    folder = write(tmp_path, arrays(**changes))
    found = error_of(tmp_path)
    assert found.startswith(str(folder / "train.npz"))
    with pytest.raises(ValueError, match=message):
        load("mine", data_dir=str(tmp_path))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_label_out_of_range_is_told_by_file_row_value_and_count(tmp_path, split):
    labels = np.arange(12) % 3
    labels[[5, 7, 11]] = 3, -1, 900
    folder = write(tmp_path, **{split: arrays(labels=labels)})
    path = folder / f"{split}.npz"
    message = f"{path}: labels must be 0..2, row 5 holds 3; 3 bad row(s)"
    assert error_of(tmp_path) == message


@pytest.mark.parametrize("value", [-1, 2**31, 2**40])
def test_without_class_names_labels_must_still_fit(tmp_path, value):
    labels = np.arange(12) % 3
    labels[4] = value
    write(tmp_path, arrays(labels=labels, class_names=None), arrays(class_names=None))
    message = f"labels must be >= 0 (and fit int32), row 4 holds {value}; 1 bad row(s)"
    assert message in error_of(tmp_path)


def test_one_box_with_a_label_of_its_own_is_a_list_of_one(tmp_path):
    boxes = np.tile(np.float32([1, 1, 3, 3]), (12, 1))
    boxes[2] = np.nan
    labels = np.where(np.arange(12) == 2, -1, np.arange(12) % 3)
    write(tmp_path, arrays(boxes=boxes, box_labels=labels))
    train = load("mine", data_dir=str(tmp_path), val_fraction=0).train
    assert train["boxes"].shape == (12, 1, 4)
    np.testing.assert_array_equal(train["box_labels"], labels[:, None])


def test_a_box_label_out_of_range_is_told_by_row_and_value(tmp_path):
    box_labels = np.tile([0, -1], (12, 1))
    box_labels[3] = 1, 3
    box_labels[6] = -2, 4
    changes = {"boxes": np.ones((12, 2, 4)), "box_labels": box_labels}
    write(tmp_path, arrays(**changes))
    assert "box_labels must be -1..2, row 3 holds 3; 2 bad row(s)" in error_of(tmp_path)


def test_one_class_is_not_enough(tmp_path):
    write(tmp_path, arrays(labels=np.full(12, 2)))
    assert "at least two classes, all 12 labels are 2" in error_of(tmp_path)


def test_one_class_name_is_not_enough(tmp_path):
    split = arrays(labels=np.zeros(12, int), class_names=None)
    write(tmp_path, split, split)
    assert "at least two classes, got class_names ['0']" in error_of(tmp_path)


def test_two_classes_of_one_name_are_refused(tmp_path):
    split = arrays(class_names=np.array(["a", "b", "a"]))
    write(tmp_path, split, split)
    assert "several classes are named 'a'" in error_of(tmp_path)


def test_an_empty_split_is_refused(tmp_path):
    empty = arrays(0, labels=np.zeros(0, int))
    write(tmp_path, test=empty)
    assert "its test split is empty" in error_of(tmp_path)


def test_pictures_of_another_shape_in_another_split_are_refused(tmp_path):
    write(tmp_path, test=arrays(images=np.zeros((12, 4, 5, 3), np.uint8)))
    assert "train have shape (4, 6, 3), those of test (4, 5, 3)" in error_of(tmp_path)


def test_other_class_names_in_another_split_are_refused(tmp_path):
    folder = write(tmp_path, test=arrays(class_names=np.array(["a", "c", "b"])))
    assert f"{folder / 'test.npz'}: class_names are not those" in error_of(tmp_path)


def test_a_group_on_both_sides_is_refused(tmp_path):
    groups = {"groups": np.arange(12) // 2}
    write(tmp_path, arrays(**groups), test=arrays(groups=np.arange(12) + 5))
    assert "group 5 lies in train and in test" in error_of(tmp_path)


@pytest.mark.parametrize("key", ["images", "labels", "boxes", "class_names"])
def test_a_pickled_object_is_refused_and_never_loaded(tmp_path, key):
    folder = write(tmp_path, arrays(**{key: np.array([{"a": 1}, None] * 6)}))
    message = error_of(tmp_path)
    assert (
        f"{folder / 'train.npz'}: array {key!r} holds pickled Python objects" in message
    )


def test_a_file_cut_anywhere_is_one_line(tmp_path):
    folder = write(tmp_path)
    whole = (folder / "train.npz").read_bytes()
    for part in range(0, 20):
        (folder / "train.npz").write_bytes(whole[: len(whole) * part // 20])
        assert str(folder / "train.npz") in error_of(tmp_path)


def test_a_flipped_bit_in_the_data_is_noticed(tmp_path):
    folder = write(tmp_path)
    whole = bytearray((folder / "train.npz").read_bytes())
    whole[len(whole) // 2] ^= 1
    (folder / "train.npz").write_bytes(whole)
    message = error_of(tmp_path)
    assert f"{folder / 'train.npz'}: array " in message
    assert "CRC" in message


def test_a_flipped_byte_in_the_directory_of_a_file_is_one_line(tmp_path):
    folder = write(tmp_path)
    whole = (folder / "train.npz").read_bytes()
    start = whole.index(b"PK\1\2")
    right = 0
    for place in range(start, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (folder / "train.npz").write_bytes(damaged)
        with contextlib.suppress(ValueError):
            load("mine", data_dir=str(tmp_path), val_fraction=0)
            right += 1  # in a date or a number that is not used
    assert 5 < right < len(range(start, len(whole), 7)) - 10


def test_an_encrypted_file_is_one_line(tmp_path):
    folder = write(tmp_path)
    content = (folder / "test.npz").read_bytes()
    start = content.index(b"PK\1\2")
    content = (
        content[:6] + b"\1" + content[7 : start + 8] + b"\1" + content[start + 9 :]
    )
    (folder / "test.npz").write_bytes(content)
    assert "is encrypted, password required" in error_of(tmp_path)


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "dev", "Test"])
def test_a_file_that_is_nearly_named_like_a_split_is_refused(tmp_path, name):
    folder = write(tmp_path)
    np.savez(folder / f"{name}.npz", **arrays())
    assert f"{name}.npz: a file of this name is not read" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((12, 3, 8, 6), np.uint8), "seem to have their channels first"),
        (np.zeros((12, 1, 8, 8), np.uint8), "seem to have their channels first"),
        (np.zeros((12, 4, 8, 8), np.uint8), "seem to have their channels first"),
        (np.ones((12, 8, 8, 1), np.uint8), "hold only 0 and 1, and white is 255"),
        (np.zeros((12, 8, 8, 1), np.uint16), "must be uint8 .* got uint16"),
        (np.zeros((12, 8, 8, 1), bool), "must be uint8 .* got bool"),
    ],
)
def test_pictures_in_another_convention_are_refused(tmp_path, images, message):
    write(tmp_path, arrays(images=images), arrays(images=images))
    with pytest.raises(ValueError, match=message):
        load("mine", data_dir=str(tmp_path))


def test_labels_in_another_convention_are_refused(tmp_path):
    plain = {"class_names": None}
    split = arrays(labels=np.arange(12) % 3 + 1, **plain)
    folder = write(tmp_path, split, split)
    assert "its labels begin at 1; count them from 0" in error_of(tmp_path)
    labels = np.arange(12) % 3
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", **arrays(labels=labels, **plain))
    load("mine", data_dir=str(tmp_path))
    labels[4] = 255
    np.savez(folder / "test.npz", **arrays(labels=labels, **plain))
    assert "classes 0 to 2 and labels of 255, which often means" in error_of(tmp_path)
    labels[4] = 9999
    np.savez(folder / "test.npz", **arrays(labels=labels, **plain))
    assert "labels go up to 9999, and only 4 of these" in error_of(tmp_path)
    labels[4] = 255
    np.savez(folder / "test.npz", **arrays(labels=labels, **plain))
    np.savez(folder / "train.npz", **arrays(512, labels=np.arange(512) // 2, **plain))
    assert len(load("mine", data_dir=str(tmp_path)).class_names) == 256


def test_classes_that_train_lacks_are_said(tmp_path):
    write(tmp_path, arrays(labels=np.arange(12) % 2), arrays(6))
    description = load("mine", data_dir=str(tmp_path)).description
    assert description == "three kinds; train lacks 1 class (c)"


def test_boxes_in_shares_of_the_sides_are_refused(tmp_path):
    boxes = np.array([[0.25, 0.25, 1, 1]] * 12)
    write(tmp_path, arrays(boxes=boxes), arrays(6, boxes=boxes[:6]))
    message = "boxes lie in 0..1, as shares of the sides do; multiply them by the width"
    assert message in error_of(tmp_path, boxes=True)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip file at all", "npy"])
def test_a_file_of_another_kind_is_one_line(tmp_path, content):
    folder = write(tmp_path)
    if content == "npy":
        content = io.BytesIO()
        np.save(content, np.zeros(3))
        content = content.getvalue()
    (folder / "test.npz").write_bytes(content)
    assert error_of(tmp_path).startswith(f"{folder / 'test.npz'}: not an .npz file")


def test_a_zip_file_of_something_else_is_one_line(tmp_path):
    folder = write(tmp_path)
    with zipfile.ZipFile(folder / "test.npz", "w") as archive:
        archive.writestr("images", b"text")
    assert f"{folder / 'test.npz'}: 'images' is not a NumPy array" in error_of(tmp_path)
    with zipfile.ZipFile(folder / "test.npz", "w") as archive:
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00\xff\xff{")
    assert f"{folder / 'test.npz'}: array 'labels' cannot be" in error_of(tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_named(tmp_path, split):
    folder = write(tmp_path)
    (folder / f"{split}.npz").unlink()
    message = error_of(tmp_path, kind=FileNotFoundError)
    assert f"no {split} split: {folder / split}.npz is missing" in message


GOOD = [1, 1, 3, 3]
BAD = [
    [np.nan, 1, 3, 3],
    [1, 1, np.inf, 3],
    [3, 1, 1, 3],
    [1, 2, 3, 2],
    [-1, 1, 3, 3],
    [1, 1, 7, 3],
    [1, 1, 3, 4.5],
]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_box_is_told_by_file_row_value_and_count(tmp_path, bad):
    boxes = np.array([GOOD] * 12, np.float32)
    boxes[[4, 9]] = bad
    folder = write(tmp_path, arrays(boxes=boxes), arrays(6, boxes=boxes[:4]
                   .repeat(2, 0)[:6]))  # fmt: skip
    message = error_of(tmp_path, boxes=True)
    assert message.startswith(f"{folder / 'train.npz'}: boxes must be finite")
    assert f"row 4 holds {[float(side) for side in bad]}; 2 bad row(s)" in message
    assert "inside the picture of 6x4 pixels" in message
    assert "dataset.skip_bad_boxes=True leaves them out" in message


def test_boxes_are_not_looked_at_by_a_task_without_them(tmp_path):
    write(tmp_path, arrays(boxes=np.full((12, 4), np.nan)))
    assert (
        len(load("mine", data_dir=str(tmp_path), val_fraction=0).train["boxes"]) == 12
    )


def test_a_task_with_boxes_needs_them_in_every_split(tmp_path):
    folder = write(tmp_path, arrays(boxes=np.array([GOOD] * 12)))
    assert f"{folder / 'test.npz'}: no array 'boxes'" in error_of(tmp_path, boxes=True)


def test_a_box_may_touch_the_border(tmp_path):
    boxes = np.tile(np.float32([0, 0, 6.0000005, 4]), (12, 1))
    write(tmp_path, arrays(boxes=boxes), arrays(6, boxes=boxes[:6]))
    load("mine", data_dir=str(tmp_path), boxes=True)


def test_bad_boxes_are_skipped_and_counted_on_request(tmp_path):
    boxes = np.array([GOOD] * 12, np.float32)
    boxes[[4, 9]] = BAD[0]
    folder = write(tmp_path, arrays(boxes=boxes), arrays(6, boxes=boxes[:6]))
    dataset = load("mine", data_dir=str(tmp_path), val_fraction=0, boxes=True,
                   skip_bad_boxes=True)  # fmt: skip
    rows = [row for row in range(12) if row not in (4, 9)]
    whole = np.load(folder / "train.npz")
    np.testing.assert_array_equal(dataset.train["images"], whole["images"][rows])
    np.testing.assert_array_equal(dataset.train["labels"], whole["labels"][rows])
    assert dataset.skipped == 3
    note = "three kinds; rows with bad boxes left out: train 2, test 1"
    assert dataset.description == note


def test_places_without_a_box_are_not_looked_at(tmp_path):
    boxes = np.array([[GOOD, [-1] * 4, [np.nan] * 4]] * 12, np.float32)
    box_labels = np.tile([1, -1, -1], (12, 1))
    good = arrays(boxes=boxes, box_labels=box_labels)
    folder = write(tmp_path, good, good)
    load("mine", data_dir=str(tmp_path), boxes=True)
    box_labels[7, 1] = 2
    np.savez(folder / "train.npz", **arrays(boxes=boxes, box_labels=box_labels))
    assert "row 7 holds [-1.0, -1.0, -1.0, -1.0]; 1 bad row(s)" in (
        error_of(tmp_path, boxes=True)
    )
