"""Multi-layer perceptrons: each stage one dense layer."""

import flax.linen as nn
import jax

from dib_jax.models.normalization import BatchNorm


class DenseStage(nn.Module):
    """Flatten, dense layer, batch norm if wanted, ReLU: (n, …) → (n, width).

    Attributes:
        width: number of outputs.
        batch_norm: whether a batch norm stands before the ReLU.
    """

    width: int
    batch_norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(self.width, kernel_init=nn.initializers.he_normal())(x)
        if self.batch_norm:
            return BatchNorm(relu=True)(x, train=train)
        return nn.relu(x)


def mlp(
    *, widths: tuple[int, ...] = (512, 512, 512), batch_norm: bool = True
) -> tuple[nn.Module, ...]:
    """A multi-layer perceptron, (n, …) → (n, widths[-1]).

    Args:
        widths: outputs of each stage; as many stages as numbers.
        batch_norm: whether every stage has a batch norm before its ReLU.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: no width, or a width below 1.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"widths must be one or more numbers ≥ 1, got {widths!r}")
    return tuple(DenseStage(width=width, batch_norm=batch_norm) for width in widths)
