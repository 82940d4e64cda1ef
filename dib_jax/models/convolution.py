"""Convolution and pooling in the form that the backend runs fastest.

XLA runs a convolution inside a loop (an epoch is a `lax.scan`) 7 to 80 times slower
than outside on a CPU; the same sums as patches and a matrix product run at full speed
in both. On accelerators the plain convolution is the fast one, and holds no patches.
Both forms take the same parameters and agree to rounding.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

_Result = TypeVar("_Result")
_Pair = tuple[jax.Array, jax.Array]


def patches(x: jax.Array, *, size: int, stride: int) -> jax.Array:
    """The size × size neighbourhoods of an image, zero-padded at its border.

    Args:
        x: (n, h, w, c).
        size: side of a neighbourhood, odd.
        stride: distance between the centres of two neighbourhoods.

    Returns:
        (n, ⌈h/stride⌉, ⌈w/stride⌉, size·size·c), rows, columns, channels in order.
    """
    _, height, width, _ = x.shape
    if size == 1:
        return x[:, ::stride, ::stride]
    margin = size // 2
    padded = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    shifted = [
        padded[:, row : row + height : stride, column : column + width : stride]
        for row in range(size)
        for column in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)


_DIRECT = contextvars.ContextVar("direct", default=False)


@contextlib.contextmanager
def direct_convolutions() -> Iterator[None]:
    """Trace plain convolutions within this context, on a CPU as well.

    A program that is compiled on a CPU to measure the memory it takes on an accelerator
    needs it: patches take nine times the memory of what they are cut from. A function
    that `jax.jit` has traced before stays as it was.
    """
    token = _DIRECT.set(True)
    try:
        yield
    finally:
        _DIRECT.reset(token)


def _by_platform(
    by_patches: Callable[..., _Result], direct: Callable[..., _Result]
) -> Callable[..., _Result]:
    """A function that is `by_patches` on a CPU and `direct` elsewhere."""
    if _DIRECT.get():
        return direct
    # Decided when the program is lowered, so that one compiled for another platform
    # than this machine's gets that platform's form.
    return functools.partial(jax.lax.platform_dependent, cpu=by_patches, default=direct)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Zero-padded convolution with an odd square kernel; reverse mode only.

    Args:
        x: (n, h, w, c_in).
        kernel: (size, size, c_in, c_out).
        stride: step between two outputs, in pixels.

    Returns:
        (n, ⌈h/stride⌉, ⌈w/stride⌉, c_out).
    """
    by_patches, direct = (functools.partial(f, stride) for f in (_by_patches, _direct))
    return _by_platform(by_patches, direct)(x, kernel)


def _direct(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    margin = kernel.shape[0] // 2
    # Not padding="SAME", which pads a strided convolution at one side only.
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((margin, margin), (margin, margin)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _by_patches(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    columns = patches(x, size=kernel.shape[0], stride=stride)
    return columns @ kernel.reshape(-1, kernel.shape[-1])


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, _Pair]:
    return convolve(x, kernel, stride), (x, kernel)


def _backward(stride: int, residuals: _Pair, cotangent: jax.Array) -> _Pair:
    # By hand: the derivative of `platform_dependent` stores what both forms need, and
    # patches are cheaper to cut again than to store.
    def derivative_of(form: Callable[..., jax.Array]) -> Callable[..., _Pair]:
        def derivative(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> _Pair:
            return jax.vjp(functools.partial(form, stride), x, kernel)[1](cotangent)

        return derivative

    derivative = _by_platform(derivative_of(_by_patches), derivative_of(_direct))
    return derivative(*residuals, cotangent)


convolve.defvjp(_forward, _backward)


class Convolution(nn.Module):
    """Zero-padded square convolution without a bias (a norm follows).

    Attributes:
        features: number of output channels.
        size: side of the kernel, odd.
        stride: step between two outputs, in pixels.
    """

    features: int
    size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param(
            "kernel",
            nn.initializers.he_normal(),
            (self.size, self.size, x.shape[-1], self.features),
        )
        return convolve(x, kernel, self.stride)


def average_pool_to(x: jax.Array, size: int | tuple[int, ...]) -> jax.Array:
    """Average over a size × size grid of cells, (n, h, w, c) → (n, size, size, c).

    Cells are [⌊i·h/size⌋, ⌈(i+1)·h/size⌉), as in adaptive pooling: they overlap where
    the side is not a multiple of `size`. A side shorter than `size` stays as it is.
    Two numbers as `size` are the rows and the columns of the grid.
    """
    n, height, width, channels = x.shape
    wanted = (size, size) if isinstance(size, int) else size
    rows, columns = min(height, wanted[0]), min(width, wanted[1])
    if height % rows == 0 and width % columns == 0:
        # Cells that do not overlap: a sum that needs no copy of the map in another
        # order, as the products of matrices below do.
        cut = (n, rows, height // rows, columns, width // columns, channels)
        return x.reshape(cut).mean(axis=(2, 4))

    def cells(side: int, count: int) -> jax.Array:
        position = jnp.arange(side)
        index = jnp.arange(count)[:, None]
        inside = (position >= index * side // count) & (
            position < -(-(index + 1) * side // count)
        )
        return (inside / inside.sum(axis=1, keepdims=True)).astype(x.dtype)

    down, across = cells(height, rows), cells(width, columns)
    return jnp.einsum("ph,nhwc,qw->npqc", down, x, across)
