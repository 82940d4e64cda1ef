"""What is being predicted: outputs, loss, metrics, target Gram."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

Batch = dict[str, jax.Array]


class Objects(NamedTuple):
    """What a head's outputs say of n pictures, in a form that all tasks share.

    Attributes:
        labels: int (n, k), classes of at most k objects, −1 for none.
        scores: (n, k), 0..1, how sure each is; the highest first.
        found: bool (n, k), those that count where a picture gets one answer; lists that
            are ranked by score, as for average precision, hold the others too.
        boxes: (n, k, 4), x1, y1, x2, y2 as shares of the picture's width and height,
            inside it; None for a task without boxes.
    """

    labels: jax.Array
    scores: jax.Array
    found: jax.Array
    boxes: jax.Array | None


class Task(NamedTuple):
    """A task as pure functions; n samples each.

    Attributes:
        num_outputs: numbers that a head has to give for a sample, or for each of its
            places.
        metric: the headline among `metrics`; higher is better.
        targets: batch of a data set → pytree of arrays (n, …).
        loss: outputs (n, …, num_outputs), targets → scalar, dict of scalars to record.
        metrics: outputs and targets of a whole split → dict of scalars.
        target_gram: targets → (n, n).
        objects: outputs → what they say of the pictures.
        uses_boxes: whether `targets` reads the batch's `boxes`.
        loss_unit: of `loss`; empty where it has none, as a sum of unlike terms.
        ensemble: outputs (n, …, num_outputs) of several heads, input side first → those
            of all heads together; None where outputs cannot be averaged, as of boxes
            that may be of different objects.
    """

    num_outputs: int
    metric: str
    targets: Callable[[Batch], Any]
    loss: Callable[[jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]]
    metrics: Callable[[jax.Array, Any], dict[str, jax.Array]]
    target_gram: Callable[[Any], jax.Array]
    objects: Callable[[jax.Array], Objects]
    uses_boxes: bool = False
    loss_unit: str = ""
    ensemble: Callable[[Sequence[jax.Array]], jax.Array] | None = None
    measures: Any = {}
    shown: tuple = ("accuracy", "ap50")
    beside: Any = lambda *a: {}
