"""Graph convolutions: each stage joins neighbours, then a dense layer."""

import flax.linen as nn

from dib_jax.models.graph import Convolution, check_layers


def gcn(
    *,
    widths: tuple[int, ...] = (16, 16),
    activation: str = "relu",
    skip: bool = False,
    bias: bool = True,
    identity: bool = False,
) -> tuple[nn.Module, ...]:
    """A graph convolutional network, (n, d) → (n, widths[-1]).

    Args:
        widths: outputs of each layer; as many stages as numbers.
        activation: relu, elu or none, after each layer.
        skip: whether each layer adds the node's own features, by weights of their own.
        bias: whether each layer adds a constant.
        identity: with `skip`, whether a layer as wide as its input starts near the
            identity: a node's features as they are, plus a little of its neighbours'.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: no width, a width below 1, an unknown activation, or `identity`
            without `skip`.

    Source: Kipf & Welling, arXiv 1609.02907; how neighbours are joined is the
    algorithm's `rule`.
    """
    check_layers(widths, activation)
    if identity and not skip:
        raise ValueError(
            "identity=True needs skip=True: it is of the weights of a node's features"
        )
    options = activation, skip, bias, identity
    return tuple(Convolution(width, *options) for width in widths)
