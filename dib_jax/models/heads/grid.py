"""An auxiliary head with outputs for every place of a grid over the picture."""

import flax.linen as nn
import jax

from dib_jax.models.cnn import ConvolutionStage
from dib_jax.models.convolution import average_pool_to
from dib_jax.models.options import check_at_least


class Grid(nn.Module):
    """Average pooling to a grid, convolutions, one dense layer shared by all places.

    Attributes:
        num_outputs: size of the task's output at each place.
        places: side of the grid.
        layers: number of 3 × 3 convolutions with norm and ReLU.
        width: channels of each; 0 for as many as the stage has.
    """

    num_outputs: int
    places: int
    layers: int
    width: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        if features.ndim != 4:
            raise ValueError(
                "the grid head needs feature maps (n, h, w, c), got shape "
                f"{features.shape}; use a network of convolutions"
            )
        x = average_pool_to(features, self.places)
        if self.layers:
            x = ConvolutionStage(
                width=self.width or features.shape[-1],
                convolutions=self.layers,
                pool=False,
            )(x, train=train)
        return nn.Dense(self.num_outputs)(x)


def grid(
    *, num_outputs: int, places: int = 16, layers: int = 1, width: int = 0
) -> nn.Module:
    """A head with outputs for each place of a grid, for scenes with several objects.

    Args:
        num_outputs: size of the task's output at each place.
        places: side of the grid that feature maps are averaged over; smaller maps stay
            as they are.
        layers: number of 3 × 3 convolutions before the output layer, 0 or more.
        width: channels of each convolution; 0 for as many as the stage has.

    Returns:
        A linen module (n, h, w, c) → (n, min(h, places), min(w, places), num_outputs).

    Raises:
        ValueError: `places` below 1, `layers` or `width` negative.
    """
    check_at_least(1, places=places)
    check_at_least(0, layers=layers, width=width)
    return Grid(num_outputs=num_outputs, places=places, layers=layers, width=width)
