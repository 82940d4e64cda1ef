"""A class and a box: one object in each picture, or several."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dib_jax.information import (
    check_bandwidth,
    gaussian_gram,
    label_gram,
    named_bandwidth,
    normalize_gram,
)
from dib_jax.tasks import Batch, Measure, Objects, Split, Task
from dib_jax.tasks.boxes import (
    decode,
    generalized_iou,
    intersection_over_union,
    largest,
    shares,
)
from dib_jax.tasks.exhibits import Answers, Exhibit
from dib_jax.tasks.precision import OVERLAPS, average_precisions, mean_precision
from dib_jax.tasks.scenes import assign, detect, place_boxes

# The share of the picture's side beyond which Huber's loss is a straight line.
_DELTA = 0.05

# What an output of 1 means for the box of one object, as a share of the picture. A box
# is told to hundredths: at a learning rate that suits logits, outputs that count in
# whole pictures would throw it about. (Those of many objects count in places.)
_UNIT = 0.1

# Logit of the share of places that have an object, about, so that the focal loss does
# not begin with a large gradient towards "nothing here" everywhere.
_PRIOR = -4.6

_MEASURES = {
    "ap50": Measure("AP50", "%"),
    "ap50_largest": Measure("AP50 (largest)", "%"),
    "map": Measure("Mean AP", "%"),
    "accuracy": Measure("Accuracy", "%"),
    "mean_iou": Measure("Mean IoU", "%"),
    "loss": Measure("Loss"),  # of a class and a box: the sum has no unit
    "class_loss": Measure("Class loss"),
    "box_loss": Measure("Box loss"),
    "place_iou": Measure("IoU at places"),
}

Targets = dict[str, jax.Array]
BoxLoss = Callable[[jax.Array, jax.Array], jax.Array]
Loss = Callable[[jax.Array, Targets], tuple[jax.Array, dict[str, jax.Array]]]


def detection(
    *,
    num_classes: int,
    objects: str = "one",
    label_smoothing: float = 0.0,
    box_loss: str = "both",
    box_weight: float = 1.0,
    bandwidth: str = "mean",
    candidates: int = 32,
    overlap: float = 0.5,
    confidence: float = 0.3,
) -> Task:
    """Loss of the class plus a loss of the box, one object in each picture or several.

    loss = class_loss + box_weight · box_loss. Boxes are shares of the picture's width
    and height. For one object class_loss is the cross-entropy of a softmax, where a
    picture has several the largest is the one, and its outputs count in tenths of the
    picture. For many every place of a grid says
    the class and the box of the object that it belongs to, and class_loss is the focal
    loss (Lin et al., arXiv 1708.02002) of a sigmoid for each class.

    The target Gram is ours: the Hadamard product of the Gram of the labels and a
    Gaussian Gram of the boxes, both of the largest object, so that two samples are
    alike as far as they share the class and lie alike.

    Args:
        num_classes: number of classes.
        objects: one, for a head with a vector of outputs (linear, conv, mlp); many, for
            one with a grid of them (grid).
        label_smoothing: of one object: share of the target probability that is spread
            evenly over all classes in the training loss, 0 to 1 (1 excluded).
        box_loss: huber (of the four sides, summed), giou (1 − generalised IoU) or both
            (their sum).
        box_weight: weight of the box's loss, ≥ 0.
        bandwidth: how the Gaussian kernel of the target Gram gets its width from the
            boxes of a batch: mean, median, knn, quantile or scott; or the width itself,
            a number > 0.
        candidates: of many objects: how many boxes of a picture are kept, the highest
            scores first; 1 to 100.
        overlap: of many objects: a box is dropped where its IoU with a surer one of its
            class is above this; 0 to 1.
        confidence: of many objects: the score from which a box counts as found, where a
            picture gets one answer and where it is drawn; 0 to 1.

    Returns:
        The task; its metrics are `ap50`, `map` (mean AP over IoU 0.5, 0.55, …, 0.95),
        `accuracy` and `mean_iou` (of the box, whatever the class) of the largest
        object, all 0..1, and `loss`; for many also `ap50_largest`. What the outputs say
        of the largest object is the largest box that counts as found.

    Raises:
        ValueError: an option is out of range or unknown; when called, a batch without
            boxes, or outputs of another head.
    """
    _check_options(
        objects, label_smoothing, box_loss, box_weight, candidates, overlap, confidence
    )
    check_bandwidth(bandwidth)
    box = _BOX_LOSSES[box_loss]
    several = objects == "many"
    if several:
        loss, said, targets = _many_objects(
            num_classes, box, box_weight, candidates, overlap, confidence
        )
    else:
        loss, said, targets = _one_object(num_classes, label_smoothing, box, box_weight)

    def metrics(outputs: jax.Array, truth: Targets) -> dict[str, jax.Array]:
        values = _metrics(said(outputs), truth, num_classes=num_classes)
        return {**values, "loss": loss(outputs, truth)[0]}

    gathered = functools.partial(_gathered, said, targets)

    def beside(outputs: np.ndarray, test: Split, train: Split) -> dict[str, Any]:
        from dib_jax.tasks.worth import mean_box

        boxes = gathered(outputs, test, train)
        return {"mean_box": mean_box(boxes, num_classes=num_classes, several=several)}

    def exhibits(answers: Answers) -> tuple[Exhibit, ...]:
        from dib_jax.tasks import worth

        return worth.exhibits(answers, gathered(*answers[:3]))

    return Task(
        num_outputs=num_classes + 4,
        metric="ap50",
        measures=_MEASURES,
        targets=targets,
        loss=loss,
        metrics=metrics,
        target_gram=functools.partial(target_gram, bandwidth=bandwidth),
        objects=said,
        uses_boxes=True,
        shown=("accuracy", "ap50"),
        beside=beside,
        exhibits=exhibits,
    )


def _check_options(
    objects: str,
    label_smoothing: float,
    box_loss: str,
    box_weight: float,
    candidates: int,
    overlap: float,
    confidence: float,
) -> None:
    for name, choice, known in (
        ("objects", objects, ["one", "many"]),
        ("box_loss", box_loss, list(_BOX_LOSSES)),
    ):
        if choice not in known:
            raise ValueError(f"{name} must be one of {known}, got {choice!r}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing!r}")
    if not 0 <= box_weight < float("inf"):
        raise ValueError(f"box_weight must be a number ≥ 0, got {box_weight!r}")
    if not 1 <= candidates <= 100:
        raise ValueError(f"candidates must be 1 to 100, got {candidates!r}")
    for name, value in (("overlap", overlap), ("confidence", confidence)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be 0 to 1, got {value!r}")


def _gathered(
    said: Callable[[jax.Array], Objects],
    targets: Callable[[Batch], Targets],
    outputs: np.ndarray,
    test: Split,
    train: Split,
) -> Any:
    """True and found objects of the test split, a `dib_jax.tasks.worth.Boxes`."""
    # Late: that module draws, and matplotlib takes a while to load.
    from dib_jax.tasks.worth import gather

    found = jax.tree.map(np.asarray, jax.jit(said)(outputs))
    return gather(found, targets(_without_pictures(test)), train)


def _without_pictures(split: Split) -> Batch:
    """Classes and boxes of a split, and one picture, which tells their size."""
    names = [name for name in ("labels", "boxes", "box_labels") if name in split]
    one = {"images": split["images"][:1]}
    return jax.tree.map(jnp.asarray, one | {name: split[name] for name in names})


def _metrics(
    found: Objects, targets: Targets, *, num_classes: int
) -> dict[str, jax.Array]:
    """All metrics but the loss; `targets` of one object each, or of several."""
    truth = largest_of(targets)
    labels, scores, boxes = largest_found(found)
    there = truth["labels"] >= 0
    several = targets["labels"].ndim == 2
    every = targets if several else as_lists(truth)
    precision = functools.partial(average_precisions, num_classes=num_classes)
    precisions = precision(
        _boxes(found), found.labels, found.scores, every["boxes"], every["labels"]
    )
    iou = jnp.where(labels >= 0, intersection_over_union(boxes, truth["boxes"]), 0.0)
    values = {
        "ap50": mean_precision(precisions[:1]),
        "map": mean_precision(precisions),
        "accuracy": _mean(labels == truth["labels"], there),
        "mean_iou": _mean(iou, there),
    }
    if several:
        alone = as_lists(truth)
        largest_alone = precision(
            boxes[:, None],
            labels[:, None],
            scores[:, None],
            alone["boxes"],
            alone["labels"],
            overlaps=OVERLAPS[:1],
        )
        values["ap50_largest"] = mean_precision(largest_alone)
    return values


def _one_object(
    num_classes: int, label_smoothing: float, box_loss: BoxLoss, box_weight: float
) -> tuple[Loss, Callable[[jax.Array], Objects], Callable[[Batch], Targets]]:
    """Loss, what outputs say, and targets, for outputs (n, num_classes + 4)."""

    def split(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        _check_outputs(outputs, num_classes, dimensions=2)
        return outputs[:, :num_classes], decode(_UNIT * outputs[:, num_classes:])

    def loss(
        outputs: jax.Array, targets: Targets
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, boxes = split(outputs)
        labels, there = targets["labels"], targets["labels"] >= 0
        wanted = optax.smooth_labels(
            jax.nn.one_hot(labels, num_classes), label_smoothing
        )
        class_loss = _mean(optax.softmax_cross_entropy(logits, wanted), there)
        measured = _mean(box_loss(boxes, targets["boxes"]), there)
        terms = {
            "accuracy": _mean(jnp.argmax(logits, axis=-1) == labels, there),
            "mean_iou": _mean(intersection_over_union(boxes, targets["boxes"]), there),
            "class_loss": class_loss,
            "box_loss": measured,
        }
        return class_loss + box_weight * measured, terms

    def objects(outputs: jax.Array) -> Objects:
        logits, boxes = split(outputs)
        labels = jnp.argmax(logits, axis=-1)[:, None]
        scores = jax.nn.softmax(logits).max(axis=-1)[:, None]
        found = jnp.ones(labels.shape, bool)
        return Objects(labels, scores, found, jnp.clip(boxes, 0, 1)[:, None])

    return loss, objects, largest_object


def _many_objects(
    num_classes: int,
    box_loss: BoxLoss,
    box_weight: float,
    candidates: int,
    overlap: float,
    confidence: float,
) -> tuple[Loss, Callable[[jax.Array], Objects], Callable[[Batch], Targets]]:
    """Loss, what outputs say, and targets, for outputs (n, h, w, num_classes + 4)."""

    def split(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        _check_outputs(outputs, num_classes, dimensions=4)
        logits = outputs[..., :num_classes] + _PRIOR
        return logits, place_boxes(outputs[..., num_classes:])

    def loss(
        outputs: jax.Array, targets: Targets
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, boxes = split(outputs)
        rows, columns = logits.shape[1:3]
        assigned = functools.partial(assign, rows=rows, columns=columns)
        labels, wanted = jax.vmap(assigned)(targets["labels"], targets["boxes"])
        there = labels >= 0
        focal = optax.sigmoid_focal_loss(
            logits, jax.nn.one_hot(labels, num_classes), alpha=0.25, gamma=2.0
        )
        class_loss = focal.sum() / jnp.maximum(there.sum(), 1)
        measured = _mean(box_loss(boxes, wanted), there)
        terms = {
            "class_loss": class_loss,
            "box_loss": measured,
            "place_iou": _mean(intersection_over_union(boxes, wanted), there),
        }
        return class_loss + box_weight * measured, terms

    def objects(outputs: jax.Array) -> Objects:
        logits, boxes = split(outputs)
        detected = functools.partial(detect, candidates=candidates, overlap=overlap)
        labels, scores, boxes = jax.vmap(detected)(jax.nn.sigmoid(logits), boxes)
        return Objects(labels, scores, (labels >= 0) & (scores >= confidence), boxes)

    return loss, objects, all_objects


def largest_found(objects: Objects) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest object that counts as found in each of n pictures.

    Args:
        objects: of a task that uses boxes.

    Returns:
        Labels (n,), −1 where nothing was found, scores (n,) and boxes (n, 4), 0 there.

    Raises:
        ValueError: the objects have no boxes.
    """
    every = _boxes(objects)
    index = largest(every, objects.found)[:, None]
    found = jnp.take_along_axis(objects.found, index, axis=1)[:, 0]
    labels = jnp.take_along_axis(objects.labels, index, axis=1)[:, 0]
    scores = jnp.take_along_axis(objects.scores, index, axis=1)[:, 0]
    boxes = jnp.take_along_axis(every, index[..., None], axis=1)[:, 0]
    return (
        jnp.where(found, labels, -1),
        jnp.where(found, scores, 0.0),
        jnp.where(found[:, None], boxes, 0.0),
    )


