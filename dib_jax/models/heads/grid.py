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
        scales: number of grids, each of half the side of the one before.
        layers: number of 3 × 3 convolutions with norm and ReLU.
        width: channels of each; 0 for as many as the stage has.
    """

    num_outputs: int
    places: int
    scales: int
    layers: int
    width: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        if features.ndim != 4:
            raise ValueError(
                "the grid head needs feature maps (n, h, w, c), got shape "
                f"{features.shape}; use a network of convolutions"
            )
        x = coarse = average_pool_to(features, self.places)
        most = min(x.shape[1:3]).bit_length()
        if self.scales > most:
            raise ValueError(
                f"a grid of {x.shape[1]} × {x.shape[2]} places has at most {most} "
                f"scales, got scales={self.scales}"
            )
        for _ in range(self.scales - 1):
            coarse = ConvolutionStage(width=features.shape[-1])(coarse, train=train)
            x += jax.image.resize(coarse, x.shape, "linear")
        if self.layers:
            x = ConvolutionStage(
                width=self.width or features.shape[-1],
                convolutions=self.layers,
                pool=False,
            )(x, train=train)
        return nn.Dense(self.num_outputs)(x)


def grid(
    *,
    num_outputs: int,
    places: int = 16,
    scales: int = 1,
    layers: int = 1,
    width: int = 0,
) -> nn.Module:
    """A head with outputs for each place of a grid, for scenes with several objects.

    With one scale a place sees as much of the picture as the stage's convolutions
    reach. An object that is larger is told by its parts. Each further scale is a 3 × 3
    convolution on a grid of half the side, with norm, ReLU and pooling; what it says is
    added to the places that it covers. So a place sees twice as far with each.

    Args:
        num_outputs: size of the task's output at each place.
        places: side of the grid that feature maps are averaged over; smaller maps stay
            as they are.
        scales: number of grids, 1 or more; the coarsest has a side of at least 1.
        layers: number of 3 × 3 convolutions before the output layer, 0 or more.
        width: channels of each convolution; 0 for as many as the stage has.

    Returns:
        A linen module (n, h, w, c) → (n, min(h, places), min(w, places), num_outputs).

    Raises:
        ValueError: `places` or `scales` below 1, `layers` or `width` negative; when
            called, features without places, or fewer than the scales need.

    Source: of the scales, in the manner of Lin et al., arXiv 1612.03144 (feature
    pyramids), with outputs on the finest grid alone.
    """
    check_at_least(1, places=places, scales=scales)
    check_at_least(0, layers=layers, width=width)
    return Grid(
        num_outputs=num_outputs,
        places=places,
        scales=scales,
        layers=layers,
        width=width,
    )
