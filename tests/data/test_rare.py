"""Repeated samples of rare classes."""

import numpy as np
import pytest

from dib_jax.data import load
from dib_jax.data.rare import repeat_rare


def how_often(train, share, seed=0):
    train = train | {"row": np.arange(len(train["labels"]))}
    rows = repeat_rare(train, share, seed=seed)["row"]
    return np.bincount(rows, minlength=len(train["labels"]))


def test_a_class_counts_as_often_as_the_root_of_share_by_frequency():
    labels = np.repeat([0, 1], [960, 40])
    times = how_often({"labels": labels}, 0.36)
    assert (times[labels == 0] == 1).all()
    assert (times[labels == 1] == 3).all()  # √(0.36 / 0.04)


def test_a_broken_number_holds_on_average_and_every_sample_stays():
    labels = np.repeat([0, 1], [9000, 1000])
    times = how_often({"labels": labels}, 0.4)  # √4 = 2 …
    assert (times[labels == 1] == 2).all()
    times = how_often({"labels": labels}, 0.625)[labels == 1]  # … and √6.25 = 2.5
    assert set(times) == {2, 3}
    assert abs(times.mean() - 2.5) < 5 * 0.5 / np.sqrt(1000)
    again = how_often({"labels": labels}, 0.625, seed=1)[labels == 1]
    assert (again != times).any()


def test_a_picture_stands_as_often_as_the_rarest_class_of_its_boxes():
    boxes = np.full((100, 2), -1)
    boxes[:64, 0] = 0
    boxes[:4, 1] = 1  # of 4 pictures
    times = how_often({"labels": np.zeros(100, int), "box_labels": boxes}, 0.16)
    assert times.tolist() == [2] * 4 + [1] * 96


def test_copies_are_of_one_group():
    labels = np.repeat([0, 1], [96, 4])
    rows = np.arange(100)
    train = repeat_rare({"labels": labels, "row": rows}, 0.36, seed=0)
    np.testing.assert_array_equal(train["groups"], train["row"])
    tracks = rows // 10
    train = repeat_rare({"labels": labels, "groups": tracks, "row": rows}, 0.36, seed=0)
    np.testing.assert_array_equal(train["groups"], tracks[train["row"]])


def test_validation_and_test_are_left_alone():
    plain = load("digits", seed=3)
    rare = np.flatnonzero(plain.train["labels"] == 0)
    dataset = load("digits", seed=3, repeat_rare=0.9)
    for split in ("validation", "test"):
        np.testing.assert_array_equal(
            getattr(dataset, split)["images"], getattr(plain, split)["images"]
        )
    count = (dataset.train["labels"] == 0).sum()
    assert count == pytest.approx(len(rare) * 3, rel=0.1)  # √(0.9 / 0.1)
    numbers = len(plain.train["labels"]), len(dataset.train["labels"])
    assert dataset.description.endswith(
        "rare classes repeated: {} training samples count as {}".format(*numbers)
    )


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ValueError, match="repeat_rare must be from 0 up to, not incl"):
        load("digits", repeat_rare=share)
