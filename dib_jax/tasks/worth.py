"""What the boxes of a test split are worth: overlaps, precisions, and a baseline.

The baseline says of every picture that its object is where the training pictures have
theirs on average, with the class and the score that the run itself gives: what the run
is better by is what it has learnt about places.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.tasks import Batch, Objects
from dib_jax.tasks.boxes import intersection_over_union
from dib_jax.tasks.detection import (
    Targets,
    all_objects,
    as_lists,
    largest_found,
    largest_object,
    largest_of,
)
from dib_jax.tasks.precision import average_precisions, mean_precision

Split = dict[str, np.ndarray]


class Boxes(NamedTuple):
    """True and found objects of n pictures; boxes are shares of width and height.

    Attributes:
        true_labels: int (n, m), −1 for none.
        true_boxes: (n, m, 4).
        objects: what the run says of the pictures.
        mean_box: (4,), the mean of the largest boxes of the training pictures.
    """

    true_labels: np.ndarray
    true_boxes: np.ndarray
    objects: Objects
    mean_box: np.ndarray


class Worth(NamedTuple):
    """How good the boxes of a run or of the baseline are.

    Attributes:
        iou: (n,), of the largest true object with what is said of it; 0 where nothing
            is, NaN where a picture has no object.
        precisions: (t, c), average precision at IoU 0.5, 0.55, … of each class; NaN for
            a class without a test object.
    """

    iou: np.ndarray
    precisions: np.ndarray

    @property
    def mean_iou(self) -> float:
        """The mean over pictures with an object."""
        return float(np.nanmean(self.iou)) if not np.isnan(self.iou).all() else 0.0

    @property
    def ap50(self) -> float:
        """Mean average precision over classes, at IoU 0.5."""
        return float(mean_precision(jnp.asarray(self.precisions[:1])))

    @property
    def mean_ap(self) -> float:
        """Mean average precision over classes and thresholds."""
        return float(mean_precision(jnp.asarray(self.precisions)))


def gather(objects: Objects, test: Split, train: Split) -> Boxes:
    """True and found objects of a test split.

    Args:
        objects: what a run says of the test split.
        test: that split, with `boxes`.
        train: the training split, for the mean box.
    """
    truth = all_objects(_batch(test))
    return Boxes(
        true_labels=np.asarray(truth["labels"]),
        true_boxes=np.asarray(truth["boxes"]),
        objects=objects,
        mean_box=_mean_of(train),
    )


def _mean_of(train: Split) -> np.ndarray:
    largest = largest_object(_batch(train))
    there = np.asarray(largest["labels"]) >= 0
    return np.asarray(largest["boxes"])[there].mean(axis=0)


def _batch(split: Split) -> Batch:
    """A split without its pictures, of which only the size is asked."""
    names = [name for name in ("labels", "boxes", "box_labels") if name in split]
    batch: Batch = {"images": jnp.asarray(split["images"][:1])}
    batch.update({name: jnp.asarray(split[name]) for name in names})
    return batch


def measure(boxes: Boxes, *, num_classes: int) -> tuple[Worth, Worth]:
    """The worth of a run's boxes, and of the mean training box in their place.

    Args:
        boxes: of the test split.
        num_classes: number of classes.
    """
    labels, _, answers = (np.asarray(x) for x in largest_found(boxes.objects))
    found = boxes.objects
    run = _worth(
        boxes, answers, labels, (found.boxes, found.labels, found.scores), num_classes
    )
    return run, _mean_worth(boxes, num_classes)


def mean_box(
    objects: Objects, truth: Targets, train: Split, *, num_classes: int
) -> dict[str, float]:
    """What the mean training box in place of a run's boxes would have for metrics.

    Args:
        objects: what the run says of the test split.
        truth: the task's targets of that split.
        train: the training split.
        num_classes: number of classes.

    Returns:
        `ap50`, `map` and `mean_iou` as the detection task has them, and where `truth`
        lists several objects of a picture `ap50_largest`; 0..1.
    """
    several = truth["labels"].ndim == 2
    lists = truth if several else as_lists(truth)
    alone = as_lists(largest_of(truth))
    worths = [
        _mean_worth(
            Boxes(
                np.asarray(listed["labels"]),
                np.asarray(listed["boxes"]),
                objects,
                _mean_of(train),
            ),
            num_classes,
        )
        for listed in ((lists, alone) if several else (lists,))
    ]
    found = {
        "ap50": worths[0].ap50,
        "map": worths[0].mean_ap,
        "mean_iou": worths[0].mean_iou,
    }
    return found | ({"ap50_largest": worths[1].ap50} if several else {})


def _mean_worth(boxes: Boxes, num_classes: int) -> Worth:
    labels, scores, answers = (np.asarray(x) for x in largest_found(boxes.objects))
    mean = np.broadcast_to(boxes.mean_box, answers.shape).astype(np.float32)
    ranked = (mean[:, None], labels[:, None], scores[:, None])
    return _worth(boxes, mean, np.zeros_like(labels), ranked, num_classes)


def _worth(
    boxes: Boxes,
    answers: np.ndarray,
    labels: np.ndarray,
    ranked: tuple,
    num_classes: int,
) -> Worth:
    truth = largest_of(
        {
            "labels": jnp.asarray(boxes.true_labels),
            "boxes": jnp.asarray(boxes.true_boxes),
        }
    )
    overlap = intersection_over_union(jnp.asarray(answers), truth["boxes"])
    iou = np.where(labels >= 0, overlap, 0.0)
    precisions = jax.jit(average_precisions, static_argnames="num_classes")(
        *ranked, boxes.true_boxes, boxes.true_labels, num_classes=num_classes
    )
    there = np.asarray(truth["labels"]) >= 0
    return Worth(np.where(there, iou, np.nan), np.asarray(precisions))
