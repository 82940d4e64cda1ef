"""Multi-layer perceptrons: each stage one dense layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.feedback import check_feedback, dense
from dib_jax.models.normalization import BatchNorm
from dib_jax.models.options import (
    check_at_least,
    check_layer_widths,
    check_one_of,
    check_positive,
)

ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid, "tanh": nn.tanh}


class DenseStage(nn.Module):
    """Flatten, dense, perhaps batch norm, nonlinearity: (n, …) → (n, parts · width).

    Attributes:
        width: number of outputs, of each part.
        batch_norm: whether a batch norm stands before the nonlinearity.
        parts: layers side by side.
        shared: whether every part gets the whole input; otherwise each gets one of
            `parts` equal pieces of it.
        gain: of the initial weights, in units of He's.
        feedback: what errors come back through, one of `feedback.RULES`.
        first: whether its input is the network's, which no error need come back to.
        activation: the nonlinearity, one of `ACTIVATIONS`.
    """

    width: int
    batch_norm: bool = True
    parts: int = 1
    shared: bool = True
    gain: float = 1.0
    feedback: str = ""
    first: bool = False
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        if self.shared or self.parts == 1:
            wide = self.parts * self.width
            rule = "" if self.first else self.feedback
            x = dense(wide, feedback=rule, kernel_init=self._initializer())(x)
        else:
            x = self._side_by_side(x.reshape(x.shape[0], self.parts, -1))
        activation = ACTIVATIONS[self.activation]
        if self.batch_norm:
            return BatchNorm(activation=activation)(x, train=train)
        return activation(x)

    def _initializer(self, **axes: int) -> nn.initializers.Initializer:
        variance = 2 * self.gain**2
        return nn.initializers.variance_scaling(
            variance, "fan_in", "truncated_normal", **axes
        )

    def _side_by_side(self, x: jax.Array) -> jax.Array:
        """A dense layer for each part: (n, parts, d) → (n, parts · width)."""
        kernel = self.param(
            "kernel",
            self._initializer(batch_axis=0),
            (self.parts, x.shape[-1], self.width),
            jnp.float32,
        )
        wide = (self.parts * self.width,)
        bias = self.param("bias", nn.initializers.zeros, wide, jnp.float32)
        return jnp.einsum("npd,pdw->npw", x, kernel).reshape(x.shape[0], -1) + bias


def mlp(
    *,
    widths: tuple[int, ...] = (512, 512, 512),
    batch_norm: bool = True,
    parts: int = 1,
    gain: float = 1.0,
    feedback: str = "",
    activation: str = "relu",
) -> tuple[nn.Module, ...]:
    """A multi-layer perceptron, (n, …) → (n, parts · widths[-1]).

    Args:
        widths: outputs of each stage; as many stages as numbers.
        batch_norm: whether every stage has a batch norm before its nonlinearity.
        parts: networks of these widths side by side, with nothing in common but their
            input; their features follow one another.
        gain: of the initial weights, in units of He's; without batch norms, each layer
            changes the size of its features by about this factor. PyTorch's default
            for dense layers has the variance of 0.41.
        feedback: with algorithm.name=feedback, what errors come back through: alignment
            (random, fixed), sign_uniform, sign_random_batch, sign_random_fixed (the
            weights' signs), kolen_pollack (needs sgd with momentum and weight decay:
            adamw leaves it unaligned) or mirror; empty for the weights themselves.
        activation: the nonlinearity: relu, sigmoid or tanh.

    Returns:
        The stages, input side first.

    Raises:
        ValueError: no width, a width below 1, `parts` below 1 or, with feedback, above
            1, `gain` not above 0, or an unknown `feedback` or `activation`.
    """
    check_layer_widths(widths)
    check_at_least(1, parts=parts)
    check_positive(gain=gain)
    check_feedback(feedback)
    check_one_of(ACTIVATIONS, activation=activation)
    if feedback and parts > 1:
        raise ValueError(f"parts must be 1 with model.feedback, got {parts!r}")
    return tuple(
        DenseStage(
            width=width,
            batch_norm=batch_norm,
            parts=parts,
            shared=index == 0,
            gain=gain,
            feedback=feedback,
            first=index == 0,
            activation=activation,
        )
        for index, width in enumerate(widths)
    )
