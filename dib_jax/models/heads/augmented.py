"""An auxiliary classifier built like some of the network's later stages."""

from typing import Any

import flax.linen as nn
import jax

from dib_jax.models.convolution import average_pool_to
from dib_jax.models.heads.linear import Linear, check_readout, flatten
from dib_jax.models.options import check_at_least


class Augmented(nn.Module):
    """Chosen later stages, pooling to a grid, output layer.

    Attributes:
        num_outputs: size of the task's output.
        later: the network's stages after the one that the head belongs to.
        chosen: indices in `later` of those that the head has, ascending.
        pool: side of the grid; 0 keeps feature maps at full size.
        pooling: of each cell, mean or max.
        output_scale: factor of what the output layer puts out.
    """

    num_outputs: int
    later: tuple[nn.Module, ...]
    chosen: tuple[int, ...]
    pool: int
    pooling: str = "mean"
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        x = features
        in_network = jax.ShapeDtypeStruct(features.shape, features.dtype)
        for index, stage in enumerate(self.later):
            if index in self.chosen:
                # Pooled as the stages that were left out would have pooled it.
                if x.ndim == len(in_network.shape) == 4:
                    x = average_pool_to(x, in_network.shape[1:3])
                x = stage(x, train=train)
            in_network = _output_shape(stage.clone(parent=None), in_network)
        vectors = flatten(x, self.pool, self.pooling)
        return nn.Dense(self.num_outputs)(vectors) * self.output_scale


def _output_shape(stage: nn.Module, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    def apply(x: jax.Array) -> jax.Array:
        return stage.init_with_output(jax.random.key(0), x, train=False)[0]

    shape = jax.eval_shape(apply, x)
    return jax.ShapeDtypeStruct(shape.shape, x.dtype)


def evenly(count: int, depth: int) -> tuple[int, ...]:
    """Indices of `depth` of `count` stages, evenly spaced, the last one among them.

    Args:
        count: how many stages there are.
        depth: how many of them to choose.

    Returns:
        round(i · count / depth) − 1 for i = 1…depth; all indices where `depth` is at
        least `count`.
    """
    depth = min(depth, count)
    return tuple(round(i * count / depth) - 1 for i in range(1, depth + 1))


def augmented(
    *,
    num_outputs: int,
    stage: int,
    stages: tuple[nn.Module, ...],
    depth: int = 2,
    least: int = 1,
    pool: int = 2,
    pooling: str = "mean",
    output_scale: float = 1.0,
) -> nn.Module:
    """A head built like evenly spaced later stages of the network, with other weights.

    Its depth falls linearly from the first stage to the last but one; the last stage
    has the linear head. Feature maps are averaged, before each of the head's stages,
    to the size that this stage gets in the network.

    Args:
        num_outputs: size of the task's output.
        stage: number of the stage that the head belongs to, from 0.
        stages: the network's, input side first.
        depth: stages in the head of the first stage, at most those that follow it.
        least: stages in the head of the last stage but one; 0 to `depth`.
        pool: feature maps are pooled to a pool × pool grid before the output layer; 0
            keeps them at full size.
        pooling: of each cell of that grid, mean or max.
        output_scale: factor of the outputs, as in the linear head.

    Returns:
        A linen module (n, …) → (n, num_outputs).

    Raises:
        ValueError: `depth` below 1, `least` not in 0..depth, `pool` negative,
            `output_scale` not above 0, or another `pooling`.

    Source: AugLocal (Ma, Wu, Si & Tan, arXiv 2402.17318, Figure 2) and its authors'
    code for both rules. There the first stages of the head halve the maps by strides
    where left-out stages would have; the averages are ours, for stages of any kind.
    Its depth falls to `least` = 1 + (1 − c)(depth − 1) with the coefficient c of that
    code, and it pools to one pixel (`pool` = 1).
    """
    check_at_least(1, depth=depth)
    if not 0 <= least <= depth:
        raise ValueError(f"least must be 0 to depth = {depth}, got {least!r}")
    check_readout(pool, pooling, output_scale)
    readout: dict[str, Any] = {
        "num_outputs": num_outputs,
        "pool": pool,
        "pooling": pooling,
        "output_scale": output_scale,
    }
    later = tuple(stages[stage + 1 :])
    progress = stage / (len(stages) - 2) if len(stages) > 2 else 0.0
    depth_here = round(depth + (least - depth) * progress)
    if not later or depth_here == 0:
        return Linear(**readout)
    chosen = evenly(len(later), depth_here)
    return Augmented(later=later, chosen=chosen, **readout)
