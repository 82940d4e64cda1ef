"""Graph attention: each stage weighs a node's neighbours by what they hold."""

import flax.linen as nn

from dib_jax.models.graph import Attention, check_layers


def gat(
    *,
    widths: tuple[int, ...] = (64, 64),
    heads: int = 4,
    activation: str = "elu",
    skip: bool = False,
) -> tuple[nn.Module, ...]:
    """A graph attention network, (n, d) → (n, widths[-1]).

    Args:
        widths: outputs of each layer, of all heads together; as many stages as numbers.
        heads: of each layer.
        activation: relu, elu or none, after each layer.
        skip: whether each layer adds the node's own features, by weights of their own.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: no width, a width that is no multiple of `heads`, or an unknown
            activation.

    Source: Veličković et al., arXiv 1710.10903.
    """
    check_layers(widths, activation, heads)
    return tuple(Attention(width, heads, activation, skip) for width in widths)
