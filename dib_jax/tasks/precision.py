"""Average precision of detections, as the COCO benchmark defines it.

Written as array programs so that it runs under `jit` like every other metric, once an
epoch on the validation split: with thousands of pictures and dozens of classes
pycocotools, which visits each pair in Python, takes longer than the training itself.
The tests compare the two.

Source: Lin et al., arXiv 1405.0312, and the code of pycocotools.
"""

import jax
import jax.numpy as jnp

from dib_jax.tasks.boxes import intersection_over_union

# IoU thresholds of COCO's mean average precision.
OVERLAPS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
_RECALLS = 100  # precision is read at recalls 0/100, 1/100, …, 100/100


def average_precisions(
    boxes: jax.Array,
    labels: jax.Array,
    scores: jax.Array,
    true_boxes: jax.Array,
    true_labels: jax.Array,
    *,
    num_classes: int,
    overlaps: tuple[float, ...] = OVERLAPS,
) -> jax.Array:
    """Average precision for each threshold of overlap and class.

    In each picture a detection, the highest score first, takes the true box of its
    class that it overlaps most among those not taken yet, if their IoU reaches the
    threshold. Over all pictures, detections in the order of their scores give precision
    and recall; AP is the mean, over recalls 0, 0.01, …, 1, of the highest precision at
    that recall or a higher one.

    Args:
        boxes: (n, k, 4), the detections of each of n pictures, highest score first.
        labels: (n, k) integers, −1 for none.
        scores: (n, k).
        true_boxes: (n, m, 4), in the units of `boxes`.
        true_labels: (n, m) integers, −1 for none.
        num_classes: number of classes, c.
        overlaps: thresholds of IoU, t of them.

    Returns:
        (t, c), 0..1; NaN for a class that has no true box.
    """
    hits = jax.vmap(_hits, in_axes=(0, 0, 0, 0, None))(
        boxes, labels, true_boxes, true_labels, jnp.array(overlaps)
    )  # (n, k, t)
    order = jnp.argsort(-scores.ravel(), stable=True)
    hits, labels = hits.reshape(-1, len(overlaps))[order].T, labels.ravel()[order]

    def of_class(label: jax.Array) -> jax.Array:
        total = jnp.sum(true_labels == label)
        is_class = labels == label
        found = jnp.cumsum(hits & is_class, axis=1)
        precision = found / jnp.maximum(jnp.cumsum(is_class), 1)
        best = jax.lax.cummax(precision, axis=1, reverse=True)
        # Recall r/100 is reached where found ≥ ⌈r·total/100⌉: exact in integers.
        needed = -(-jnp.arange(_RECALLS + 1) * total // _RECALLS)
        place = jax.vmap(lambda row: jnp.searchsorted(row, needed))(found)
        best = jnp.pad(best, ((0, 0), (0, 1)))  # recalls that are never reached
        read = jnp.take_along_axis(best, place, axis=1)
        return jnp.where(total > 0, read.mean(axis=1), jnp.nan)

    return jax.lax.map(of_class, jnp.arange(num_classes)).T


def _hits(
    boxes: jax.Array,
    labels: jax.Array,
    true_boxes: jax.Array,
    true_labels: jax.Array,
    overlaps: jax.Array,
) -> jax.Array:
    """Which detections of one picture take a true box, (k, t)."""
    iou = intersection_over_union(boxes[:, None], true_boxes[None])
    same = (labels[:, None] == true_labels[None]) & (true_labels >= 0)[None]
    iou = jnp.where(same, iou, -1.0)
    last = true_labels.shape[0] - 1

    def visit(taken: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        free = jnp.where(taken, -1.0, row)  # (t, m)
        # The last of equal overlaps, as pycocotools takes it.
        best = last - jnp.argmax(free[:, ::-1], axis=1)
        hit = jnp.take_along_axis(free, best[:, None], axis=1)[:, 0] >= overlaps
        chosen = jnp.arange(last + 1) == best[:, None]
        return taken | (chosen & hit[:, None]), hit

    untaken = jnp.zeros((overlaps.shape[0], last + 1), bool)
    return jax.lax.scan(visit, untaken, iou)[1]


def mean_precision(precisions: jax.Array) -> jax.Array:
    """The mean over thresholds and classes with true boxes; 0 where there is none.

    Args:
        precisions: (t, c), NaN for classes that do not count.
    """
    counts = ~jnp.isnan(precisions)
    total = jnp.sum(jnp.where(counts, precisions, 0))
    return total / jnp.maximum(jnp.sum(counts), 1)
