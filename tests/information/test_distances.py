"""Squared distances where the textbook's formula loses its digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once


def points(n, d):
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
def test_far_from_the_origin_they_are_those_of_direct_differences(offset):
    x = points(40, 6) + np.float32(offset)
    exact = x.astype(np.float64)
    want = np.sum((exact[:, None] - exact[None]) ** 2, axis=-1)
    got = jax.jit(info.squared_distances)(x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)
    if offset == 1e4:  # so the care is needed
        squares = jnp.sum(x * x, axis=1)
        textbook = squares[:, None] + squares[None] - 2 * x @ x.T
        assert np.max(np.abs(textbook - want)) > 1


@pytest.mark.parametrize("n", [2, 17, 100, 129])
@pytest.mark.parametrize("d", [1, 31, 256])
def test_they_are_symmetric_to_rounding_and_exactly_0_between_equal_samples(n, d):
    x = points(n, d) + 3
    x[-1] = x[0]
    got = np.asarray(jax.jit(info.squared_distances)(x))
    np.testing.assert_allclose(got, got.T, rtol=1e-6, atol=1e-6 * np.max(got))
    np.testing.assert_array_equal(np.diag(got), 0)
    assert got[0, -1] == 0
    assert np.all(got >= 0)


def test_features_of_any_shape_are_flattened():
    x = points(5, 12)
    flat = info.squared_distances(x)
    np.testing.assert_array_equal(info.squared_distances(x.reshape(5, 2, 3, 2)), flat)
