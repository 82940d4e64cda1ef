"""Batch norm, max pooling and activation as one operation whose backward pass is lean.

Automatic differentiation stores several copies of a feature map for the three: centred,
scaled, the activation's input, which pixel was the largest. All of them follow from the
map before the norm, so that map is all that is stored here.
"""

import functools
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.options import check_poolable

_EPSILON = 1e-5

# Whether there is 2 × 2 max pooling, and on which side of the norm.
Pool = Literal["", "before", "after"]

# Applied to each number; hashable, so that a program knows it again.
Activation = Callable[[jax.Array], jax.Array]

_Three = tuple[jax.Array, jax.Array, jax.Array]
_Residuals = tuple[jax.Array, ...]  # x, mean, variance, scale, bias


def _mean_and_variance(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each channel over all other axes, in at least float32."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(x.ndim - 1))
    mean, square = jnp.mean(x, axis=axes), jnp.mean(x * x, axis=axes)
    return mean, jnp.maximum(square - mean * mean, 0)


def _windows(x: jax.Array) -> list[jax.Array]:
    """The four pixels of each 2 × 2 window, (n, ⌊h/2⌋, ⌊w/2⌋, c) each.

    An odd border is cut off.
    """
    _, height, width, _ = x.shape
    check_poolable(height, width)
    height, width = height // 2 * 2, width // 2 * 2
    return [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]


def _pooled(x: jax.Array, scale: jax.Array, pool: Pool) -> jax.Array:
    """Of each window the pixel that is the largest, before or after `scale`; or x."""
    if not pool:
        return x
    # Pixel by pixel, so that it is computed from x without another map as large.
    pixels = _windows(x)
    largest = functools.reduce(jnp.maximum, pixels)
    if pool == "before":
        return largest
    return jnp.where(scale < 0, functools.reduce(jnp.minimum, pixels), largest)


def _unpooled(x: jax.Array, pooled: jax.Array, change: jax.Array) -> jax.Array:
    """The change of each window, shared equally by its pixels that were the largest."""
    taken = sum((pixel == pooled).astype(change.dtype) for pixel in _windows(x))
    n, height, width, channels = pooled.shape
    windows = (n, height, 2, width, 2, channels)

    def spread(small: jax.Array) -> jax.Array:
        return jnp.broadcast_to(small[:, :, None, :, None], windows)

    cut = x[:, : 2 * height, : 2 * width].reshape(windows)
    change = jnp.where(cut == spread(pooled), spread(change / taken), 0)
    change = change.reshape(n, 2 * height, 2 * width, channels)
    odd = (x.shape[1] - 2 * height, x.shape[2] - 2 * width)
    return jnp.pad(change, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)))


def _apply(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    activation: Activation | None,
    pool: Pool,
) -> jax.Array:
    # In this order norm and activation see a quarter of the pixels.
    y = _pooled(x, scale, pool).astype(mean.dtype)
    y = (y - mean) * (jax.lax.rsqrt(variance + _EPSILON) * scale) + bias
    return (activation(y) if activation else y).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    activation: Activation | None,
    pool: Pool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch norm by the batch's statistics, 2 × 2 max pooling and an activation.

    Args:
        x: (n, …, c).
        scale: (c,), of the normalised channels.
        bias: (c,), added to them.
        activation: what comes last, None for nothing. With one that never falls, such
            as ReLU, the pooling may as well be said to follow it.
        pool: empty for none; "before" the norm, whose statistics are those of the
            pooled map then; or "after" it. x is (n, h, w, c) with pooling.

    Returns:
        (n, …, c) of x's dtype; and the batch's mean and variance (c,), at least
        float32, through which no gradient flows. Reverse mode only.

    Raises:
        ValueError: a feature map that is too small to pool.

    Source: Ioffe & Szegedy, arXiv 1502.03167, algorithm 1 and the derivatives below it.
    """
    normed = _pooled(x, scale, pool) if pool == "before" else x
    mean, variance = _mean_and_variance(normed)
    return (
        _apply(x, mean, variance, scale, bias, activation=activation, pool=pool),
        mean,
        variance,
    )


def _forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    activation: Activation | None,
    pool: Pool,
) -> tuple[_Three, _Residuals]:
    y, mean, variance = normalize(x, scale, bias, activation, pool)
    return (y, mean, variance), (x, mean, variance, scale, bias)


def _backward(
    activation: Activation | None,
    pool: Pool,
    residuals: _Residuals,
    cotangents: _Three,
) -> _Three:
    x, mean, variance, scale, bias = residuals
    inverse = jax.lax.rsqrt(variance + _EPSILON)
    pooled = _pooled(x, scale, pool)
    normal = (pooled.astype(mean.dtype) - mean) * inverse
    change = cotangents[0].astype(mean.dtype)
    if activation:
        (change,) = jax.vjp(activation, normal * scale + bias)[1](change)
    axes = tuple(range(x.ndim - 1))
    change_bias = jnp.sum(change, axis=axes)
    # Not of `normal`, which the compiler would keep from the forward pass for it. As
    # exact as the variance, which is a difference of two such sums as well.
    moment = jnp.sum(change * pooled.astype(mean.dtype), axis=axes)
    change_scale = (moment - mean * change_bias) * inverse
    # What reaches the normed map directly, and through its mean and variance.
    normed = pooled if pool == "before" else x
    direct = _unpooled(x, pooled, change) if pool == "after" else change
    count = normed.size // normed.shape[-1]
    normal = (normed.astype(mean.dtype) - mean) * inverse
    change = direct - (change_bias + normal * change_scale) / count
    change = (change * (inverse * scale)).astype(x.dtype)
    return (
        _unpooled(x, pooled, change) if pool == "before" else change,
        change_scale.astype(scale.dtype),
        change_bias.astype(bias.dtype),
    )


normalize.defvjp(_forward, _backward)


class BatchNorm(nn.Module):
    """Batch norm, perhaps with 2 × 2 max pooling, and an activation.

    Attributes:
        activation: what comes last, None for nothing.
        pool: empty for no pooling; "before" the norm or "after" it.
        scaled: whether a learnt factor multiplies each normalised channel.
        momentum: of the running statistics, which are applied where `train` is False.
    """

    activation: Activation | None = None
    pool: Pool = ""
    scaled: bool = True
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        channels = x.shape[-1:]
        kind = channels, jnp.float32
        scale = jnp.ones(*kind)
        if self.scaled:
            scale = self.param("scale", nn.initializers.ones, *kind)
        bias = self.param("bias", nn.initializers.zeros, *kind)
        mean = self.variable("batch_stats", "mean", jnp.zeros, *kind)
        variance = self.variable("batch_stats", "var", jnp.ones, *kind)
        if not train:
            running = mean.value, variance.value
            return _apply(
                x, *running, scale, bias, activation=self.activation, pool=self.pool
            )
        y, *batch = normalize(x, scale, bias, self.activation, self.pool)
        if not self.is_initializing():
            for statistic, new in zip((mean, variance), batch, strict=True):
                old = self.momentum * statistic.value
                statistic.value = old + (1 - self.momentum) * new
        return y
