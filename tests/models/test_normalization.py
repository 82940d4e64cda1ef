"""Norm, ReLU and pooling in one piece: as flax and JAX do them one by one, in less."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.models.convolution import convolve
from dib_jax.models.normalization import BatchNorm, normalize

pytestmark = pytest.mark.once


# Norm and pooling are compiled apart: a program that computes a map twice need not give
# the same bits both times, and then no pixel is equal to the largest.
@jax.jit
def max_pool(x):
    """By reshape: of equal pixels each gets its part of the gradient."""
    n, height, width, channels = x.shape
    height, width = height // 2, width // 2
    x = x[:, : 2 * height, : 2 * width]
    return x.reshape(n, height, 2, width, 2, channels).max(axis=(2, 4))


@functools.partial(jax.jit, static_argnames=("train",))
def normed(variables, x, *, train):
    norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
    y, changed = norm.apply(variables, x, mutable=["batch_stats"])
    return y, changed["batch_stats"]


def by_parts(variables, x, *, activation, pool, train=True):
    """The output, and the running statistics after it, of flax's own norm."""
    x = max_pool(x) if pool == "before" else x
    y, stats = normed(variables, x, train=train)
    y = max_pool(y) if pool == "after" else y
    return (activation(y) if activation else y), stats


@functools.partial(jax.jit, static_argnames=("activation", "pool", "train"))
def in_one(variables, x, *, activation, pool, train=True):
    norm = BatchNorm(activation=activation, pool=pool)
    y, changed = norm.apply(variables, x, train=train, mutable=["batch_stats"])
    return y, changed["batch_stats"]


@jax.jit
def weighed(y):
    """One number in which each output has its part."""
    weights = np.random.default_rng(1).normal(size=y.shape)
    return jnp.sum(weights * y**2)


def test_the_largest_of_each_two_by_two_window_is_taken():
    x = jnp.arange(2 * 5 * 4 * 1.0).reshape(2, 5, 4, 1)
    one, nothing = jnp.ones(1), jnp.zeros(1)
    y, mean, variance = normalize(x, one, nothing, None, "after")
    assert y.shape == (2, 2, 2, 1)
    largest = y[0, ..., 0] * jnp.sqrt(variance + 1e-5) + mean
    np.testing.assert_allclose(largest, [[5, 7], [13, 15]], rtol=1e-5)


def test_a_map_too_small_to_pool_is_refused():
    one = jnp.ones(3)
    with pytest.raises(ValueError, match="1 × 1 feature map cannot be pooled"):
        normalize(jnp.ones((2, 1, 1, 3)), one, one, None, "after")


def drawn(shape, dtype=np.float64):
    """Features with equal pixels in them, scales of both signs, statistics."""
    random = np.random.default_rng(3)
    channels = shape[-1]
    x = random.normal(size=shape)
    x = np.where(random.random(shape) < 0.3, 0.25, x).astype(dtype)
    params = {
        "scale": random.normal(size=channels).astype(dtype),
        "bias": random.normal(size=channels).astype(dtype),
    }
    stats = {
        "mean": random.normal(size=channels).astype(np.float32),
        "var": random.uniform(0.5, 2.0, channels).astype(np.float32),
    }
    return {"params": params, "batch_stats": stats}, x


@pytest.mark.parametrize("activation", [None, nn.relu, nn.gelu])
@pytest.mark.parametrize(
    ("shape", "pool"),
    [
        ((5, 7), ""),
        ((3, 4, 4, 5), ""),
        ((2, 5, 7, 3), "before"),
        ((2, 5, 7, 3), "after"),
    ],
)
def test_values_statistics_and_gradients_are_those_of_the_parts(
    shape, pool, activation
):
    def everything(function):
        """Gradients, and output and statistics."""
        variables, x = drawn(shape)

        def loss(params, x):
            given = {**variables, "params": params}
            y, stats = function(given, x, activation=activation, pool=pool)
            return weighed(y), (y, stats)

        slopes = jax.grad(loss, argnums=(0, 1), has_aux=True)
        return slopes(variables["params"], x)

    with jax.enable_x64(True):
        got_slopes, (got, got_stats) = everything(in_one)
        want_slopes, (want, want_stats) = everything(by_parts)
        np.testing.assert_allclose(got, want)
        for name in ("mean", "var"):
            np.testing.assert_allclose(got_stats[name], want_stats[name], rtol=1e-6)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-9),
            got_slopes,
            want_slopes,
        )


@pytest.mark.parametrize("pool", ["before", "after"])
def test_in_inference_the_running_statistics_are_applied_and_kept(pool):
    variables, x = drawn((3, 4, 6, 5), np.float32)
    (y, stats), (want, _) = (
        function(variables, x, activation=nn.relu, pool=pool, train=False)
        for function in (in_one, by_parts)
    )
    np.testing.assert_allclose(y, want, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])


def test_a_constant_channel_has_a_finite_gradient():
    variables, x = drawn((4, 4, 4, 3), np.float32)
    params = variables["params"]

    def total(x):
        return normalize(x, params["scale"], params["bias"], nn.relu, "after")[0].sum()

    gradient = jax.jit(jax.grad(total))(np.full_like(x, 1e3))
    assert np.isfinite(gradient).all()


def test_half_precision_features_have_float32_statistics():
    variables, x = drawn((4, 4, 4, 3), jnp.bfloat16)
    y, mean, variance = jax.jit(normalize, static_argnums=(3, 4))(
        x, *variables["params"].values(), nn.relu, "after"
    )
    assert y.dtype == jnp.bfloat16
    assert mean.dtype == variance.dtype == jnp.float32
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), atol=1e-6)


def test_the_backward_pass_keeps_one_feature_map_and_not_several():
    variables, x = drawn((4, 16, 16, 8), np.float32)

    def kept(function):
        def forward(params, x):
            return function(
                {**variables, "params": params}, x, activation=nn.relu, pool="after"
            )[0]

        _, pull = jax.vjp(forward, variables["params"], x)
        return sum(leaf.nbytes for leaf in jax.tree.leaves(pull))

    assert kept(in_one) < 1.1 * x.nbytes
    assert kept(by_parts) > 3 * x.nbytes


@pytest.mark.parametrize("pool", ["", "before"])
def test_a_compiled_step_needs_less_than_that_of_the_parts(pool):
    variables, x = drawn((8, 32, 32, 16), np.float32)
    kernel = np.zeros((3, 3, 16, 16), np.float32)

    def temporaries(function):
        def loss(kernel, x):
            y = convolve(x, kernel)
            y, _ = function(variables, y, activation=nn.gelu, pool=pool)
            return jnp.sum(convolve(y, kernel) ** 2)

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(kernel, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(in_one) < temporaries(by_parts)
