"""Convolution and pooling in the form that the backend runs fastest.

On a CPU XLA has fast code for the convolution of a network's forward direction alone,
in a loop (an epoch is a `lax.scan`) as outside: what JAX derives as the gradients of
its input and its kernel runs 5 and 50 times slower. So on a CPU the former is written
as a forward convolution and the latter as products of matrices; accelerators have fast
code for all three and get what JAX derives. Both agree to rounding.

Where a kernel has more pixels than the map, as 3 × 3 on 2 × 2 has, XLA exchanges the
two, and for that it has no fast code on a CPU either: such maps are multiplied as
patches.

In bfloat16 a CPU with a matrix unit has a form of its own (`matrix_unit`).
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models import matrix_unit
from dib_jax.models.feedback import applied
from dib_jax.models.options import check_poolable

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
    """Trace the gradients that JAX derives within this context, on a CPU as well.

    A program that is compiled on a CPU to measure the memory it takes on an accelerator
    needs it: accelerators cut no patches. A function that `jax.jit` has traced before
    stays as it was.
    """
    token = _DIRECT.set(True)
    try:
        yield
    finally:
        _DIRECT.reset(token)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Zero-padded convolution with an odd square kernel; reverse mode only.

    Args:
        x: (n, h, w, c_in).
        kernel: (size, size, c_in, c_out).
        stride: step between two outputs, in pixels.

    Returns:
        (n, ⌈h/stride⌉, ⌈w/stride⌉, c_out).

    Raises:
        ValueError: the kernel is not square or not odd, or x has another type.
    """
    if kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise ValueError(f"a kernel must be square and odd, got shape {kernel.shape}")
    if x.dtype != kernel.dtype:
        raise ValueError(
            f"x and the kernel must have one type, got {x.dtype} and {kernel.dtype}"
        )
    direct = functools.partial(_direct, stride)
    if _DIRECT.get():
        return direct(x, kernel)
    if _for_the_unit(kernel):
        on_cpu = functools.partial(matrix_unit.convolve, stride=stride)
    elif _exchanged(x, kernel):
        on_cpu = functools.partial(_by_patches, stride)
    else:
        return direct(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=direct)


def _for_the_unit(kernel: jax.Array) -> bool:
    """Whether a CPU multiplies by such a kernel in a matrix unit."""
    # With fewer channels cutting the map takes longer than is won.
    enough = min(kernel.shape[2:]) >= 16
    return enough and kernel.dtype == jnp.bfloat16 and matrix_unit.available()


