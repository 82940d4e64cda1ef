"""The network of the public speed record for CIFAR-10, in three groups of convolutions.

It is made for pictures whose patches are whitened (`dataset.whiten=2`): that was its
first layer, which no gradient trains.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.convolution import Convolution
from dib_jax.models.normalization import BatchNorm
from dib_jax.models.options import check_at_least, check_layer_widths, check_one_of


def dirac(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
    """A kernel whose first outputs repeat the inputs; the others are random.

    Args:
        key: PRNG key.
        shape: (size, size, c_in, c_out), the size odd.
        dtype: of the kernel.

    Returns:
        The kernel. Output o < c_in is input o; the weights of the others are uniform
        within ± 1/√(size² c_in).

    Source: Zagoruyko & Komodakis, arXiv 1706.00388; partly, Jordan, arXiv 2404.00498,
    section 3.3.
    """
    rows, columns, inputs, outputs = shape
    bound = (rows * columns * inputs) ** -0.5
    kernel = jax.random.uniform(key, shape, dtype, -bound, bound)
    same = min(inputs, outputs)
    kernel = kernel.at[..., :same].set(0)
    diagonal = jnp.arange(same)
    return kernel.at[rows // 2, columns // 2, diagonal, diagonal].set(1)


class Group(nn.Module):
    """`convolutions` × (3 × 3 convolution, batch norm without scale, GELU).

    Attributes:
        width: output channels of every convolution.
        convolutions: how many.
        pool_after: which of them 2 × 2 max pooling follows, "first" or "last".
        first: whether the input is the network's, which passes through a GELU.
    """

    width: int
    convolutions: int
    pool_after: str
    first: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.first:
            # In at least float32, as the norms' are: half of it is slower on a CPU.
            wide = jnp.promote_types(x.dtype, jnp.float32)
            x = nn.gelu(x.astype(wide)).astype(x.dtype)
        pooled = 0 if self.pool_after == "first" else self.convolutions - 1
        for index in range(self.convolutions):
            x = Convolution(self.width, kernel_init=dirac)(x)
            # A course of a few hundred steps needs statistics that follow fast.
            norm = BatchNorm(
                activation=nn.gelu,
                pool="before" if index == pooled else "",
                scaled=False,
                momentum=0.6,
            )
            x = norm(x, train=train)
        return x


def airbench(
    *,
    widths: tuple[int, ...] = (64, 256, 256),
    convolutions: int = 2,
    pool_after: str = "first",
) -> tuple[nn.Module, ...]:
    """The network of airbench94, (n, h, w, c) → (n, ⌊h/8⌋, ⌊w/8⌋, 256).

    Args:
        widths: channels of each group; as many stages as numbers.
        convolutions: 3 × 3 convolutions in every group.
        pool_after: which of a group's convolutions the pooling follows: first, as in
            airbench94, or last, with which all of them see the group's input at full
            resolution.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: a width or `convolutions` below 1, or an unknown `pool_after`.

    Source: Jordan, arXiv 2404.00498, and its code (airbench94). Differences: the
    whitened patches have no bias that is learnt, GELU is the one by tanh, and the ε of
    norms is larger.
    """
    check_layer_widths(widths)
    check_at_least(1, convolutions=convolutions)
    check_one_of(("first", "last"), pool_after=pool_after)
    return tuple(
        Group(
            width=width,
            convolutions=convolutions,
            pool_after=pool_after,
            first=index == 0,
        )
        for index, width in enumerate(widths)
    )
