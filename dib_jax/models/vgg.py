"""VGG networks for small pictures: each stage one 3 × 3 convolution.

Source: Simonyan & Zisserman, arXiv 1409.1556; with batch norm, and without dense layers
before the output, as is usual on CIFAR.
"""

import flax.linen as nn

from dib_jax.models.cnn import ConvolutionStage
from dib_jax.models.feedback import check_feedback
from dib_jax.models.options import check_at_least, check_one_of

# Channels of each convolution in units of 64; "M" is a 2 × 2 max pooling.
_LAYOUTS = {
    11: "1 M 2 M 4 4 M 8 8 M 8 8 M",
    13: "1 1 M 2 2 M 4 4 M 8 8 M 8 8 M",
    16: "1 1 M 2 2 M 4 4 4 M 8 8 8 M 8 8 8 M",
    19: "1 1 M 2 2 M 4 4 4 4 M 8 8 8 8 M 8 8 8 8 M",
}


def vgg(
    *, depth: int = 11, width: int = 64, pools: int = 5, feedback: str = ""
) -> tuple[nn.Module, ...]:
    """VGG-11, -13, -16 or -19 with batch norm: 8, 10, 13 or 16 stages.

    Args:
        depth: 11, 13, 16 or 19, as the network is called.
        width: channels of the first stage; the others are 2, 4 and 8 times as wide.
        pools: how many of the five 2 × 2 poolings there are, counted from the input
            (five take a 32 × 32 picture to 1 × 1).
        feedback: with algorithm.name=feedback, what errors come back through: alignment
            (random, fixed), sign_uniform, sign_random_batch, sign_random_fixed (the
            weights' signs), kolen_pollack (needs sgd with momentum and weight decay:
            adamw leaves it unaligned) or mirror; empty for the weights themselves.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: another depth, a width below 1, `pools` not in 0..5, or an unknown
            `feedback`.
    """
    check_feedback(feedback)
    check_one_of(_LAYOUTS, depth=depth)
    check_at_least(1, width=width)
    if not 0 <= pools <= 5:
        raise ValueError(f"pools must be 0 to 5, got {pools!r}")
    stages: list[nn.Module] = []
    layout = _LAYOUTS[depth].split()
    for token, following in zip(layout, [*layout[1:], ""], strict=True):
        if token == "M":
            continue
        pool = following == "M" and pools > 0
        pools -= pool
        stages.append(
            ConvolutionStage(
                width=width * int(token),
                pool=pool,
                feedback=feedback,
                first=not stages,
            )
        )
    return tuple(stages)
