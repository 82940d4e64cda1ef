"""Multi-layer perceptrons: each stage one dense layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class DenseStage(nn.Module):
    """Flatten, dense layer, batch norm if wanted, ReLU: (n, …) → (n, parts · width).

    Attributes:
        width: number of outputs, of each part.
        batch_norm: whether a batch norm stands before the ReLU.
        parts: layers side by side.
        shared: whether all parts get the whole input, or each its own part of it.
    """

    width: int
    batch_norm: bool = True
    parts: int = 1
    shared: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        if self.shared or self.parts == 1:
            wide = self.parts * self.width
            x = nn.Dense(wide, kernel_init=nn.initializers.he_normal())(x)
        else:
            x = self._side_by_side(x.reshape(x.shape[0], self.parts, -1))
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.relu(x)

    def _side_by_side(self, x: jax.Array) -> jax.Array:
        """A dense layer for each part: (n, parts, d) → (n, parts · width)."""
        kernel = self.param(
            "kernel",
            nn.initializers.he_normal(batch_axis=0),
            (self.parts, x.shape[-1], self.width),
        )
        bias = self.param("bias", nn.initializers.zeros, (self.parts * self.width,))
        return jnp.einsum("npd,pdw->npw", x, kernel).reshape(x.shape[0], -1) + bias


def mlp(
    *,
    widths: tuple[int, ...] = (512, 512, 512),
    batch_norm: bool = True,
    parts: int = 1,
) -> tuple[nn.Module, ...]:
    """A multi-layer perceptron, (n, …) → (n, parts · widths[-1]).

    Args:
        widths: outputs of each stage; as many stages as numbers.
        batch_norm: whether every stage has a batch norm before its ReLU.
        parts: networks of these widths side by side, with nothing in common but their
            input; their features follow one another.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: no width, a width below 1, or `parts` below 1.
    """
    if parts < 1:
        raise ValueError(f"parts must be ≥ 1, got {parts!r}")
    if not widths or min(widths) < 1:
        raise ValueError(f"widths must be one or more numbers ≥ 1, got {widths!r}")
    return tuple(
        DenseStage(width=width, batch_norm=batch_norm, parts=parts, shared=index == 0)
        for index, width in enumerate(widths)
    )
