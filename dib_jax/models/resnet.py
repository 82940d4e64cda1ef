"""Residual networks for small pictures: a stem, then one stage for each residual block.

Source: He, Zhang, Ren & Sun, arXiv 1512.03385 (section 4.2 for the CIFAR networks).
"""

import functools

import flax.linen as nn
import jax

from dib_jax.models.convolution import Convolution
from dib_jax.models.feedback import check_feedback
from dib_jax.models.normalization import BatchNorm
from dib_jax.models.options import check_at_least

# Blocks per resolution, and the first resolution's width, of the ImageNet networks.
_WIDE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class Stem(nn.Module):
    """3 × 3 convolution, batch norm, ReLU: (n, h, w, c) → (n, h, w, width).

    Attributes:
        width: number of output channels.
        feedback: of the stages that follow; to its own input no error need come back.
    """

    width: int
    feedback: str = ""

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
        feedback: what errors come back through, one of `feedback.RULES`.
    """

    width: int
    stride: int = 1
    feedback: str = ""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        convolution = functools.partial(Convolution, self.width, feedback=self.feedback)
        y = convolution(stride=self.stride, name="conv1")(x)
        y = BatchNorm(activation=nn.relu, name="norm1")(y, train=train)
        y = convolution(name="conv2")(y)
        y = BatchNorm(name="norm2")(y, train=train)
        if x.shape != y.shape:
            x = convolution(size=1, stride=self.stride, name="shortcut")(x)
            x = BatchNorm(name="shortcut_norm")(x, train=train)
        return nn.relu(x + y)


def resnet(
    *, depth: int = 18, width: int = 0, feedback: str = ""
) -> tuple[nn.Module, ...]:
    """ResNet-18 or -34 with a 3 × 3 stem, or the CIFAR networks of depth 6m + 2.

    Args:
        depth: 18 or 34 (four resolutions), or 20, 26, 32, … 110, … = 6m + 2 (three).
        width: channels at the first resolution, doubled at each following one;
            0 for the paper's width (64 for 18 and 34, else 16).
        feedback: with algorithm.name=feedback, what errors come back through: alignment
            (random, fixed), sign_uniform, sign_random_batch, sign_random_fixed (the
            weights' signs), kolen_pollack (needs sgd with momentum and weight decay:
            adamw leaves it unaligned) or mirror; empty for the weights themselves.

    Returns:
        The stages, input side first: the stem, then a stage for each residual block.

    Raises:
        ValueError: another depth, a negative width, or an unknown `feedback`.
    """
    check_feedback(feedback)
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
    stages: list[nn.Module] = [Stem(width=width, feedback=feedback)]
    for resolution, count in enumerate(blocks):
        for index in range(count):
            stride = 2 if resolution > 0 and index == 0 else 1
            stages.append(
                ResidualStage(
                    width=width * 2**resolution, stride=stride, feedback=feedback
                )
            )
    return tuple(stages)
