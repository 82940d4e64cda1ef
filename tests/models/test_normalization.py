"""Norm, ReLU and pooling in one piece: as flax and JAX do them one by one, in less."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.models.normalization import BatchNorm, normalize

pytestmark = pytest.mark.once


def max_pool(x):
    """By reshape: of equal pixels each gets its part of the gradient."""
    n, height, width, channels = x.shape
    height, width = height // 2, width // 2
    x = x[:, : 2 * height, : 2 * width]
    return x.reshape(n, height, 2, width, 2, channels).max(axis=(2, 4))


def by_parts(variables, x, *, relu, pool, train=True):
    """The output, and the running statistics after it, of flax's own norm."""
    norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
    y, changed = norm.apply(variables, x, mutable=["batch_stats"])
    y = nn.relu(y) if relu else y
    return (max_pool(y) if pool else y), changed["batch_stats"]


def in_one(variables, x, *, relu, pool, train=True):
    norm = BatchNorm(relu=relu, pool=pool)
    y, changed = norm.apply(variables, x, train=train, mutable=["batch_stats"])
    return y, changed["batch_stats"]


def test_the_largest_of_each_two_by_two_window_is_taken():
    x = jnp.arange(2 * 5 * 4 * 1.0).reshape(2, 5, 4, 1)
    one, nothing = jnp.ones(1), jnp.zeros(1)
    y, mean, variance = normalize(x, one, nothing, False, True)
    assert y.shape == (2, 2, 2, 1)
    largest = y[0, ..., 0] * jnp.sqrt(variance + 1e-5) + mean
    np.testing.assert_allclose(largest, [[5, 7], [13, 15]], rtol=1e-5)


def test_a_map_too_small_to_pool_is_refused():
    one = jnp.ones(3)
    with pytest.raises(ValueError, match="1 × 1 feature map cannot be pooled"):
        normalize(jnp.ones((2, 1, 1, 3)), one, one, True, True)


def drawn(shape, dtype=jnp.float64):
    """Features with equal pixels in them, scales of both signs, statistics."""
    keys = jax.random.split(jax.random.key(3), 6)
    channels = shape[-1:]
    x = jax.random.normal(keys[0], shape, dtype)
    x = jnp.where(jax.random.bernoulli(keys[5], 0.3, shape), 0.25, x).astype(dtype)
    params = {
        "scale": jax.random.normal(keys[1], channels, dtype),
        "bias": jax.random.normal(keys[2], channels, dtype),
    }
    stats = {
        "mean": jax.random.normal(keys[3], channels, jnp.float32),
        "var": jax.random.uniform(keys[4], channels, jnp.float32, 0.5, 2.0),
    }
    return {"params": params, "batch_stats": stats}, x


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("shape", "pool"),
    [
        ((5, 7), False),
        ((3, 4, 4, 5), False),
        ((3, 4, 6, 5), True),
        ((2, 5, 7, 3), True),
    ],
)
def test_values_statistics_and_gradients_are_those_of_the_parts(shape, pool, relu):
    with jax.enable_x64(True):
        variables, x = drawn(shape)
        out = in_one(variables, x, relu=relu, pool=pool)
        want = by_parts(variables, x, relu=relu, pool=pool)
        jax.tree.map(np.testing.assert_allclose, out[0], want[0])
        for name in ("mean", "var"):
            np.testing.assert_allclose(out[1][name], want[1][name], rtol=1e-6)
        weights = jax.random.normal(jax.random.key(1), out[0].shape, jnp.float64)

        def gradient(function):
            def weighed(params, x):
                y, _ = function(
                    {**variables, "params": params}, x, relu=relu, pool=pool
                )
                return jnp.sum(weights * y**2)

            return jax.grad(weighed, argnums=(0, 1))(variables["params"], x)

        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9),
            gradient(in_one),
            gradient(by_parts),
        )


def test_in_inference_the_running_statistics_are_applied_and_kept():
    variables, x = drawn((3, 4, 6, 5), jnp.float32)
    y, stats = in_one(variables, x, relu=True, pool=True, train=False)
    want, _ = by_parts(variables, x, relu=True, pool=True, train=False)
    np.testing.assert_allclose(y, want, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])


def test_a_constant_channel_has_a_finite_gradient():
    variables, x = drawn((4, 4, 4, 3), jnp.float32)
    params = variables["params"]

    def total(x):
        return normalize(x, params["scale"], params["bias"], True, True)[0].sum()

    gradient = jax.grad(total)(jnp.full_like(x, 1e3))
    assert np.isfinite(gradient).all()


def test_half_precision_features_have_float32_statistics():
    variables, x = drawn((4, 4, 4, 3), jnp.bfloat16)
    y, mean, variance = normalize(x, *variables["params"].values(), True, True)
    assert y.dtype == jnp.bfloat16
    assert mean.dtype == variance.dtype == jnp.float32
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), atol=1e-6)


def test_the_backward_pass_keeps_one_feature_map_and_not_several():
    variables, x = drawn((4, 16, 16, 8), jnp.float32)

    def kept(function):
        def forward(params, x):
            return function({**variables, "params": params}, x, relu=True, pool=True)[0]

        _, pull = jax.vjp(forward, variables["params"], x)
        return sum(leaf.nbytes for leaf in jax.tree.leaves(pull))

    assert kept(in_one) < 1.1 * x.nbytes
    assert kept(by_parts) > 3 * x.nbytes
