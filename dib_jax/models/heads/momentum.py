"""An auxiliary classifier that follows the weights of the network's next stage."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.heads.linear import Linear, flatten

_BIASES = ("stage", "channels", "none")


class Momentum(nn.Module):
    """A follower of the next stage plus a learnable bias, pooling, output layer.

    The follower's weights are the collection `follower`, which no gradient reaches.
    Whoever trains sets them after each step to follower_decay times themselves plus
    (1 − follower_decay) times those of the next stage. Its batch statistics are its
    own, of what it gets.

    Attributes:
        num_outputs: size of the task's output.
        following: the next stage of the network.
        follower_decay: what stays of the follower's weights at each step, 0 to 1.
        bias: stage (what a second such stage puts out, whose weights are trained),
            channels (a number for each channel) or none.
        pool: side of the grid; 0 keeps feature maps at full size.
    """

    num_outputs: int
    following: nn.Module
    follower_decay: float
    bias: str
    pool: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        x = self._follower(features, train=train)
        if self.bias == "stage":
            x = x + self.following(features, train=train)
        elif self.bias == "channels":
            x = x + self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return nn.Dense(self.num_outputs)(flatten(x, self.pool))

    def _follower(self, x: jax.Array, *, train: bool) -> jax.Array:
        stage = self.following.clone(parent=None)
        variables: Any = {}
        if self.is_initializing():
            variables = stage.init(self.make_rng("params"), x, train=False)
        weights = self.variable("follower", "params", lambda: variables["params"])
        # Some stages, without a norm, have none.
        normed = "batch_stats" in variables or self.has_variable(
            "batch_stats", "follower"
        )
        own = {"params": jax.tree.map(lambda w: w.astype(x.dtype), weights.value)}
        if not normed:
            return jnp.asarray(stage.apply(own, x, train=train))
        statistics = self.variable(
            "batch_stats", "follower", lambda: variables["batch_stats"]
        )
        own["batch_stats"] = statistics.value
        y, changed = stage.apply(own, x, train=train, mutable=["batch_stats"])
        if train and not self.is_initializing():
            statistics.value = changed["batch_stats"]
        return y


def momentum(
    *,
    num_outputs: int,
    stage: int,
    stages: tuple[nn.Module, ...],
    decay: float = 0.995,
    bias: str = "stage",
    pool: int = 2,
) -> nn.Module:
    """A head that follows the next stage's weights, where all stages train at once.

    The next stage's architecture with weights that are a moving average of its own,
    plus a learnable bias, then an output layer; bias and output layer are trained. The
    last stage has the linear head. No gradient reaches the next stage, which does not
    see the head's loss.

    Args:
        num_outputs: size of the task's output.
        stage: number of the stage that the head belongs to, from 0.
        stages: the network's, input side first.
        decay: m of weights ← m · weights + (1 − m) · the next stage's, after each step;
            0 to 1, 1 excluded. They start as the next stage's.
        bias: what is added to the follower's output and trained: stage (a second stage
            of the same kind), channels (a number for each channel) or none.
        pool: feature maps are averaged over a pool × pool grid before the output
            layer; 0 keeps them at full size.

    Returns:
        A linen module (n, …) → (n, num_outputs).

    Raises:
        ValueError: `decay` not in 0..1, an unknown `bias`, or `pool` negative.

    Source: MAN (Su et al., arXiv 2407.05623), of whose next block the first stage is
    followed, with m = 0.995; the bias `stage` is that of the authors' code. There the
    weights start at random.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be 0 to 1, 1 excluded, got {decay!r}")
    if bias not in _BIASES:
        raise ValueError(f"bias must be one of {list(_BIASES)}, got {bias!r}")
    if pool < 0:
        raise ValueError(f"pool must be ≥ 0, got {pool!r}")
    if stage + 1 == len(stages):
        return Linear(num_outputs=num_outputs, pool=pool)
    return Momentum(
        num_outputs=num_outputs,
        following=stages[stage + 1],
        follower_decay=decay,
        bias=bias,
        pool=pool,
    )