def _boxes(objects: Objects) -> jax.Array:
    if objects.boxes is None:
        raise ValueError("these objects have no boxes; a detection task's have")
    return objects.boxes


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
    return largest_of(all_objects(batch))


def largest_of(targets: Targets) -> Targets:
    """Class and box of the largest object of each picture.

    Args:
        targets: `labels` (n, m), −1 for none, and `boxes` (n, m, 4); or already of one
            object, (n,) and (n, 4).

    Returns:
        `labels` (n,), −1 where there is no object, and `boxes` (n, 4).
    """
    labels, boxes = targets["labels"], targets["boxes"]
    if labels.ndim == 1:
        return targets
    index = largest(boxes, labels >= 0)[:, None]
    return {
        "labels": jnp.take_along_axis(labels, index, axis=1)[:, 0],
        "boxes": jnp.take_along_axis(boxes, index[..., None], axis=1)[:, 0],
    }


def as_lists(single: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """One object of each picture as a list of one."""
    return {name: values[:, None] for name, values in single.items()}


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
        targets: as for `largest_of`, whose objects are the ones.
        bandwidth: rule for the Gaussian's width, or the width.

    Returns:
        (n, n), trace 1.
    """
    one = largest_of(targets)
    boxes = one["boxes"]
    lying = gaussian_gram(boxes, sigma=named_bandwidth(boxes, bandwidth))
    return normalize_gram(label_gram(one["labels"]) * lying)


def _huber(boxes: jax.Array, wanted: jax.Array) -> jax.Array:
    # Slope 1 beyond δ, so that small boxes are not lost beside GIoU.
    return optax.huber_loss(boxes, wanted, delta=_DELTA).sum(axis=-1) / _DELTA


def _giou(boxes: jax.Array, wanted: jax.Array) -> jax.Array:
    return 1 - generalized_iou(boxes, wanted)


_BOX_LOSSES: dict[str, BoxLoss] = {
    "huber": _huber,
    "giou": _giou,
    "both": lambda boxes, wanted: _huber(boxes, wanted) + _giou(boxes, wanted),
}


def _check_outputs(outputs: jax.Array, num_classes: int, *, dimensions: int) -> None:
    if outputs.ndim == dimensions and outputs.shape[-1] == num_classes + 4:
        return
    if dimensions == 2:
        form, heads = f"(n, {num_classes + 4})", "head.name=linear, conv or mlp"
        what = "one object in a picture"
    else:
        form, heads = f"(n, h, w, {num_classes + 4})", "head.name=grid"
        what = "many objects in a picture"
    raise ValueError(
        f"{what}: outputs must be {form}, got {outputs.shape}; use {heads}"
    )


def _mean(values: jax.Array, there: jax.Array) -> jax.Array:
    """The mean over samples or places that have an object; 0 where none has."""
    return jnp.sum(jnp.where(there, values, 0)) / jnp.maximum(jnp.sum(there), 1)
