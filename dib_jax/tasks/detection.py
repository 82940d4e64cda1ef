"""A class and a box: one object in each picture, or several."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

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
    balance: float = 0.0,
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
        balance: of many objects: 0 where each place of an object counts as much in the
            loss, so that large objects count more; 1 where each object does; between
            them, an object of k places counts k^(1 − balance).

    Returns:
        The task; its metrics are `ap50`, `map` (mean AP over IoU 0.5, 0.55, …, 0.95),
        `accuracy` and `mean_iou` (of the box, whatever the class) of the largest
        object, all 0..1, and `loss`; for many also `ap50_largest`. What the outputs say
        of the largest object is the largest box that counts as found.

    Raises:
        ValueError: an option is out of range or unknown, or of the other `objects`;
            when called, a batch without boxes, or outputs of another head.
    """
    for name, value, valid, allowed in (
        ("objects", objects, objects in ("one", "many"), "one of ['one', 'many']"),
        ("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "in [0, 1)"),
        ("box_loss", box_loss, box_loss in _BOX_LOSSES, f"one of {list(_BOX_LOSSES)}"),
        ("box_weight", box_weight, 0 <= box_weight < math.inf, "a number ≥ 0"),
        ("candidates", candidates, 1 <= candidates <= 100, "1 to 100"),
        ("overlap", overlap, 0 <= overlap <= 1, "0 to 1"),
        ("confidence", confidence, 0 <= confidence <= 1, "0 to 1"),
        ("balance", balance, 0 <= balance <= 1, "0 to 1"),
    ):
        if not valid:
            raise ValueError(f"{name} must be {allowed}, got {value!r}")
    check_bandwidth(bandwidth)
    several = objects == "many"
    defaults = inspect.signature(detection).parameters
    for name, value, mode in (
        ("label_smoothing", label_smoothing, "one"),
        ("candidates", candidates, "many"),
        ("overlap", overlap, "many"),
        ("confidence", confidence, "many"),
        ("balance", balance, "many"),
    ):
        unused = defaults[name].default
        if value != unused and objects != mode:
            raise ValueError(
                f"{name} is of objects={mode}, got {value!r} with objects={objects}; "
                f"leave it at {unused}"
            )
    detector = _Detector(
        num_classes, several, label_smoothing, _BOX_LOSSES[box_loss], box_weight,
        candidates, overlap, confidence, balance,
    )  # fmt: skip
    return Task(
        num_outputs=num_classes + 4,
        metric="ap50",
        measures=_MEASURES,
        targets=detector.targets,
        loss=detector.loss,
        metrics=detector.metrics,
        target_gram=functools.partial(target_gram, bandwidth=bandwidth),
        objects=detector.objects,
        uses_boxes=True,
        shown=("accuracy", "ap50"),
        beside=detector.beside,
        exhibits=detector.exhibits,
    )


class _Detector(NamedTuple):
    """The functions of the task; the options are those of `detection`.

    Outputs are (n, num_classes + 4) for one object, (n, h, w, num_classes + 4) for
    several.
    """

    num_classes: int
    several: bool
    label_smoothing: float
    box_loss: BoxLoss
    box_weight: float
    candidates: int
    overlap: float
    confidence: float
    balance: float

    def targets(self, batch: Batch) -> Targets:
        return all_objects(batch) if self.several else largest_object(batch)

    def split(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits and boxes."""
        _check_outputs(outputs, self.num_classes, several=self.several)
        count = self.num_classes
        logits, places = outputs[..., :count], outputs[..., count:]
        if self.several:
            return logits + _PRIOR, place_boxes(places)
        return logits, decode(_UNIT * places)

    def loss(
        self, outputs: jax.Array, targets: Targets
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, boxes = self.split(outputs)
        labels, wanted = targets["labels"], targets["boxes"]
        weight = jnp.ones(())
        if self.several:
            rows, columns = logits.shape[1:3]
            assigned = functools.partial(assign, rows=rows, columns=columns)
            labels, wanted, places = jax.vmap(assigned)(labels, wanted)
            weight = self.weight(places)
        there = labels >= 0
        one_hot = jax.nn.one_hot(labels, self.num_classes)
        iou = _mean(intersection_over_union(boxes, wanted), there)
        if self.several:
            focal = optax.sigmoid_focal_loss(logits, one_hot, alpha=0.25, gamma=2.0)
            focal = focal * weight[..., None]
            class_loss = focal.sum() / jnp.maximum(there.sum(), 1)
            terms = {"place_iou": iou}
        else:
            smooth = optax.smooth_labels(one_hot, self.label_smoothing)
            class_loss = _mean(optax.softmax_cross_entropy(logits, smooth), there)
            right = _mean(jnp.argmax(logits, axis=-1) == labels, there)
            terms = {"accuracy": right, "mean_iou": iou}
        box_loss = _mean(weight * self.box_loss(boxes, wanted), there)
        terms |= {"class_loss": class_loss, "box_loss": box_loss}
        return class_loss + self.box_weight * box_loss, terms

    def weight(self, places: jax.Array) -> jax.Array:
        """Of each place in the loss: 1 without an object, on average 1 with one.

        Args:
            places: how many places the object of each place has, 0 for none.
        """
        there = places > 0
        raw = jnp.maximum(places, 1).astype(jnp.float32) ** -self.balance
        return jnp.where(there, raw / jnp.maximum(_mean(raw, there), 1e-6), 1.0)

    def objects(self, outputs: jax.Array) -> Objects:
        logits, boxes = self.split(outputs)
        if not self.several:
            return Objects.surest(logits, jnp.clip(boxes, 0, 1)[:, None])
        detected = functools.partial(
            detect, candidates=self.candidates, overlap=self.overlap
        )
        labels, scores, boxes = jax.vmap(detected)(jax.nn.sigmoid(logits), boxes)
        found = (labels >= 0) & (scores >= self.confidence)
        return Objects(labels, scores, found, boxes)

    def metrics(self, outputs: jax.Array, targets: Targets) -> dict[str, jax.Array]:
        found = self.objects(outputs)
        assert found.boxes is not None
        labels, scores, boxes = largest_found(found)
        truth = largest_of(targets)
        alone, there = as_lists(truth), truth["labels"] >= 0
        every = targets if self.several else alone
        precision = functools.partial(average_precisions, num_classes=self.num_classes)
        precisions = precision(
            found.boxes, found.labels, found.scores, every["boxes"], every["labels"]
        )
        iou = intersection_over_union(boxes, truth["boxes"])
        values = {
            "ap50": mean_precision(precisions[:1]),
            "map": mean_precision(precisions),
            "accuracy": _mean(labels == truth["labels"], there),
            "mean_iou": _mean(jnp.where(labels >= 0, iou, 0.0), there),
            "loss": self.loss(outputs, targets)[0],
        }
        if self.several:
            ranked = boxes[:, None], labels[:, None], scores[:, None]
            only_50 = precision(
                *ranked, alone["boxes"], alone["labels"], overlaps=OVERLAPS[:1]
            )
            values["ap50_largest"] = mean_precision(only_50)
        return values

    def gather(self, outputs: np.ndarray, test: Split, train: Split) -> Any:
        """True and found objects of the test split, `dib_jax.tasks.worth.Boxes`."""
        # Late: that module draws, and matplotlib takes a while to load.
        from dib_jax.tasks.worth import gather

        found = jax.tree.map(np.asarray, jax.jit(self.objects)(outputs))
        return gather(found, self.targets(without_pictures(test)), train)

    def beside(self, *answers: Any) -> dict[str, Any]:
        from dib_jax.tasks.worth import mean_box

        boxes, count = self.gather(*answers), self.num_classes
        return {"mean_box": mean_box(boxes, num_classes=count, several=self.several)}

    def exhibits(self, answers: Answers) -> tuple[Exhibit, ...]:
        from dib_jax.tasks.worth import exhibits

        return exhibits(answers, self.gather(*answers[:3]))


def without_pictures(split: Split) -> Batch:
    """Classes and boxes of a split, and one picture, which tells their size."""
    names = [name for name in ("labels", "boxes", "box_labels") if name in split]
    one = {"images": split["images"][:1]}
    return jax.tree.map(jnp.asarray, one | {name: split[name] for name in names})


def largest_found(objects: Objects) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest object that counts as found in each of n pictures.

    Args:
        objects: of a task that uses boxes.

    Returns:
        Labels (n,), −1 where nothing was found, scores (n,) and boxes (n, 4), 0 there.

    Raises:
        ValueError: the objects have no boxes.
    """
    if objects.boxes is None:
        raise ValueError("these objects have no boxes; a detection task's have")
    chosen = jnp.arange(len(objects.boxes)), largest(objects.boxes, objects.found)
    labels, scores, found, boxes = (jnp.asarray(x)[chosen] for x in objects)
    return (
        jnp.where(found, labels, -1),
        jnp.where(found, scores, 0.0),
        jnp.where(found[:, None], boxes, 0.0),
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
    return largest_of(all_objects(batch))


def largest_of(targets: Targets) -> Targets:
    """Class and box of the largest object of each picture.

    Args:
        targets: `labels` (n, m), −1 for none, and `boxes` (n, m, 4); or already of one
            object, (n,) and (n, 4).

    Returns:
        `labels` (n,), −1 where there is no object, and `boxes` (n, 4).
    """
    labels = targets["labels"]
    if labels.ndim == 1:
        return targets
    chosen = jnp.arange(len(labels)), largest(targets["boxes"], labels >= 0)
    return {name: values[chosen] for name, values in targets.items()}


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
    sigma = named_bandwidth(one["boxes"], bandwidth)
    lying = gaussian_gram(one["boxes"], sigma=sigma)
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


def _check_outputs(outputs: jax.Array, num_classes: int, *, several: bool) -> None:
    if several:
        count, places, heads = "many objects", "n, h, w", "head.name=grid"
    else:
        count, places, heads = "one object", "n", "head.name=linear, conv or mlp"
    if outputs.ndim != (4 if several else 2) or outputs.shape[-1] != num_classes + 4:
        raise ValueError(
            f"{count} in a picture: outputs must be ({places}, {num_classes + 4}), got "
            f"{outputs.shape}; use {heads}"
        )


def _mean(values: jax.Array, there: jax.Array) -> jax.Array:
    """The mean over samples or places that have an object; 0 where none has."""
    return jnp.sum(jnp.where(there, values, 0)) / jnp.maximum(jnp.sum(there), 1)
