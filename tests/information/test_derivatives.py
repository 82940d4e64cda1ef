"""Derivatives against finite differences, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once

ALPHAS = [0.6, 0.9, 1.0, 1 + 1e-7, 1.01, 2.0, 3.0, 4.0, 8.0, math.inf]
MEASURES = {
    "squared_distances": lambda x, z: info.squared_distances(x),
    "gaussian_gram": lambda x, z: info.gaussian_gram(x, sigma=1.3),
    "channel_gram": lambda x, z: info.channel_gram(
        x.reshape(7, 1, 1, 4), sigma=jnp.array([1.0, 2.0, 3.0, 4.0])
    ),
    "normalize_gram": lambda x, z: info.normalize_gram(
        jnp.sum(x[:, None] * x[None], axis=2) + jnp.eye(7)
    ),
    "conditional_entropy": lambda x, z: info.conditional_entropy(
        gram(x), gram(z), alpha=1.2
    ),
    "mutual_information": lambda x, z: info.mutual_information(
        gram(x), gram(z), alpha=1.2
    ),
    "total_correlation": lambda x, z: info.total_correlation(
        gram(x), gram(z), gram(x + z), alpha=1.0
    ),
    "dual_total_correlation": lambda x, z: info.dual_total_correlation(
        gram(x), gram(z), gram(x * z), alpha=3
    ),
    "mutual_information_matrix": lambda x, z: info.mutual_information_matrix(
        jnp.stack([gram(x), gram(z)]), alpha=1.01
    ),
    "hsic": lambda x, z: info.hsic(gram(x), gram(z)),
    "normalized_hsic": lambda x, z: info.normalized_hsic(gram(x), gram(z), epsilon=0.1),
    "cka": lambda x, z: info.cka(gram(x), gram(z)),
    "unit_scale": lambda x, z: info.cka(gram(info.unit_scale(x)), gram(z)),
}


def gram(x):
    return info.gaussian_gram(x, sigma=1.3)


def points(*shape):
    return np.random.default_rng(3).normal(size=shape)


def check_derivatives(function, *arguments, atol=1e-6, rtol=1e-6):
    """Forward and reverse mode against central differences, as JAX's check_grads does.

    One program for all, where check_grads compiles four.
    """
    random = np.random.default_rng(7)
    tangents = [random.normal(size=x.shape) for x in arguments]
    out = jax.eval_shape(function, *arguments)
    cotangent = random.normal(size=out.shape)

    @jax.jit
    def everything(*arguments):
        value, tangent = jax.jvp(function, arguments, tuple(tangents))
        _, pull = jax.vjp(function, *arguments)
        return value, tangent, pull(jnp.asarray(cotangent))

    def value_at(step):
        moved = (x + step * t for x, t in zip(arguments, tangents, strict=True))
        return np.asarray(everything(*moved)[0])

    value, tangent, slopes = everything(*arguments)
    assert value.dtype == tangent.dtype == jnp.float64
    wanted = (value_at(1e-4) - value_at(-1e-4)) / 2e-4
    np.testing.assert_allclose(tangent, wanted, atol=atol, rtol=rtol)
    along = sum(np.vdot(s, t) for s, t in zip(slopes, tangents, strict=True))
    np.testing.assert_allclose(along, np.vdot(cotangent, tangent), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_entropy(alpha):
    with jax.enable_x64(True):
        check_derivatives(
            lambda x: info.renyi_entropy(gram(x), alpha=alpha), points(7, 4)
        )


@pytest.mark.parametrize("name", MEASURES)
def test_measure(name):
    with jax.enable_x64(True):
        check_derivatives(MEASURES[name], *points(2, 7, 4))


@pytest.mark.parametrize("alpha", [2, 3, 4])
def test_second_order_is_right_at_small_whole_orders(alpha):
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: info.renyi_entropy(gram(x), alpha=alpha))
        check_derivatives(slope, points(5, 2))


@pytest.mark.parametrize("alpha", [1.0, 1.01, 5.0])
def test_equal_eigenvalues_have_the_derivative_of_their_sum(alpha):
    with jax.enable_x64(True):
        # Four times two equal samples, moved apart in pairs that stay alike.
        x = np.repeat(points(4, 3), 2, axis=0)
        move = np.repeat(points(4, 3)[::-1], 2, axis=0)

        @jax.jit
        def entropy(t):
            return info.renyi_entropy(gram(x + t * move), alpha=alpha)

        slope = jax.jit(lambda: jax.jvp(entropy, (0.0,), (1.0,))[1])()
        wanted = (entropy(1e-5) - entropy(-1e-5)) / 2e-5
        np.testing.assert_allclose(slope, wanted, rtol=1e-6)


def test_a_clipped_distance_passes_its_gradient():
    x = jnp.array([[0.0, 0.0], [1e-30, 1e-30], [1.0, 1.0]])
    slopes = jax.jit(jax.jacfwd(info.squared_distances))(x)
    assert np.all(np.isfinite(slopes))
    np.testing.assert_allclose(slopes[1, 2, 2], [2, 2])


@pytest.mark.parametrize(
    "rule", ["median", "mean", "knn", "quantile", "scott", "aligned"]
)
def test_widths_pass_no_gradient(rule):
    def width(x):
        if rule == "aligned":
            target = info.label_gram(jnp.arange(7) % 2)
            return info.aligned_bandwidth(x, target, candidates=[0.5, 1.0, 2.0])
        return getattr(info, f"{rule}_bandwidth")(x)

    slope = jax.jit(jax.grad(width))(points(7, 4).astype(np.float32))
    assert np.all(np.asarray(slope) == 0)
