"""Convolutions in bfloat16 by the matrix unit of a CPU (AMX).

XLA reaches the unit through products of matrices alone, of bfloat16 with a result in
float32, and with both matrices in row-major order. It has no convolution there. So the
map is cut into neighbourhoods, a few pictures at a time, which stay in the processor's
cache.

Neighbourhoods are cut along rows alone: a third of the copies that whole patches of
3 × 3 need. The rows of the kernel are products of their own, whose results add up.

Copies are made of integers with the same bits. XLA computes nothing in bfloat16 on a
CPU: it would turn a whole array into float32 and back to write one slice of it.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

# Rows of a product: neighbourhoods of 256 channels are half a megabyte then.
_ROWS = 512


@functools.cache
def available() -> bool:
    """Whether this machine's processor multiplies bfloat16 in a matrix unit."""
    try:
        about = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in about


def _bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.uint16)


def _numbers(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.bfloat16)


def _group(count: int, pixels: int) -> int:
    """Pictures of a product."""
    return max(1, min(count, -(-_ROWS // pixels)))


def _neighbours(bits: jax.Array, *, size: int, stride: int) -> jax.Array:
    """What lies around each pixel in its row: (n, h + size − 1, ⌈w/stride⌉, size·c).

    Rows of zeros lie above and below.
    """
    margin, width = size // 2, bits.shape[2]
    padded = jnp.pad(bits, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    shifted = [padded[:, :, left : left + width : stride] for left in range(size)]
    return jnp.concatenate(shifted, axis=-1)


def _rows(neighbours: jax.Array, first: int, *, height: int, stride: int) -> jax.Array:
    """The neighbours of every `stride`-th row from `first` on: (pixels, size·c)."""
    rows = neighbours[:, first : first + height : stride]
    return _numbers(rows.reshape(-1, rows.shape[-1]))


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Zero-padded convolution, added up in float32; no derivative.

    Args:
        x: (n, h, w, c_in), bfloat16.
        kernel: (size, size, c_in, c_out), bfloat16, size odd.
        stride: step between two outputs, in pixels.

    Returns:
        (n, ⌈h/stride⌉, ⌈w/stride⌉, c_out), bfloat16.
    """
    count, height, width, _ = x.shape
    size, features = kernel.shape[0], kernel.shape[-1]
    down, across = -(-height // stride), -(-width // stride)
    matrices = kernel.reshape(size, -1, features)
    group = _group(count, down * across)
    rest = count % group

    def some(bits: jax.Array) -> jax.Array:
        around = _neighbours(bits, size=size, stride=stride)
        products = (
            jnp.matmul(
                _rows(around, row, height=height, stride=stride),
                matrices[row],
                preferred_element_type=jnp.float32,
            )
            for row in range(size)
        )
        y = functools.reduce(jnp.add, products)
        return _bits(y.astype(jnp.bfloat16)).reshape(-1, down, across, features)

    bits = _bits(x)
    whole = bits[rest:].reshape(-1, group, *x.shape[1:])
    result = jax.lax.map(some, whole).reshape(-1, down, across, features)
    if rest:
        result = jnp.concatenate([some(bits[:rest]), result])
    return _numbers(result)


def gradients(
    x: jax.Array, kernel: jax.Array, cotangent: jax.Array, *, stride: int
) -> tuple[jax.Array, jax.Array]:
    """The gradients of `convolve` with respect to x and the kernel, of their types.

    Args:
        x: (n, h, w, c_in), bfloat16.
        kernel: (size, size, c_in, c_out), bfloat16, size odd.
        cotangent: (n, ⌈h/stride⌉, ⌈w/stride⌉, c_out), bfloat16.
        stride: step between two outputs, in pixels.
    """
    return (
        _input_gradient(x, kernel, cotangent, stride=stride),
        _kernel_gradient(x, kernel, cotangent, stride=stride),
    )


def _input_gradient(
    x: jax.Array, kernel: jax.Array, cotangent: jax.Array, *, stride: int
) -> jax.Array:
    """The cotangent convolved with the kernel turned round, a stride's gaps filled."""
    # A stride may end before the picture does: its last pixels get zeros as well.
    ends = [(side - 1) % stride for side in x.shape[1:3]]
    gaps = [(0, 0, 0), *((0, end, stride - 1) for end in ends), (0, 0, 0)]

    def filled(x: jax.Array) -> jax.Array:
        return _numbers(jax.lax.pad(_bits(x), jnp.uint16(0), gaps))

    turned = jax.lax.rev(kernel, (0, 1)).swapaxes(2, 3)
    if kernel.shape[0] == 1:  # nothing comes between the pixels
        return filled(convolve(cotangent, turned, stride=1))
    return convolve(filled(cotangent), turned, stride=1)


def _kernel_gradient(
    x: jax.Array, kernel: jax.Array, cotangent: jax.Array, *, stride: int
) -> jax.Array:
    """Σ cotangentᵀ · neighbourhoods, added up in float32."""
    count, height, _, _ = x.shape
    size, features = kernel.shape[0], kernel.shape[-1]
    group = _group(count, cotangent.shape[1] * cotangent.shape[2])
    # The pictures that are left over are the first.
    rest = count % group or group
    bits, changes = _bits(x), _bits(cotangent)

    def product(first: jax.Array | int, pictures: int) -> jax.Array:
        some, change = (
            jax.lax.dynamic_slice_in_dim(array, first, pictures)
            for array in (bits, changes)
        )
        around = _neighbours(some, size=size, stride=stride)
        # Without the constraint XLA reads the columns of the matrix where they lie,
        # and the unit cannot.
        transposed = with_layout_constraint(
            change.reshape(-1, features).T, Layout(major_to_minor=(0, 1))
        )
        return jnp.stack(
            [
                jnp.matmul(
                    _numbers(transposed),
                    _rows(around, row, height=height, stride=stride),
                    preferred_element_type=jnp.float32,
                )
                for row in range(size)
            ]
        )

    total = jax.lax.fori_loop(
        0,
        (count - rest) // group,
        lambda index, total: total + product(rest + index * group, group),
        product(0, rest),
    )
    return total.swapaxes(1, 2).reshape(kernel.shape).astype(kernel.dtype)
