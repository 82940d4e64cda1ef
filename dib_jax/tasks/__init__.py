"""What is being predicted: outputs, loss, metrics, target Gram."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Batch = dict[str, jax.Array]


class Task(NamedTuple):
    """A task as pure functions; n samples each.

    Attributes:
        num_outputs: numbers that a head has to give for a sample.
        metric: the headline among `metrics`; higher is better.
        targets: batch of a data set → pytree of arrays (n, …).
        loss: outputs (n, num_outputs), targets → scalar, dict of scalars to record.
        metrics: outputs and targets of a whole split → dict of scalars.
        target_gram: targets → (n, n).
        uses_boxes: whether `targets` reads the batch's `boxes`.
    """

    num_outputs: int
    metric: str
    targets: Callable[[Batch], Any]
    loss: Callable[[jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]]
    metrics: Callable[[jax.Array, Any], dict[str, jax.Array]]
    target_gram: Callable[[Any], jax.Array]
    uses_boxes: bool = False
