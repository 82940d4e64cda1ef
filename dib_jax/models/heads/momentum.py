"""An auxiliary classifier that follows the weights of the network's next stage."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.heads.linear import Linear, check_readout, flatten
from dib_jax.models.options import check_one_of

_BIASES = ("stage", "channels", "none")


class Momentum(nn.Module):
    """A follower of the next stage plus a trained bias, pooling, output layer.

    The follower has the architecture of the next stage. Its weights are the collection
    `follower`, which no gradient reaches: the algorithm `momentum` moves them towards
    the weights of the next stage. Its batch statistics are those of its input.

    Attributes:
        num_outputs: size of the task's output.
        following: the next stage of the network.
        bias: stage (the output of a second stage of this architecture, whose weights
            are trained), channels (a number for each channel) or none.
        pool: side of the grid; 0 keeps feature maps at full size.
        pooling: of each cell, mean or max.
        output_scale: factor of what the output layer puts out.
    """

    num_outputs: int
    following: nn.Module
    bias: str
    pool: int
    pooling: str = "mean"
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        x = self._follower(features, train=train)
        if self.bias == "stage":
            x = x + self.following(features, train=train)
        elif self.bias == "channels":
            zeros = nn.initializers.zeros
            x = x + self.param("bias", zeros, x.shape[-1:], jnp.float32)
        vectors = flatten(x, self.pool, self.pooling)
        return nn.Dense(self.num_outputs)(vectors) * self.output_scale

    def _follower(self, x: jax.Array, *, train: bool) -> jax.Array:
        stage = self.following.clone(parent=None)
        initial: Mapping[str, Any] = {}
        if self.is_initializing():
            initial = stage.init(self.make_rng("params"), x, train=False)
        weights = self.variable("follower", "params", lambda: initial["params"])
        params = jax.tree.map(lambda w: w.astype(x.dtype), weights.value)
        # A stage without a norm has no batch statistics.
        if "batch_stats" not in initial and not self.has_variable(
            "batch_stats", "follower"
        ):
            return jnp.asarray(stage.apply({"params": params}, x, train=train))
        statistics = self.variable(
            "batch_stats", "follower", lambda: initial["batch_stats"]
        )
        variables = {"params": params, "batch_stats": statistics.value}
        y, updated = stage.apply(variables, x, train=train, mutable=["batch_stats"])
        if train and not self.is_initializing():
            statistics.value = updated["batch_stats"]
        return y


def momentum(
    *,
    num_outputs: int,
    stage: int,
    stages: tuple[nn.Module, ...],
    bias: str = "stage",
    pool: int = 2,
    pooling: str = "mean",
    output_scale: float = 1.0,
) -> nn.Module:
    """A head whose weights follow those of the next stage (algorithm.name=momentum).

    A copy of the next stage, plus a trained bias, then a trained output layer. The
    algorithm `momentum` trains all stages at once and moves the copy towards the next
    stage after every step; under another algorithm the copy stays as it is. The last
    stage has the linear head. The head's loss has no gradient for the next stage.

    Args:
        num_outputs: size of the task's output.
        stage: number of the stage that the head belongs to, from 0.
        stages: the network's, input side first.
        bias: what is added to the follower's output and trained: stage (a second stage
            of the same kind), channels (a number for each channel) or none.
        pool: feature maps are pooled to a pool × pool grid before the output layer; 0
            keeps them at full size.
        pooling: of each cell of the grid, mean or max.
        output_scale: factor of the outputs; below 1 it softens what large features
            would make too sure.

    Returns:
        A linen module (n, …) → (n, num_outputs).

    Raises:
        ValueError: an unknown `bias` or `pooling`, `pool` negative, or `output_scale`
            not above 0.

    Source: MAN (Su et al., arXiv 2407.05623); the head follows the first stage of the
    next block. The bias `stage` is that of the authors' code, where convolutions and
    dense layers follow, in place of the one output layer here.
    """
    check_one_of(_BIASES, bias=bias)
    check_readout(pool, pooling, output_scale)
    readout: dict[str, Any] = {
        "pool": pool,
        "pooling": pooling,
        "output_scale": output_scale,
    }
    if stage + 1 == len(stages):
        return Linear(num_outputs=num_outputs, **readout)
    return Momentum(
        num_outputs=num_outputs, following=stages[stage + 1], bias=bias, **readout
    )
