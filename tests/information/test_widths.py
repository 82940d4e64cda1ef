"""Widths of any size, and what is no width."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once

unit_scale = jax.jit(info.unit_scale)
squares_slope = jax.jit(jax.grad(lambda x: jnp.sum(info.unit_scale(x) ** 2)))
cubes_slope = jax.jit(jax.grad(lambda x: jnp.sum(info.unit_scale(x) ** 3)))

FEATURES = np.random.default_rng(5).normal(size=(6, 2, 2, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "sigma", [0, -1.0, math.nan, [1.0, 0.0, 1.0], np.array([1.0, -2.0, 1.0]), "1", True]
)
def test_widths_of_channels_that_are_no_widths_are_named(sigma):
    with pytest.raises(ValueError, match="sigma must be a width > 0, got"):
        info.channel_gram(FEATURES, sigma=sigma)


@pytest.mark.parametrize("candidates", [[0.0], [1.0, -1.0], np.array([math.nan, 1.0])])
def test_candidates_that_are_no_widths_are_named(candidates):
    target = info.label_gram(np.arange(6) % 2)
    with pytest.raises(ValueError, match="candidates must be a width > 0, got"):
        info.aligned_bandwidth(FEATURES, target, candidates=candidates)


def test_a_width_for_each_feature_is_refused_where_one_is_meant():
    with pytest.raises(ValueError, match=r"must be a scalar, got shape \(3,\)"):
        info.gaussian_gram(np.ones((6, 3), np.float32), sigma=jnp.ones(3))


@jax.jit
@jax.value_and_grad
def channel_entropy(features, sigma):
    gram = info.channel_gram(features, sigma=sigma)
    return info.renyi_entropy(gram, alpha=1.01)


@pytest.mark.parametrize(
    ("scale", "widths"),
    [
        (1e20, [1e-20] * 3),
        (1e37, [1.0] * 3),
        (1e-30, [1e-30] * 3),
        (1.0, [1e-30, 1.0, 1e30]),
        (1.0, [0.0, 1.0, 1.0]),  # traced, so that nothing is known of it before
    ],
)
def test_channels_of_any_scale_and_width_have_a_gram_and_a_gradient(scale, widths):
    value, slope = channel_entropy(FEATURES * np.float32(scale), np.float32(widths))
    assert -1e-5 <= value <= math.log2(6) + 1e-5
    assert np.all(np.isfinite(slope))


def test_a_width_that_came_out_as_nan_is_not_hidden():
    for gram in (info.gaussian_gram, info.channel_gram):
        found = np.asarray(jax.jit(gram)(FEATURES, sigma=np.float32(np.nan)))
        assert np.all(np.isnan(found[0, 1:]))


@pytest.mark.parametrize("epsilon", [1e-7, 1e-12])
@pytest.mark.parametrize("sigma", [1.0, 50.0])
def test_a_regularisation_below_the_resolution_leaves_normalized_hsic_finite(
    epsilon, sigma
):
    x = np.repeat(np.random.default_rng(0).normal(size=(8, 3)), 8, axis=0)

    def loss(x):
        gram = info.gaussian_gram(x, sigma=sigma)
        return info.normalized_hsic(gram, gram, epsilon=epsilon)

    value, slope = jax.jit(jax.value_and_grad(loss))(jnp.asarray(x, jnp.float32))
    assert 0 <= value <= 63
    assert np.all(np.isfinite(slope))


def test_unit_scale_takes_the_mean_away_and_makes_deviations_one():
    x = np.float32(7 * FEATURES - 2)
    found = np.asarray(unit_scale(x), np.float64)
    centred = np.float64(x) - np.float64(x).mean(axis=0)
    want = centred / np.sqrt(np.mean(centred**2))
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e15])
def test_unit_scale_forgets_any_scale_and_so_does_its_gradient(scale):
    np.testing.assert_allclose(
        unit_scale(FEATURES * np.float32(scale)),
        unit_scale(FEATURES),
        rtol=1e-4,
        atol=1e-5,
    )
    want = np.asarray(cubes_slope(FEATURES))
    found = np.asarray(cubes_slope(FEATURES * np.float32(scale))) * np.float32(scale)
    np.testing.assert_allclose(found, want, atol=1e-3 * np.abs(want).max())
    along = np.vdot(want, FEATURES - FEATURES.mean(axis=0))
    assert abs(along) < 1e-4 * np.linalg.norm(want) * np.linalg.norm(FEATURES)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_samples_that_are_all_the_same_have_no_scale(value):
    x = np.full((6, 3), value, np.float32)
    np.testing.assert_array_equal(unit_scale(x), 0)
    np.testing.assert_array_equal(squares_slope(x), 0)
