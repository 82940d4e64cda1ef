"""Plain convolutional networks: each stage some convolutions, perhaps a pooling."""

import flax.linen as nn
import jax

from dib_jax.models.convolution import Convolution
from dib_jax.models.feedback import check_feedback
from dib_jax.models.normalization import BatchNorm
from dib_jax.models.options import check_at_least, check_layer_widths, check_one_of


class ConvolutionStage(nn.Module):
    """`convolutions` × (3 × 3 convolution, batch norm, ReLU).

    Attributes:
        width: output channels of every convolution.
        convolutions: how many.
        pool: whether there is 2 × 2 max pooling.
        pool_after: which of the convolutions it follows, "first" or "last".
        feedback: what errors come back through, one of `feedback.RULES`.
        first: whether its input is the network's, which no error need come back to.
    """

    width: int
    convolutions: int = 1
    pool: bool = True
    pool_after: str = "first"
    feedback: str = ""
    first: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        pooled = 0 if self.pool_after == "first" else self.convolutions - 1
        for index in range(self.convolutions):
            rule = "" if self.first and index == 0 else self.feedback
            x = Convolution(self.width, feedback=rule)(x)
            pool = self.pool and index == pooled
            norm = BatchNorm(activation=nn.relu, pool="after" if pool else "")
            x = norm(x, train=train)
        return x


def cnn(
    *,
    widths: tuple[int, ...] = (32, 64, 128),
    convolutions: int = 1,
    pools: int = 3,
    pool_after: str = "first",
    feedback: str = "",
) -> tuple[nn.Module, ...]:
    """A small convolutional network, (n, h, w, c) → (n, h', w', widths[-1]).

    Args:
        widths: channels of each stage; as many stages as numbers.
        convolutions: 3 × 3 convolutions in every stage.
        pools: how many of the first stages have 2 × 2 max pooling.
        pool_after: which of a stage's convolutions it follows: first, the cheaper, or
            last, with which all of them see the stage's input at full resolution.
        feedback: with algorithm.name=feedback, what errors come back through: alignment
            (random, fixed), sign_uniform, sign_random_batch, sign_random_fixed (the
            weights' signs), kolen_pollack (needs sgd with momentum and weight decay:
            adamw leaves it unaligned) or mirror; empty for the weights themselves.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: a width or `convolutions` below 1, `pools` not in 0..stages, or an
            unknown `pool_after` or `feedback`.
    """
    check_feedback(feedback)
    check_layer_widths(widths)
    check_at_least(1, convolutions=convolutions)
    if not 0 <= pools <= len(widths):
        raise ValueError(f"pools must be 0 to {len(widths)}, got {pools!r}")
    check_one_of(("first", "last"), pool_after=pool_after)
    return tuple(
        ConvolutionStage(
            width=width,
            convolutions=convolutions,
            pool=index < pools,
            pool_after=pool_after,
            feedback=feedback,
            first=index == 0,
        )
        for index, width in enumerate(widths)
    )
