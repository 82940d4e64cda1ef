"""An auxiliary classifier of dense layers."""

import flax.linen as nn
import jax

from dib_jax.models.heads.linear import flatten
from dib_jax.models.mlp import DenseStage
from dib_jax.models.options import check_at_least


class Perceptron(nn.Module):
    """Average pooling to a grid, hidden dense layers, output layer.

    Attributes:
        num_outputs: size of the task's output.
        layers: number of hidden layers.
        width: of each hidden layer.
        pool: side of the grid; 0 keeps feature maps at full size.
    """

    num_outputs: int
    layers: int
    width: int
    pool: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        x = flatten(features, self.pool)
        for _ in range(self.layers):
            x = DenseStage(self.width)(x, train=train)
        return nn.Dense(self.num_outputs)(x)


def mlp(
    *, num_outputs: int, layers: int = 1, width: int = 256, pool: int = 2
) -> nn.Module:
    """An auxiliary classifier of `layers` hidden dense layers with batch norm and ReLU.

    Args:
        num_outputs: size of the task's output.
        layers: number of hidden layers.
        width: of each hidden layer.
        pool: feature maps are averaged over a pool × pool grid first; 0 keeps them
            at full size.

    Returns:
        A linen module (n, …) → (n, num_outputs).

    Raises:
        ValueError: `layers` or `width` below 1, or `pool` negative.

    Source: the MLP heads of Belilovsky, Eickenberg & Oyallon, arXiv 1901.08164; theirs
    have three hidden layers, as wide as their input.
    """
    check_at_least(1, layers=layers, width=width)
    check_at_least(0, pool=pool)
    return Perceptron(num_outputs=num_outputs, layers=layers, width=width, pool=pool)
