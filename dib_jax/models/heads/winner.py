"""An auxiliary classifier that reads the class off the most active unit."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.heads.linear import flatten
from dib_jax.models.options import check_at_least


class Winner(nn.Module):
    """The most active unit's row of a table: (n, …) → (n, num_outputs).

    Attributes:
        num_outputs: size of the task's output.
        pool: side of the grid; 0 keeps feature maps at full size.
    """

    num_outputs: int
    pool: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        x = flatten(features, self.pool)
        table = self.param(
            "table",
            nn.initializers.zeros,
            (x.shape[-1], self.num_outputs),
            jnp.float32,
        )
        return table[jnp.argmax(x, axis=-1)].astype(x.dtype)


def winner(*, num_outputs: int, pool: int = 1) -> nn.Module:
    """A table with a row of outputs for each unit; the most active unit chooses it.

    It learns only which unit stands for which class: without a prediction, the order
    of a network's outputs is arbitrary. No gradient reaches the features.

    Args:
        num_outputs: size of the task's output.
        pool: feature maps are averaged over a pool × pool grid first; 0 keeps them
            at full size.

    Returns:
        A linen module (n, …) → (n, num_outputs).

    Raises:
        ValueError: `pool` is negative.

    Source: the reading of unformatted training by Ma, Lewis & Kleijn, arXiv 1908.01580,
    section 3.2, for a last stage as wide as there are classes.
    """
    check_at_least(0, pool=pool)
    return Winner(num_outputs=num_outputs, pool=pool)
