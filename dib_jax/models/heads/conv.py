"""An auxiliary classifier of convolutions, for stages that output feature maps."""

import flax.linen as nn
import jax

from dib_jax.models.cnn import ConvolutionStage
from dib_jax.models.heads.linear import flatten


class Convolutional(nn.Module):
    """3 × 3 convolutions with norm and ReLU, average pooling to a grid, output layer.

    Attributes:
        num_outputs: size of the task's output.
        layers: number of convolutions.
        width: channels of each; 0 for as many as the stage has.
        pool: side of the grid; 0 keeps feature maps at full size.
    """

    num_outputs: int
    layers: int
    width: int
    pool: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        if features.ndim != 4:
            raise ValueError(
                "the conv head needs feature maps (n, h, w, c), got shape "
                f"{features.shape}; use head.name=mlp or linear"
            )
        x = ConvolutionStage(
            width=self.width or features.shape[-1],
            convolutions=self.layers,
            pool=False,
        )(features, train=train)
        return nn.Dense(self.num_outputs)(flatten(x, self.pool))


def conv(
    *, num_outputs: int, layers: int = 1, width: int = 0, pool: int = 2
) -> nn.Module:
    """An auxiliary classifier of `layers` 3 × 3 convolutions and a linear output layer.

    Args:
        num_outputs: size of the task's output.
        layers: number of convolutions; the k − 1 of Belilovsky et al., whose k = 1 is
            the linear head.
        width: channels of each convolution; 0 for as many as the stage has.
        pool: feature maps are averaged over a pool × pool grid before the output
            layer; 0 keeps them at full size.

    Returns:
        A linen module (n, h, w, c) → (n, num_outputs).

    Raises:
        ValueError: `layers` below 1, `width` or `pool` negative.

    Source: Belilovsky, Eickenberg & Oyallon, arXiv 1812.11446, section 3.
    """
    if layers < 1:
        raise ValueError(f"layers must be ≥ 1, got {layers!r}")
    if width < 0 or pool < 0:
        raise ValueError(f"width and pool must be ≥ 0, got {width!r} and {pool!r}")
    return Convolutional(num_outputs=num_outputs, layers=layers, width=width, pool=pool)
