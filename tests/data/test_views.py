"""Changed copies of pictures over which outputs are averaged."""

import numpy as np
import pytest

from dib_jax.data.vectors import VECTORS
from dib_jax.data.views import views

pytestmark = pytest.mark.once

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 64, 3), np.uint8)


def seen(spec):
    """Weights and the pictures of each view."""
    made = views(spec)
    weights = [view.weight for view in made]
    assert sum(weights) == 1
    changed = [view.change({"images": IMAGES, "labels": np.arange(2)}) for view in made]
    assert all(x["images"].dtype == np.uint8 for x in changed)
    return weights, [np.asarray(x["images"]) for x in changed]


def test_without_a_name_there_is_nothing_to_average():
    assert views("") == views(" ") == ()


def test_a_flip_shows_the_picture_and_its_mirror_image_alike():
    weights, (same, mirrored) = seen("flip")
    assert weights == [0.5, 0.5]
    np.testing.assert_array_equal(same, IMAGES)
    np.testing.assert_array_equal(mirrored, IMAGES[:, :, ::-1])


def test_a_shift_moves_along_the_diagonal_and_mirrors_at_the_border():
    weights, (same, down, up) = seen("shift")
    assert weights == [0.5, 0.25, 0.25]
    np.testing.assert_array_equal(same, IMAGES)
    # A pixel of 8 rows, two of 64 columns.
    np.testing.assert_array_equal(down[:, 1:, 2:], IMAGES[:, :-1, :-2])
    np.testing.assert_array_equal(down[:, 0, 2:], IMAGES[:, 1, :-2])
    np.testing.assert_array_equal(down[:, 1:, 1], IMAGES[:, :-1, 1])
    np.testing.assert_array_equal(up[:, :-1, :-2], IMAGES[:, 1:, 2:])
    np.testing.assert_array_equal(up[:, -1, :-2], IMAGES[:, -2, 2:])


def test_both_are_the_mirror_images_of_all_that_are_moved():
    weights, pictures = seen("shift, flip")
    _, moved = seen("shift")
    assert weights == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    for view, one in zip(pictures[::2], moved, strict=True):
        np.testing.assert_array_equal(view, one)
    for view, one in zip(pictures[1::2], moved, strict=True):
        np.testing.assert_array_equal(view, one[:, :, ::-1])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("flips", "unknown view 'flips' in 'flips', .*; did you mean 'flip'?"),
        ("flip,flip", "view 'flip' stands twice"),
        ("flip,", "unknown view '' in 'flip,', allowed are flip, shift"),
    ],
)
def test_a_wrong_name_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        views(spec)


def test_a_mirror_image_of_another_class_is_refused():
    with pytest.raises(ValueError, match="flip makes class 0, 'turn left'"):
        views("flip", ("turn left", "turn right"))
    assert views("shift", ("turn left", "turn right"))


def test_only_pictures_have_views():
    with pytest.raises(ValueError, match="got 'flip'; only pictures have views"):
        VECTORS.views("flip", ("a", "b"))
