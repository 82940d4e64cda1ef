"""An output layer on the average of several networks that stand side by side."""

import flax.linen as nn
import jax

from dib_jax.models.heads.linear import flatten
from dib_jax.models.options import check_at_least


class Averaged(nn.Module):
    """Mean of `parts` equal parts of the features, one dense layer.

    Attributes:
        num_outputs: size of the task's output.
        parts: number of equal parts of the features (n, parts · d).
    """

    num_outputs: int
    parts: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        x = flatten(features, 0)
        if x.shape[-1] % self.parts:
            raise ValueError(
                f"{x.shape[-1]} features cannot be divided into head.parts "
                f"{self.parts}; give the number of networks side by side"
            )
        x = x.reshape(x.shape[0], self.parts, -1).mean(axis=1)
        return nn.Dense(self.num_outputs)(x)


def averaged(*, num_outputs: int, parts: int = 2) -> nn.Module:
    """A linear classifier of the average of several networks' features.

    Args:
        num_outputs: size of the task's output.
        parts: how many networks stand side by side in the features.

    Returns:
        A linen module (n, parts · d) → (n, num_outputs).

    Raises:
        ValueError: `parts` below 1, or, when applied, no divisor of the features.

    Source: the σ-combined network of Ma, Lewis & Kleijn, arXiv 1908.01580, section 4.
    """
    check_at_least(1, parts=parts)
    return Averaged(num_outputs=num_outputs, parts=parts)
