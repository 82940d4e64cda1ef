"""The auxiliary classifier of GreedyDIB: features straight to the output layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.convolution import average_pool_to
from dib_jax.models.feedback import dense
from dib_jax.models.options import check_at_least


def flatten(features: jax.Array, pool: int) -> jax.Array:
    """Features as vectors, feature maps averaged over a pool × pool grid first.

    Args:
        features: (n, h, w, c) or (n, d).
        pool: side of the grid; 0 keeps feature maps at full size.

    Returns:
        (n, min(h, pool) · min(w, pool) · c) or (n, d).
    """
    if features.ndim == 4 and pool > 0:
        features = average_pool_to(features, pool)
    return features.reshape(features.shape[0], -1)


class Linear(nn.Module):
    """Average pooling to a grid, then one dense layer: (n, …) → (n, num_outputs).

    Attributes:
        num_outputs: size of the task's output.
        pool: side of the grid; 0 keeps feature maps at full size.
        feedback: what errors come back through, one of `feedback.RULES`; the algorithm
            of that name sets it.
    """

    num_outputs: int
    pool: int
    feedback: str = ""

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        layer = dense(self.num_outputs, feedback=self.feedback)
        return jnp.asarray(layer(flatten(features, self.pool)))


def linear(*, num_outputs: int, pool: int = 2) -> nn.Module:
    """A linear auxiliary classifier, the one of GreedyDIB.

    Args:
        num_outputs: size of the task's output.
        pool: feature maps are averaged over a pool × pool grid first; 0 keeps them
            at full size.

    Returns:
        A linen module (n, …) → (n, num_outputs).

    Raises:
        ValueError: `pool` is negative.

    Source: Lyu, Wu & Du, arXiv 2510.27651, whose abstract says that the auxiliary
    classifier "connects directly to the output layer"; the grid is our reading.
    """
    check_at_least(0, pool=pool)
    return Linear(num_outputs=num_outputs, pool=pool)
