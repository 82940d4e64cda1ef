"""Plain convolutional networks: each stage some convolutions, perhaps a pooling."""

import flax.linen as nn
import jax

from dib_jax.models.convolution import Convolution
from dib_jax.models.normalization import BatchNorm


class ConvolutionStage(nn.Module):
    """`convolutions` × (3 × 3 convolution, batch norm, ReLU).

    Attributes:
        width: output channels of every convolution.
        convolutions: how many.
        pool: whether 2 × 2 max pooling follows the first of them.
    """

    width: int
    convolutions: int = 1
    pool: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for index in range(self.convolutions):
            x = Convolution(self.width)(x)
            pool = self.pool and index == 0
            x = BatchNorm(relu=True, pool=pool)(x, train=train)
        return x


def cnn(
    *, widths: tuple[int, ...] = (32, 64, 128), convolutions: int = 1, pools: int = 3
) -> tuple[nn.Module, ...]:
    """A small convolutional network, (n, h, w, c) → (n, h', w', widths[-1]).

    Args:
        widths: channels of each stage; as many stages as numbers.
        convolutions: 3 × 3 convolutions in every stage.
        pools: how many of the first stages have 2 × 2 max pooling, which follows
            their first convolution.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: a width or `convolutions` below 1, or `pools` not in 0..stages.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"widths must be one or more numbers ≥ 1, got {widths!r}")
    if convolutions < 1:
        raise ValueError(f"convolutions must be ≥ 1, got {convolutions!r}")
    if not 0 <= pools <= len(widths):
        raise ValueError(f"pools must be 0 to {len(widths)}, got {pools!r}")
    return tuple(
        ConvolutionStage(width=width, convolutions=convolutions, pool=index < pools)
        for index, width in enumerate(widths)
    )
