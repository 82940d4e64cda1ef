import numpy as np

from dib_jax.data import Dataset, load
from dib_jax.data.duplicates import count_duplicates, describe_duplicates


def test_pictures_of_train_in_the_other_splits_are_counted():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)

    def split(rows):
        return {"images": images[rows], "labels": np.zeros(len(rows), np.int32)}

    made = Dataset("x", split(range(10)), split([3, 11]), split([0, 0, 9, 12]), (), "")
    assert count_duplicates(made) == {"test": 3, "validation": 1}
    assert describe_duplicates(made) == (
        "exact duplicates of training pictures: 3 of 4 test pictures, 1 of 2 "
        "validation pictures"
    )
    made.test["images"][0, 0, 0, 0] ^= 1  # one grey level is another picture
    assert count_duplicates(made)["test"] == 2


def test_a_training_picture_that_stands_in_two_classes_is_said():
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), np.uint8)
    rows, labels = [0, 1, 2, 0, 1], np.array([0, 1, 1, 1, 1], np.int32)
    train = {"images": images[rows], "labels": labels}
    nothing = {"images": images[:0], "labels": labels[:0]}
    made = Dataset("x", train, nothing, nothing, ("a", "b"), "")
    assert describe_duplicates(made).endswith(
        "; 2 training pictures stand in several classes"
    )


def test_the_digits_hold_no_picture_twice():
    assert count_duplicates(load("digits")) == {"test": 0, "validation": 0}
