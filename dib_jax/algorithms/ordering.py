"""What the compiler has to be told about the order of work.

XLA schedules a step so that it is fast on a machine with memory to spare. Two things it
does cost more than they bring here, and each takes another trick on a CPU, where XLA
removes optimization barriers before it chooses an order.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Any pytree of arrays.
Tree = Any


def after(x: jax.Array, *, params: Tree, step: jax.Array) -> jax.Array:
    """x as it is, for use when new parameters have been computed, and not before.

    What only the backward pass of one block needs is free then before the next block
    starts. Left to itself the compiler holds the features of all blocks at once, and
    on one device, which has one thing to do at a time, that is no faster.

    Args:
        x: what the next block reads.
        params: pytree of the new parameters.
        step: updates that have been made, an integer ≥ 0.
    """

    def chosen(params: Tree, step: jax.Array, x: jax.Array) -> jax.Array:
        # The compiler does not know that steps are counted from 0, so it needs these
        # numbers for x.
        first = [leaf.reshape(-1)[0] for leaf in jax.tree.leaves(params)]
        return jnp.where(step < 0, jnp.asarray(sum(first), x.dtype), x)

    def barred(params: Tree, step: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier((params, step, x))[2]

    return jax.lax.platform_dependent(params, step, x, cpu=chosen, default=barred)


def apart(
    function: Callable[[jax.Array, Tree, jax.Array], Tree],
    key: jax.Array,
    samples: Tree,
    times: jax.Array,
) -> Tree:
    """`function(key, samples, times)`, computed once and not by all that read it.

    XLA would join an augmentation with what reads the samples, and compute it for each
    of the nine shifts of a convolution and again for the information.

    Args:
        function: (key, samples, times) → samples, shapes and dtypes unchanged.
        key: PRNG key.
        samples: pytree of arrays.
        times: an integer ≥ 0.
    """

    def conditional(key: jax.Array, samples: Tree, times: jax.Array) -> Tree:
        # That counts are not negative the compiler cannot know.
        return jax.lax.cond(
            times >= 0, function, lambda key, samples, times: samples,
            key, samples, times,
        )  # fmt: skip

    return jax.lax.platform_dependent(
        key, samples, times, cpu=conditional, default=function
    )
