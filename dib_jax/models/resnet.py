"""Residual networks for small pictures: a stem, then one stage for each residual block.

Source: He, Zhang, Ren & Sun, arXiv 1512.03385 (section 4.2 for the CIFAR networks).
"""

import flax.linen as nn
import jax

from dib_jax.models.convolution import Convolution
from dib_jax.models.normalization import BatchNorm
from dib_jax.models.options import check_at_least

# Blocks per resolution, and the first resolution's width, of the ImageNet networks.
_WIDE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class Stem(nn.Module):
    """3 × 3 convolution, batch norm, ReLU: (n, h, w, c) → (n, h, w, width).

    Attributes:
        width: number of output channels.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Convolution(self.width)(x)
        return BatchNorm(activation=nn.relu)(x, train=train)


class ResidualStage(nn.Module):
    """One basic block: ReLU(x + norm(conv(ReLU(norm(conv(x)))))).

    Where the shape changes, x passes through a strided 1 × 1 convolution and a norm.

    Attributes:
        width: number of output channels.
        stride: of the first convolution, in pixels.
    """

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = Convolution(self.width, stride=self.stride, name="conv1")(x)
        y = BatchNorm(activation=nn.relu, name="norm1")(y, train=train)
        y = Convolution(self.width, name="conv2")(y)
        y = BatchNorm(name="norm2")(y, train=train)
        if x.shape != y.shape:
            x = Convolution(self.width, size=1, stride=self.stride, name="shortcut")(x)
            x = BatchNorm(name="shortcut_norm")(x, train=train)
        return nn.relu(x + y)


def resnet(*, depth: int = 18, width: int = 0) -> tuple[nn.Module, ...]:
    """ResNet-18 or -34 with a 3 × 3 stem, or the CIFAR networks of depth 6m + 2.

    Args:
        depth: 18 or 34 (four resolutions), or 20, 26, 32, … 110, … = 6m + 2 (three).
        width: channels at the first resolution, doubled at each following one;
            0 for the paper's width (64 for 18 and 34, else 16).

    Returns:
        The stages, input side first: the stem, then a stage for each residual block.

    Raises:
        ValueError: another depth, or a negative width.
    """
    check_at_least(0, width=width)
    blocks: tuple[int, ...]
    if depth in _WIDE:
        blocks, width = _WIDE[depth], width or 64
    elif depth >= 8 and depth % 6 == 2:
        blocks, width = ((depth - 2) // 6,) * 3, width or 16
    else:
        raise ValueError(
            f"depth must be 18, 34 or 6m + 2 (20, 32, 56, …), got {depth!r}"
        )
    stages: list[nn.Module] = [Stem(width=width)]
    for resolution, count in enumerate(blocks):
        for index in range(count):
            stride = 2 if resolution > 0 and index == 0 else 1
            stages.append(ResidualStage(width=width * 2**resolution, stride=stride))
    return tuple(stages)
