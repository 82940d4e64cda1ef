"""Corrupted pictures: they differ more with strength, and keep shape, type and seed."""

import colorsys
import itertools

import numpy as np
import pytest
from scipy import ndimage

from dib_jax.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt

# Smooth pictures, as photographs are: no corruption takes all that is in them.
_DRAWN = np.random.default_rng(0).normal(size=(6, 32, 32, 3))
_SMOOTH = ndimage.gaussian_filter(_DRAWN, (0, 2, 2, 0))
PICTURES = np.clip(120 + 400 * _SMOOTH, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_strength_and_keeps_shape_and_type(name, channels):
    pictures, before = PICTURES[..., :channels], PICTURES.copy()
    made = [corrupt(pictures, name, strength=strength) for strength in STRENGTHS]
    distances = [np.abs(x.astype(int) - pictures).mean() for x in made]
    assert distances[0] > 0
    assert all(a < b for a, b in itertools.pairwise(distances))
    assert {(x.shape, x.dtype) for x in made} == {(pictures.shape, np.dtype(np.uint8))}
    np.testing.assert_array_equal(PICTURES, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_one_seed_gives_the_same_pictures(name, monkeypatch):
    one, again, other = (
        corrupt(PICTURES, name, strength=3, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one == other).all() == (name != "noise")
    # However many are held at once.
    monkeypatch.setattr("dib_jax.data.corruptions._BLOCK", 4)
    np.testing.assert_array_equal(corrupt(PICTURES, name, strength=3), one)


def test_the_noise_has_its_standard_deviation():
    grey = np.full((4, 32, 32, 3), 128, np.uint8)
    for strength, wanted in zip(
        STRENGTHS, CORRUPTIONS["noise"].parameters, strict=True
    ):
        noise = corrupt(grey, "noise", strength=strength) / 255 - 128 / 255
        # Of 12,288 numbers: 0.6 % each way, and rounding to whole levels.
        assert noise.std() == pytest.approx(wanted, rel=0.03)


def test_a_point_is_blurred_to_a_gaussian_and_light_is_kept():
    point = np.zeros((1, 15, 15, 1), np.uint8)
    point[0, 7, 7] = 255
    blurred = corrupt(point, "blur", strength=5)[0, ..., 0].astype(int)
    offsets = np.arange(-7, 8)
    profile = np.exp(-(offsets**2) / 2)  # σ = 1 pixel
    wanted = 255 * np.outer(profile, profile) / profile.sum() ** 2
    assert np.abs(blurred - wanted).max() <= 0.6  # rounding, and cut off after 4 σ
    flat = np.full((1, 9, 9, 3), 200, np.uint8)
    np.testing.assert_array_equal(corrupt(flat, "blur", strength=5), flat)


def test_brightness_changes_the_value_of_hsv_alone():
    made = corrupt(PICTURES, "brightness", strength=4)
    for before, after in zip(PICTURES[0, 0], made[0, 0], strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1))
        assert np.abs(after / 255 - wanted).max() <= 0.51 / 255
    black = np.zeros((1, 2, 2, 3), np.uint8)
    assert corrupt(black, "brightness", strength=2).tolist() == [[[[26] * 3] * 2] * 2]


def test_contrast_shrinks_deviations_from_the_mean_of_each_channel():
    made = corrupt(PICTURES, "contrast", strength=2).astype(float)
    mean = PICTURES.mean(axis=(1, 2), keepdims=True)
    assert np.abs(made - mean - (PICTURES - mean) / 2).max() <= 0.51


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strength": 0}, "strength must be an integer from 1 to 5, got 0"),
        ({"strength": 6}, "strength must be an integer from 1 to 5, got 6"),
        ({"strength": 2.0}, "strength must be an integer from 1 to 5, got 2.0"),
        ({"strength": True}, "strength must be an integer from 1 to 5, got True"),
        ({"name": "fog"}, "one of noise, blur, jpeg, brightness, contrast, got 'fog'"),
        (
            {"images": PICTURES / 255},
            "must be uint8 of shape (n, h, w, c), got float64",
        ),
        ({"images": PICTURES[0]}, "of shape (n, h, w, c), got uint8 (32, 32, 3)"),
        ({"images": PICTURES[..., :2]}, "must have 1 or 3 channels, got 2"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    given = {"images": PICTURES, "name": "blur", "strength": 1, **changes}
    with pytest.raises(
        ValueError, match=message.replace("(", r"\(").replace(")", r"\)")
    ):
        corrupt(given.pop("images"), given.pop("name"), **given)
