"""Widths by name, and mistakes in features, widths and labels."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


@pytest.mark.parametrize("rule", ["mean", "median", "knn", "quantile", "scott"])
def test_a_rule_by_name_is_the_function_of_that_name(rule):
    @jax.jit
    def both(x):
        named = info.named_bandwidth(x, rule)
        return named, getattr(info, f"{rule}_bandwidth")(x)

    named, wanted = both(X)
    assert named == wanted


@pytest.mark.parametrize("width", ["2.5", 2.5])
def test_a_number_is_the_width_itself(width):
    assert info.named_bandwidth(X, width) == 2.5
    assert info.named_bandwidth(X, width).dtype == jnp.float32


@pytest.mark.parametrize("rule", ["", "sigma", "nan", "inf", "-1", 0, True, None, [2]])
def test_what_is_no_rule_and_no_width_is_named(rule):
    with pytest.raises(ValueError, match="or a number > 0, got") as error:
        info.check_bandwidth(rule)
    assert repr(rule) in str(error.value)


def test_a_misspelt_rule_is_told_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'median'"):
        info.named_bandwidth(X, "medain")


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, math.inf])
def test_an_impossible_width_is_named(sigma):
    with pytest.raises(ValueError, match="sigma must be a width > 0, got"):
        info.gaussian_gram(X, sigma=sigma)


def test_mistakes_in_features_and_labels_are_named():
    with pytest.raises(ValueError, match=r"\(n, …\) with n ≥ 1, got \(\)"):
        info.squared_distances(jnp.float32(1))
    with pytest.raises(ValueError, match="features must be real"):
        info.gaussian_gram(X * 1j, sigma=1.0)
    with pytest.raises(ValueError, match=r"\(n, h, w, c\), got \(6, 3\)"):
        info.channel_gram(X, sigma=1.0)
    with pytest.raises(ValueError, match="labels must be integers, got float32"):
        info.label_gram(jnp.zeros(3))
    with pytest.raises(ValueError, match="q must be from 0 to 1"):
        info.quantile_bandwidth(X, q=2)
    with pytest.raises(ValueError, match="k must be an integer ≥ 1"):
        info.knn_bandwidth(X, k=0)
    with pytest.raises(ValueError, match="epsilon must be > 0"):
        info.normalized_hsic(jnp.eye(3) / 3, jnp.eye(3) / 3, epsilon=0)
