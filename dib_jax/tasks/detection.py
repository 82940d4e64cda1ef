"""A class and a box: one object in each picture, or several."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dib_jax.information import (
    check_bandwidth,
    gaussian_gram,
    label_gram,
    named_bandwidth,
    normalize_gram,
)
from dib_jax.tasks import Batch, Objects, Task
from dib_jax.tasks.boxes import (
    generalized_iou,
    intersection_over_union,
    largest,
    shares,
)
from dib_jax.tasks.precision import average_precisions, mean_precision

_DELTA = (
    0.05  # share of the picture's side beyond which Huber's loss is a straight line
)

Targets = dict[str, jax.Array]


def detection(
    *,
    num_classes: int,
    label_smoothing: float = 0.0,
    box_loss: str = "both",
    box_weight: float = 1.0,
    bandwidth: str = "mean",
) -> Task:
    """Cross-entropy of the class plus a loss of the box, one object in each picture.

    loss = class_loss + box_weight · box_loss. Boxes are shares of the picture's width
    and height. Of a picture with several boxes the largest is the one.

    The target Gram is ours: the Hadamard product of the Gram of the labels and a
    Gaussian Gram of the boxes, so that two samples are alike as far as they share the
    class and lie alike.

    Args:
        num_classes: number of classes.
        label_smoothing: share of the target probability that is spread evenly over all
            classes in the training loss, 0 to 1 (1 excluded).
        box_loss: huber (of the four sides, summed), giou (1 − generalised IoU) or both
            (their sum).
        box_weight: weight of the box's loss, ≥ 0.
        bandwidth: how the Gaussian kernel of the target Gram gets its width from the
            boxes of a batch: mean, median, knn, quantile or scott; or the width itself,
            a number > 0.

    Returns:
        The task; its metrics are `ap50`, `map` (mean AP over IoU 0.5, 0.55, …, 0.95),
        `accuracy` and `mean_iou` (of the box, whatever the class), all 0..1, and
        `loss`.

    Raises:
        ValueError: an option is out of range or unknown; when called, a batch without
            boxes.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing!r}")
    if box_loss not in _BOX_LOSSES:
        raise ValueError(
            f"box_loss must be one of {list(_BOX_LOSSES)}, got {box_loss!r}"
        )
    if not 0 <= box_weight < float("inf"):
        raise ValueError(f"box_weight must be a number ≥ 0, got {box_weight!r}")
    check_bandwidth(bandwidth)

    def split(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        _check_outputs(outputs, num_classes)
        return outputs[:, :num_classes], decode(outputs[:, num_classes:])

    def loss(
        outputs: jax.Array, targets: Targets
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, boxes = split(outputs)
        labels, there = targets["labels"], targets["labels"] >= 0
        wanted = optax.smooth_labels(
            jax.nn.one_hot(labels, num_classes), label_smoothing
        )
        class_loss = _mean(optax.softmax_cross_entropy(logits, wanted), there)
        measured = _mean(_BOX_LOSSES[box_loss](boxes, targets["boxes"]), there)
        terms = {
            "accuracy": _mean(jnp.argmax(logits, axis=-1) == labels, there),
            "mean_iou": _mean(intersection_over_union(boxes, targets["boxes"]), there),
            "class_loss": class_loss,
            "box_loss": measured,
        }
        return class_loss + box_weight * measured, terms

    def objects(outputs: jax.Array) -> Objects:
        labels, scores, boxes = answer(outputs)
        found = jnp.ones((len(labels), 1), bool)
        return Objects(labels[:, None], scores[:, None], found, boxes[:, None])

    def answer(outputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits, boxes = split(outputs)
        scores = jax.nn.softmax(logits).max(axis=-1)
        return jnp.argmax(logits, axis=-1), scores, jnp.clip(boxes, 0, 1)

    def metrics(outputs: jax.Array, targets: Targets) -> dict[str, jax.Array]:
        value, terms = loss(outputs, targets)
        labels, scores, boxes = answer(outputs)
        precisions = average_precisions(
            boxes[:, None],
            labels[:, None],
            scores[:, None],
            targets["boxes"][:, None],
            targets["labels"][:, None],
            num_classes=num_classes,
        )
        iou = intersection_over_union(boxes, targets["boxes"])
        return {
            "ap50": mean_precision(precisions[:1]),
            "map": mean_precision(precisions),
            "accuracy": terms["accuracy"],
            "mean_iou": _mean(iou, targets["labels"] >= 0),
            "loss": value,
        }

    return Task(
        num_outputs=num_classes + 4,
        metric="ap50",
        targets=largest_object,
        loss=loss,
        metrics=metrics,
        target_gram=functools.partial(target_gram, bandwidth=bandwidth),
        objects=objects,
        uses_boxes=True,
    )


def largest_object(batch: Batch) -> Targets:
    """Class and box of the largest object of each picture.

    Args:
        batch: of a data set with `boxes` (n, 4), or (n, m, 4) with `box_labels`, in
            pixels.

    Returns:
        `labels` (n,), −1 where there is no object, and `boxes` (n, 4) as shares of the
        picture's width and height.

    Raises:
        ValueError: there are no boxes in the batch.
    """
    every = all_objects(batch)
    labels, boxes = every["labels"], every["boxes"]
    index = largest(boxes, labels >= 0)[:, None]
    return {
        "labels": jnp.take_along_axis(labels, index, axis=1)[:, 0],
        "boxes": jnp.take_along_axis(boxes, index[..., None], axis=1)[:, 0],
    }


def all_objects(batch: Batch) -> Targets:
    """Classes and boxes of all objects of each picture.

    Args:
        batch: as for `largest_object`.

    Returns:
        `labels` (n, m), −1 for none, and `boxes` (n, m, 4) as shares of the picture's
        width and height, 0 where there is none.

    Raises:
        ValueError: there are no boxes in the batch.
    """
    if "boxes" not in batch:
        raise ValueError(
            "the detection task needs a data set with boxes, and this one has none; "
            "use task.name=classification"
        )
    boxes = batch["boxes"]
    if boxes.ndim == 2:
        boxes, labels = boxes[:, None], batch["labels"][:, None]
    else:
        labels = batch["box_labels"]
    height, width = batch["images"].shape[1:3]
    boxes = shares(boxes, height=height, width=width)
    return {"labels": labels, "boxes": jnp.where(labels[..., None] >= 0, boxes, 0.0)}


def target_gram(targets: Targets, *, bandwidth: str) -> jax.Array:
    """The Gram of the labels times, entry by entry, a Gaussian Gram of the boxes.

    Args:
        targets: `labels` (n,) and `boxes` (n, 4).
        bandwidth: rule for the Gaussian's width, or the width.

    Returns:
        (n, n), trace 1.
    """
    boxes = targets["boxes"]
    lying = gaussian_gram(boxes, sigma=named_bandwidth(boxes, bandwidth))
    return normalize_gram(label_gram(targets["labels"]) * lying)


def encode(
    boxes: jax.Array,
    centre: jax.Array | float = 0.5,
    unit: jax.Array | float = 1.0,
) -> jax.Array:
    """The outputs that stand for boxes: shift of the centre, and size by softplus⁻¹.

    Args:
        boxes: (…, 4), with positive sides.
        centre: (…, 2) or a number, the x, y that no shift means.
        unit: (2,) or a number, the width and height that shift and size count in.

    Returns:
        (…, 4).
    """
    shift = ((boxes[..., :2] + boxes[..., 2:]) / 2 - centre) / unit
    size = (boxes[..., 2:] - boxes[..., :2]) / unit
    # log(eˢ − 1), which is s itself to rounding where eˢ would be too large.
    inverse = size + jnp.log(-jnp.expm1(-size))
    return jnp.concatenate([shift, inverse], axis=-1)


def decode(
    outputs: jax.Array,
    centre: jax.Array | float = 0.5,
    unit: jax.Array | float = 1.0,
) -> jax.Array:
    """The boxes that outputs stand for; the inverse of `encode`.

    Sizes are softplus of an output, so that they are positive and, other than by
    exp, none explodes.

    Args:
        outputs: (…, 4).
        centre: as for `encode`.
        unit: as for `encode`.

    Returns:
        (…, 4); they may reach out of the picture.
    """
    middle = centre + unit * outputs[..., :2]
    half = unit * jax.nn.softplus(outputs[..., 2:]) / 2
    return jnp.concatenate([middle - half, middle + half], axis=-1)


def _huber(boxes: jax.Array, wanted: jax.Array) -> jax.Array:
    # Slope 1 beyond δ, so that small boxes are not lost beside GIoU.
    return optax.huber_loss(boxes, wanted, delta=_DELTA).sum(axis=-1) / _DELTA


def _giou(boxes: jax.Array, wanted: jax.Array) -> jax.Array:
    return 1 - generalized_iou(boxes, wanted)


_BOX_LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "huber": _huber,
    "giou": _giou,
    "both": lambda boxes, wanted: _huber(boxes, wanted) + _giou(boxes, wanted),
}


def _check_outputs(outputs: jax.Array, num_classes: int) -> None:
    if outputs.ndim != 2 or outputs.shape[-1] != num_classes + 4:
        raise ValueError(
            f"one object in a picture needs outputs (n, {num_classes + 4}), got "
            f"{outputs.shape}; use head.name=linear, conv or mlp"
        )


def _mean(values: jax.Array, there: jax.Array) -> jax.Array:
    """The mean over the samples that have an object; 0 where none has."""
    return jnp.sum(jnp.where(there, values, 0)) / jnp.maximum(jnp.sum(there), 1)
