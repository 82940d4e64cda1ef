"""Whitened patches of pictures."""

import jax
import numpy as np
import pytest

from dib_jax.data import load
from dib_jax.data.pictures import PICTURES, whitened
from dib_jax.data.vectors import VECTORS


def pictures(count=400, side=9):
    """Smooth pictures in three channels that are alike, as photographs are."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(count, side + 2, side + 2, 3))
    smooth = sum(
        noise[:, i : i + side, j : j + side] for i in range(3) for j in range(3)
    )
    mixed = smooth @ np.array([[1.0, 0.6, 0.6], [0.0, 0.5, 0.1], [0.0, 0.0, 0.4]])
    return {"images": np.clip(128 + 20 * mixed, 0, 255).astype(np.uint8)}


def test_coordinates_of_patches_are_uncorrelated_with_variance_1_and_come_in_pairs():
    kind, samples = whitened(PICTURES, 2), pictures()
    common = kind.common(samples)
    x = np.asarray(kind.prepare(samples, common))
    assert x.shape == (400, 8, 8, 24)
    np.testing.assert_allclose(x[..., 12:], -x[..., :12], atol=1e-5)
    covariance = np.cov(x[..., :12].reshape(-1, 12), rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=0.02)
    # Of the weakest directions what is not amplified is missing.
    assert np.diag(covariance)[-6:].min() > 0.95
    assert np.diag(covariance).max() < 1.001


def test_nothing_of_another_split_is_looked_at():
    dataset = load("digits", data_dir="", seed=0, val_fraction=0.1, whiten=3)
    common = dataset.kind.common(dataset.train)
    wanted = whitened(PICTURES, 3).common(dataset.train)
    jax.tree.map(np.testing.assert_array_equal, common, wanted)
    x = jax.eval_shape(dataset.kind.prepare, dataset.test, common)
    assert x.shape[1:] == (6, 6, 18)


def test_what_has_no_such_patches_is_refused():
    with pytest.raises(ValueError, match=r"dataset.whiten: got 2; vectors have no"):
        whitened(VECTORS, 2)
    with pytest.raises(ValueError, match=r"got 10; pictures of 9x9 pixels have no"):
        whitened(PICTURES, 10).common(pictures(4))


def test_patches_of_one_grey_pixel_have_variance_1():
    dataset = load("digits", data_dir="", seed=0, val_fraction=0.1, whiten=1)
    common = dataset.kind.common(dataset.train)
    x = np.asarray(dataset.kind.prepare(dataset.train, common))
    assert x.shape[1:] == (8, 8, 2)
    np.testing.assert_allclose(x.var(axis=(0, 1, 2)), 1, rtol=0.01)