def _exchanged(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether XLA takes the map for the kernel, which has more pixels."""
    return kernel.shape[0] * kernel.shape[1] > x.shape[1] * x.shape[2]


def _by_patches(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    columns = patches(x, size=kernel.shape[0], stride=stride)
    return columns @ kernel.reshape(-1, kernel.shape[-1])


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


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, _Pair]:
    return convolve(x, kernel, stride), (x, kernel)


def _backward(stride: int, residuals: _Pair, cotangent: jax.Array) -> _Pair:
    derived = functools.partial(_derived, stride)
    if _DIRECT.get():
        return derived(*residuals, cotangent)
    if cotangent.size == 0:  # there are no pictures to cut into groups
        x, kernel = residuals
        return jnp.zeros_like(x), jnp.zeros_like(kernel)
    # Decided when the program is lowered, so that one compiled for another platform
    # than this machine's gets that platform's form.
    by_hand = functools.partial(_by_hand, stride)
    if _for_the_unit(residuals[1]):
        by_hand = functools.partial(_by_the_unit, stride)
    return jax.lax.platform_dependent(
        *residuals, cotangent, cpu=by_hand, default=derived
    )


convolve.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_the_unit(
    stride: int, x: jax.Array, kernel: jax.Array, cotangent: jax.Array
) -> _Pair:
    return matrix_unit.gradients(x, kernel, cotangent, stride=stride)


# It passes through integers, which have no derivative: JAX would take it for constant.
_by_the_unit.defvjp(
    lambda stride, *given: (_by_the_unit(stride, *given), given),
    lambda stride, given, changes: jax.vjp(functools.partial(_derived, stride), *given)[
        1
    ](changes),
)


def _derived(
    stride: int, x: jax.Array, kernel: jax.Array, cotangent: jax.Array
) -> _Pair:
    return jax.vjp(functools.partial(_direct, stride), x, kernel)[1](cotangent)


def _by_hand(
    stride: int, x: jax.Array, kernel: jax.Array, cotangent: jax.Array
) -> _Pair:
    return (
        _input_gradient(x, kernel, cotangent, stride=stride),
        _kernel_gradient(x, kernel, cotangent, stride=stride),
    )


def _input_gradient(
    x: jax.Array, kernel: jax.Array, cotangent: jax.Array, *, stride: int
) -> jax.Array:
    """The cotangent convolved with the kernel turned round, a stride's gaps filled."""
    if _exchanged(cotangent, kernel):
        # Pieces of patches are added up: in 16 bits each sum would be rounded.
        wide = jnp.promote_types(x.dtype, jnp.float32)
        fixed, given = kernel.astype(wide), cotangent.astype(wide)
        pull = jax.vjp(lambda x: _by_patches(stride, x, fixed), x.astype(wide))[1]
        return pull(given)[0].astype(x.dtype)
    margin = kernel.shape[0] // 2
    # A stride may end before the picture does: its last pixels get zeros as well.
    rest = [(side - 1) % stride for side in x.shape[1:3]]
    return jax.lax.conv_general_dilated(
        cotangent,
        jax.lax.rev(kernel, (0, 1)).swapaxes(2, 3),
        window_strides=(1, 1),
        padding=[(margin, margin + end) for end in rest],
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _kernel_gradient(
    x: jax.Array, kernel: jax.Array, cotangent: jax.Array, *, stride: int
) -> jax.Array:
    """Σ cotangentᵀ · patches, over the pixels of a few pictures at a time.

    Patches of few pictures stay in the processor's cache. Their rows are at least
    twice the output channels, so that adding up costs little beside the products.
    """
    count, (height, width, features) = x.shape[0], cotangent.shape[1:]
    size = kernel.shape[0]
    group = min(count, -(-2 * features // (height * width)))
    dtype = jnp.promote_types(x.dtype, jnp.float32)

    def product(first: jax.Array | int, pictures: int) -> jax.Array:
        some, change = (
            jax.lax.dynamic_slice_in_dim(array, first, pictures)
            for array in (x, cotangent)
        )
        columns = patches(some, size=size, stride=stride)
        # One axis of pixels: over three XLA copies what it multiplies.
        return jnp.matmul(
            change.reshape(-1, features).T,
            columns.reshape(-1, columns.shape[-1]),
            preferred_element_type=dtype,
        )

    # The pictures that are left over are the first.
    rest = count % group or group
    total = jax.lax.fori_loop(
        0,
        (count - rest) // group,
        lambda index, total: total + product(rest + index * group, group),
        product(0, rest),
    )
    # (o, k) and not (k, o) above: the longer side last is the faster product.
    return total.T.reshape(kernel.shape).astype(kernel.dtype)


class Convolution(nn.Module):
    """Zero-padded square convolution without a bias (a norm follows).

    Attributes:
        features: number of output channels.
        size: side of the kernel, odd.
        stride: step between two outputs, in pixels.
        kernel_init: of the kernel (size, size, c_in, features).
        feedback: what errors come back through, one of `feedback.RULES`.
    """

    features: int
    size: int = 3
    stride: int = 1
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    feedback: str = ""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.ndim != 4:
            raise ValueError(
                "model.name: a network of convolutions needs pictures (n, h, w, c), "
                f"got shape {x.shape}; use mlp"
            )
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x, kernel = nn.dtypes.promote_dtype(x, kernel)

        def linear(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return convolve(x, kernel, self.stride)

        return applied(self, self.feedback, linear, x, kernel, self.kernel_init)


def max_pool(x: jax.Array) -> jax.Array:
    """2 × 2 max pooling, (n, h, w, c) → (n, ⌊h/2⌋, ⌊w/2⌋, c); an odd border is cut off.

    Raises:
        ValueError: a map that is too small.
    """
    n, height, width, channels = x.shape
    check_poolable(height, width)
    rows, columns = height // 2, width // 2
    cut = x[:, : 2 * rows, : 2 * columns]
    return cut.reshape(n, rows, 2, columns, 2, channels).max(axis=(2, 4))


def max_pool_to(x: jax.Array, size: int) -> jax.Array:
    """Maximum over a size × size grid of cells, (n, h, w, c) → (n, size, size, c).

    Rows and columns that do not fill the last cell belong to it. A side shorter than
    `size` stays as it is.
    """
    for axis in (1, 2):
        side = x.shape[axis]
        ends = [i * (side // size) for i in range(1, size)] if side > size else None
        if ends is not None:
            parts = jnp.split(x, ends, axis=axis)
            x = jnp.stack([part.max(axis=axis) for part in parts], axis=axis)
    return x


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
        return (inside / inside.sum(axis=1, keepdims=True)).astype(wide)

    wide = jnp.promote_types(x.dtype, jnp.float32)
    down, across = cells(height, rows), cells(width, columns)
    averages = jnp.einsum("ph,nhwc,qw->npqc", down, x.astype(wide), across)
    return averages.astype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else wide)
