"""LeNet: convolutions and poolings, then dense layers; no norms.

Source: LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document
recognition, Proc. IEEE 86, 1998; with ReLU, max pooling and zero-padded convolutions.
"""

import flax.linen as nn
import jax

from dib_jax.models.convolution import Convolution, max_pool
from dib_jax.models.feedback import check_feedback
from dib_jax.models.mlp import DenseStage
from dib_jax.models.options import check_layer_widths


class PooledConvolution(nn.Module):
    """Convolution, bias, 2 × 2 max pooling, ReLU: (n, h, w, c) → (n, ⌊h/2⌋, …, width).

    Attributes:
        width: number of output channels.
        size: side of the kernel, odd.
        feedback: what errors come back through, one of `feedback.RULES`.
        first: whether its input is the network's, which no error need come back to.
    """

    width: int
    size: int
    feedback: str = ""
    first: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        rule = "" if self.first else self.feedback
        x = max_pool(Convolution(self.width, size=self.size, feedback=rule)(x))
        # After pooling, which neither of them changes, on a quarter of the pixels.
        return nn.relu(x + self.param("bias", nn.initializers.zeros, (self.width,)))


def lenet(
    *,
    widths: tuple[int, ...] = (6, 16),
    dense: tuple[int, ...] = (120, 84),
    size: int = 5,
    feedback: str = "",
) -> tuple[nn.Module, ...]:
    """LeNet-5, or one like it, (n, h, w, c) → (n, dense[-1]).

    Args:
        widths: channels of each convolution, which a 2 × 2 max pooling follows.
        dense: outputs of each dense layer after them.
        size: side of the kernels, odd.
        feedback: with algorithm.name=feedback, what errors come back through: alignment
            (random, fixed), sign_uniform, sign_random_batch, sign_random_fixed (the
            weights' signs), kolen_pollack (needs sgd with momentum and weight decay:
            adamw leaves it unaligned) or mirror; empty for the weights themselves.

    Returns:
        The stages, one for each layer, input side first.

    Raises:
        ValueError: no width or one below 1, no dense layer or one below 1, an even
            `size`, or an unknown `feedback`.
    """
    check_layer_widths(widths)
    if not dense or min(dense) < 1:
        raise ValueError(f"dense must be one or more numbers ≥ 1, got {dense!r}")
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and ≥ 1, got {size!r}")
    check_feedback(feedback)
    convolutions = [
        PooledConvolution(width, size, feedback, first=index == 0)
        for index, width in enumerate(widths)
    ]
    layers = [DenseStage(width, batch_norm=False, feedback=feedback) for width in dense]
    return (*convolutions, *layers)
