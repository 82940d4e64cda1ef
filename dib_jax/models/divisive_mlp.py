"""Multi-layer perceptrons whose layers end with divisive normalisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.options import check_layer_widths


class DivisiveStage(nn.Module):
    """Flatten, dense layer, leaky ReLU, divisive normalisation: (n, …) → (n, width).

    Each group of neighbouring units is centred and divided by a power of its variance
    (δ + Σ (x_i − their mean)²)/their number.

    Attributes:
        width: number of outputs.
        groups: number of groups.
        power: exponent of the variance.
        smoothing: δ.
    """

    width: int
    groups: int
    power: float
    smoothing: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(self.width, kernel_init=nn.initializers.he_normal())(x)
        x = nn.leaky_relu(x)
        groups = x.reshape(x.shape[0], self.groups, -1)
        groups = groups - groups.mean(axis=-1, keepdims=True)
        squares = jnp.sum(groups**2, axis=-1, keepdims=True)
        variance = (squares + self.smoothing) / groups.shape[-1]
        return (groups / variance**self.power).reshape(x.shape)


def divisive_mlp(
    *,
    widths: tuple[int, ...] = (1024, 1024, 1024),
    groups: int = 32,
    power: float = 0.2,
    smoothing: float = 1.0,
) -> tuple[nn.Module, ...]:
    """A multi-layer perceptron with divisive normalisation, (n, …) → (n, widths[-1]).

    Args:
        widths: outputs of each stage; as many stages as numbers.
        groups: number of groups that the units of each stage form; it divides every
            width.
        power: exponent of the variance that a group's units are divided by, 0 to 1;
            at 0 the units are centred only.
        smoothing: added to the sum of squares in a group's variance, > 0.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: no width, one below 1 or not a multiple of `groups`, `power` not in
            0..1, or `smoothing` not above 0.

    Source: Pogodin & Latham, arXiv 2006.07123, section 3.4; the options are those of
    their published runs.
    """
    check_layer_widths(widths)
    if groups < 1 or any(width % groups for width in widths):
        raise ValueError(f"groups must divide every width {widths!r}, got {groups!r}")
    if not 0 <= power <= 1:
        raise ValueError(f"power must be 0 to 1, got {power!r}")
    if not smoothing > 0:
        raise ValueError(f"smoothing must be > 0, got {smoothing!r}")
    return tuple(
        DivisiveStage(width=width, groups=groups, power=power, smoothing=smoothing)
        for width in widths
    )
