"""The auxiliary classifier of GreedyDIB: features straight to the output layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.convolution import average_pool_to, max_pool_to
from dib_jax.models.feedback import dense
from dib_jax.models.options import check_at_least, check_one_of, check_positive

POOLINGS = {"mean": average_pool_to, "max": max_pool_to}


def flatten(features: jax.Array, pool: int, pooling: str = "mean") -> jax.Array:
    """Features as vectors, feature maps pooled to a pool × pool grid first.

    Args:
        features: (n, h, w, c) or (n, d).
        pool: side of the grid; 0 keeps feature maps at full size.
        pooling: of each cell, mean or max.

    Returns:
        (n, min(h, pool) · min(w, pool) · c) or (n, d).
    """
    if features.ndim == 4 and pool > 0:
        features = POOLINGS[pooling](features, pool)
    return features.reshape(features.shape[0], -1)


class Linear(nn.Module):
    """Pooling to a grid, then one dense layer: (n, …) → (n, num_outputs).

    Attributes:
        num_outputs: size of the task's output.
        pool: side of the grid; 0 keeps feature maps at full size.
        pooling: of each cell, mean or max.
        output_scale: factor of what the layer puts out.
        feedback: what errors come back through, one of `feedback.RULES`; the algorithm
            of that name sets it.
    """

    num_outputs: int
    pool: int
    pooling: str = "mean"
    output_scale: float = 1.0
    feedback: str = ""

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        layer = dense(self.num_outputs, feedback=self.feedback)
        vectors = flatten(features, self.pool, self.pooling)
        return jnp.asarray(layer(vectors)) * self.output_scale


def linear(
    *, num_outputs: int, pool: int = 2, pooling: str = "mean", output_scale: float = 1.0
) -> nn.Module:
    """A linear auxiliary classifier, the one of GreedyDIB.

    Args:
        num_outputs: size of the task's output.
        pool: feature maps are pooled to a pool × pool grid first; 0 keeps them at full
            size.
        pooling: of each cell of the grid, mean or max.
        output_scale: factor of the outputs; below 1 it softens what large features
            would make too sure.

    Returns:
        A linen module (n, …) → (n, num_outputs).

    Raises:
        ValueError: `pool` is negative, `output_scale` not above 0, or another
            `pooling`.

    Source: Lyu, Wu & Du, arXiv 2510.27651, whose abstract says that the auxiliary
    classifier "connects directly to the output layer"; the grid is our reading.
    """
    check_readout(pool, pooling, output_scale)
    return Linear(
        num_outputs=num_outputs, pool=pool, pooling=pooling, output_scale=output_scale
    )


def check_readout(pool: int, pooling: str, output_scale: float) -> None:
    """Refuse options of an output layer that cannot be.

    Raises:
        ValueError: as of `linear`.
    """
    check_at_least(0, pool=pool)
    check_one_of(POOLINGS, pooling=pooling)
    check_positive(output_scale=output_scale)
