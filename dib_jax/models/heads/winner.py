"""Reading a class off the unit that answers most, as from a one-hot code."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.heads.linear import flatten


class Winner(nn.Module):
    """The greatest unit's row of a table: (n, …) → (n, num_outputs).

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
            "table", nn.initializers.zeros, (x.shape[-1], self.num_outputs)
        )
        return table[jnp.argmax(x, axis=-1)].astype(x.dtype)


def winner(*, num_outputs: int, pool: int = 1) -> nn.Module:
    """A table of which class it is when a unit answers most.

    It learns nothing but which unit stands for which class (the order of a network's
    outputs is arbitrary where no prediction trained it), and no gradient passes it.

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
    if pool < 0:
        raise ValueError(f"pool must be ≥ 0, got {pool!r}")
    return Winner(num_outputs=num_outputs, pool=pool)
