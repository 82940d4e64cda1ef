"""Graph convolutions: each stage joins neighbours, then a dense layer."""

import flax.linen as nn

from dib_jax.models.graph import Convolution, check_layers


def gcn(
    *,
    widths: tuple[int, ...] = (16, 16),
    activation: str = "relu",
    skip: bool = False,
    bias: bool = True,
) -> tuple[nn.Module, ...]:
    """A graph convolutional network, (n, d) → (n, widths[-1]).

    Args:
        widths: outputs of each layer; as many stages as numbers.
        activation: relu, elu or none, after each layer.
        skip: whether each layer adds the node's own features, by weights of their own.
        bias: whether each layer adds a constant.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: no width, a width below 1, or an unknown activation.

    Source: Kipf & Welling, arXiv 1609.02907; how neighbours are joined is the
    algorithm's `rule`.
    """
    check_layers(widths, activation)
    return tuple(Convolution(width, activation, skip, bias) for width in widths)
