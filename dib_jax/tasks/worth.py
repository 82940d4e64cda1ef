"""What the boxes of a test split are worth: overlaps, precisions, and a baseline.

The baseline says of every picture that its object is where the training pictures have
theirs on average, with the class and the score that the run itself gives: what the run
is better by is what it has learnt about places.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from dib_jax.tasks import Objects, Split, style
from dib_jax.tasks import exhibits as show
from dib_jax.tasks.answers import Classes, confusions, examples
from dib_jax.tasks.boxes import intersection_over_union
from dib_jax.tasks.detection import (
    Targets,
    as_lists,
    largest_found,
    largest_object,
    largest_of,
    without_pictures,
)
from dib_jax.tasks.pictures import outlined, viewable
from dib_jax.tasks.precision import average_precisions, mean_precision

_TRUE, _FOUND = style.GREEN, style.VERMILION
_KEY = show.Key(((_TRUE, "Green", "is a true box"), (_FOUND, "red", "a found one")))


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


def gather(objects: Objects, truth: Targets, train: Split) -> Boxes:
    """True and found objects of a test split.

    Args:
        objects: what a run says of the test split.
        truth: the task's targets of that split, of one object each or of several.
        train: the training split, for the mean box.
    """
    lists = truth if truth["labels"].ndim == 2 else as_lists(truth)
    largest = largest_object(without_pictures(train))
    there = np.asarray(largest["labels"]) >= 0
    return Boxes(
        true_labels=np.asarray(lists["labels"]),
        true_boxes=np.asarray(lists["boxes"]),
        objects=objects,
        mean_box=np.asarray(largest["boxes"])[there].mean(axis=0),
    )


def measure(boxes: Boxes, *, num_classes: int) -> tuple[Worth, Worth]:
    """The worth of a run's boxes, and of the mean training box in their place.

    Args:
        boxes: of the test split.
        num_classes: number of classes.
    """
    run = _worth(boxes, boxes.objects, num_classes)
    return run, _worth(boxes, _at_mean_box(boxes), num_classes)


def mean_box(boxes: Boxes, *, num_classes: int, several: bool) -> dict[str, float]:
    """What the mean training box in place of a run's boxes would have for metrics.

    Args:
        boxes: of the test split.
        num_classes: number of classes.
        several: whether a picture may have several objects.

    Returns:
        `ap50`, `map` and `mean_iou` as the detection task has them, and for several
        objects of a picture `ap50_largest`; 0..1.
    """
    baseline = _at_mean_box(boxes)
    worth = _worth(boxes, baseline, num_classes)
    found = {"ap50": worth.ap50, "map": worth.mean_ap, "mean_iou": worth.mean_iou}
    if several:
        alone = as_lists(_largest(boxes))
        only = boxes._replace(
            true_labels=np.asarray(alone["labels"]),
            true_boxes=np.asarray(alone["boxes"]),
        )
        found["ap50_largest"] = _worth(only, baseline, num_classes).ap50
    return found


def _largest(boxes: Boxes) -> Targets:
    labels, places = jnp.asarray(boxes.true_labels), jnp.asarray(boxes.true_boxes)
    return largest_of({"labels": labels, "boxes": places})


def _at_mean_box(boxes: Boxes) -> Objects:
    """The baseline: the largest found object of each picture, at the mean box."""
    labels, scores, answers = largest_found(boxes.objects)
    mean = jnp.broadcast_to(jnp.asarray(boxes.mean_box, jnp.float32), answers.shape)
    everywhere = jnp.ones((len(labels), 1), bool)
    return Objects(labels[:, None], scores[:, None], everywhere, mean[:, None])


def _worth(boxes: Boxes, objects: Objects, num_classes: int) -> Worth:
    """Of objects that may be others than those of the run."""
    truth, (_, _, answers) = _largest(boxes), largest_found(objects)
    overlap = intersection_over_union(answers, truth["boxes"])
    iou = jnp.where(objects.found.any(axis=1), overlap, 0.0)
    precisions = jax.jit(average_precisions, static_argnames="num_classes")(
        *(objects.boxes, objects.labels, objects.scores),
        *(boxes.true_boxes, boxes.true_labels),
        num_classes=num_classes,
    )
    iou = jnp.where(truth["labels"] >= 0, iou, jnp.nan)
    return Worth(np.asarray(iou), np.asarray(precisions))


def exhibits(answers: show.Answers, boxes: Boxes) -> tuple[show.Exhibit, ...]:
    """What the report shows of a task with boxes.

    Args:
        answers: the outputs and the test split.
        boxes: what they say, of `gather`.
    """
    names = answers.class_names
    run, mean = measure(boxes, num_classes=len(names))
    labels, scores = map(np.asarray, largest_found(boxes.objects)[:2])

    def picture(sample: int) -> np.ndarray:
        return _with_boxes(answers.test["images"][sample], boxes, sample)

    true = np.asarray(_largest(boxes)["labels"])
    classes = Classes(answers, true, labels, scores, picture)
    return (
        _overlaps(run, mean),
        _precisions(run, boxes, names),
        confusions(classes),
        examples(classes, key=(_KEY,), overlaps=run.iou),
    )


def _overlaps(run: Worth, mean: Worth) -> show.Exhibit:
    """Boxes against the mean training box: overlaps and average precisions."""
    there = ~np.isnan(run.iou)
    lines = {"this run": run, "the mean training box": mean}
    rows = [
        (
            name,
            f"{worth.mean_iou:.4f}",
            show.share(np.mean(worth.iou[there] >= 0.5)),
            show.share(worth.ap50),
            show.share(worth.mean_ap),
        )
        for name, worth in lines.items()
        if there.any()
    ]
    header = ("Boxes of", "Mean IoU", "IoU ≥ 0.5", "AP50", "Mean AP")
    overlaps = {name: worth.iou[there] for name, worth in lines.items()}
    drawing = show.Drawing(
        "overlaps",
        functools.partial(overlap_histogram, overlaps),
        "Histogram of the overlap of the found and the true box.",
        "Of the largest object of each test picture; 0 where nothing was found. The "
        "mean training box is where the training pictures have their largest object "
        "on average; it has the run’s own classes and scores.",
    )
    table = show.Table("", header, rows, words=(0,))
    return show.Exhibit("boxes", "Boxes", (table, drawing))


def _precisions(run: Worth, boxes: Boxes, names: tuple[str, ...]) -> show.Exhibit:
    """Average precision of each class."""
    counts = [(boxes.true_labels == label).sum() for label in range(len(names))]
    rows = [
        (
            name,
            f"{count:,}",
            *(None if np.isnan(x) else show.share(x) for x in (ap[0], ap.mean())),
        )
        for name, count, ap in zip(names, counts, run.precisions.T, strict=True)
    ]
    header = ("Class", "Test objects", "AP50", "Mean AP")
    note = (
        "COCO’s average precision of each class; the mean is over IoU thresholds 0.5, "
        "0.55, …, 0.95."
    )
    table = show.Table("", header, rows, words=(0,))
    return show.Exhibit("precisions", "Average precision by class", (table, note))


def _with_boxes(image: np.ndarray, boxes: Boxes, sample: int) -> np.ndarray:
    """A test picture with its true and its found boxes, uint8 (h, w, 3)."""
    true = boxes.true_boxes[sample][boxes.true_labels[sample] >= 0]
    objects = boxes.objects
    assert objects.boxes is not None
    found = np.asarray(objects.boxes[sample])[np.asarray(objects.found[sample])]
    marks = [(box, _TRUE) for box in true] + [(box, _FOUND) for box in found]
    return np.asarray(outlined(Image.fromarray(viewable(image)), marks, side=192))


def overlap_histogram(
    overlaps: Mapping[str, np.ndarray], *, width: float = 8.3
) -> Figure:
    """How many pictures have which overlap of the found box with the true one.

    Args:
        overlaps: name → IoU, 0..1; the first is drawn filled, the others as outlines.
        width: inches.

    Returns:
        The figure.
    """
    figure, (axes,) = style.panels(1, 1, width=width, height=3.1, margin=0)
    edges = list(np.linspace(0, 1, 41 if width > 5 else 21))
    look: dict[str, Any] = dict(histtype="stepfilled", color=style.BLUE, alpha=0.75)
    for name, values in overlaps.items():
        label = f"{name}, mean {np.mean(values):.3f}"
        axes.hist(np.clip(values, 0, 1), bins=edges, label=label, **look)
        look = dict(histtype="step", color=style.VERMILION, lw=1.6)
    style.finish(axes, "IoU of the found box with the true one", "Test pictures")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    style.legend(figure, style.lines_of(axes))
    return figure
