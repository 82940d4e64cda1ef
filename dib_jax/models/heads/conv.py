"""An auxiliary classifier of convolutions, for stages that output feature maps."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from dib_jax.models.cnn import ConvolutionStage
from dib_jax.models.heads.linear import Linear, flatten
from dib_jax.models.options import check_at_least, number_for_stage


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
    *,
    num_outputs: int,
    stage: int,
    layers: int | tuple[int, ...] = 1,
    width: int = 0,
    pool: int = 2,
) -> nn.Module:
    """An auxiliary classifier of `layers` 3 × 3 convolutions and a linear output layer.

    Args:
        num_outputs: size of the task's output.
        stage: number of the stage that the head belongs to, from 0.
        layers: number of convolutions, or one number per stage; the k − 1 of Belilovsky
            et al. With 0 it is the linear head; at the last stage that is the
            network's output layer.
        width: channels of each convolution; 0 for as many as the stage has.
        pool: feature maps are averaged over a pool × pool grid before the output
            layer; 0 keeps them at full size.

    Returns:
        A linen module (n, h, w, c) → (n, num_outputs).

    Raises:
        ValueError: `layers`, `width` or `pool` negative, or no number for the stage.

    Source: Belilovsky, Eickenberg & Oyallon, arXiv 1812.11446, section 3.
    """
    for number in layers if isinstance(layers, Sequence) else (layers,):
        check_at_least(0, layers=number)
    check_at_least(0, width=width, pool=pool)
    number = number_for_stage("layers", layers, stage)
    if number == 0:
        return Linear(num_outputs=num_outputs, pool=pool)
    return Convolutional(num_outputs=num_outputs, layers=number, width=width, pool=pool)
