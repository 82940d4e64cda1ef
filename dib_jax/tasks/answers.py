"""Which class each sample was given: confusions and examples."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dib_jax.tasks import exhibits as show
from dib_jax.tasks import style

EXAMPLES = 12
_PAIRS, _NOTHING = 10, "nothing"
_MANY = 20  # classes, beyond which a matrix is drawn in pixels


class Classes(NamedTuple):
    """True and predicted classes of n samples.

    Attributes:
        answers: the test split, and what its classes are called.
        true: int (n,), −1 where there is nothing.
        predicted: int (n,), −1 where nothing was found.
        confidence: (n,), how sure each prediction is, 0..1.
        picture: number of a sample → uint8 (h, w, c); None for one that is no picture.
    """

    answers: show.Answers
    true: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    picture: Callable[[int], np.ndarray | None]


def confusions(classes: Classes) -> show.Exhibit:
    """The confusion matrix, and the most frequent confusions in a table."""
    names, noun = classes.answers.class_names, classes.answers.noun
    if min(classes.predicted.min(), classes.true.min()) < 0:  # −1 is the last one
        names = (*names, _NOTHING)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (classes.true, classes.predicted), 1)
    drawing = show.Drawing(
        "confusion",
        functools.partial(confusion_matrix, counts, names),
        f"Confusion matrix of {len(names)} classes on the test split.",
        f"Test split: {np.trace(counts):,} of {len(classes.true):,} {noun} are on the "
        "diagonal.",
        vector=len(names) <= _MANY,
    )
    wrong = counts * ~np.eye(len(names), dtype=bool)
    rows = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]:
        true, other = divmod(int(place), len(names))
        if count := wrong[true, other]:
            of_class = show.share(count / counts[true].sum(), digits=1)
            rows.append((names[true], names[other], f"{count:,}", of_class))
    header = ("True class", "Predicted as", noun.capitalize(), "Of the class")
    table = show.Table("Most frequent confusions", header, rows, words=(0, 1))
    parts = (drawing, table) if rows else (drawing,)
    return show.Exhibit("confusion", "Confusions", parts)


def examples(
    classes: Classes,
    *,
    key: tuple[show.Key, ...] = (),
    overlaps: np.ndarray | None = None,
) -> show.Exhibit:
    """Samples drawn at random, those of best and worst overlap, and mistakes.

    Args:
        classes: of all samples.
        key: what stands above them.
        overlaps: (n,), IoU of the boxes, NaN where there is none; None for a task
            without boxes.
    """
    count, seed, noun = len(classes.true), classes.answers.seed, classes.answers.noun
    random = np.random.default_rng(seed)
    drawn = np.sort(random.choice(count, min(EXAMPLES, count), replace=False))
    note = (
        f"{len(drawn)} {noun}, drawn at random with seed {seed}: the true class, the "
        "predicted one and its probability."
    )
    parts: list[show.Part] = [
        *key,
        show.Examples("examples", "", note, _items(classes, drawn)),
    ]
    if overlaps is not None:
        there = np.flatnonzero(~np.isnan(overlaps))
        order = there[np.argsort(overlaps[there], kind="stable")]
        for name, samples in (("best", order[::-1]), ("worst", order)):
            items = _items(classes, samples[:EXAMPLES], overlaps)
            parts.append(show.Examples(name, f"The {name} boxes", "", items))
    wrong = np.flatnonzero(classes.predicted != classes.true)
    surest = np.argsort(-classes.confidence[wrong], kind="stable")[:EXAMPLES]
    if len(surest):
        note = f"{len(surest)} of {len(wrong):,} mistakes among {count:,} test {noun}."
        items = _items(classes, wrong[surest])
        title = "The most confident mistakes"
        parts.append(show.Examples("mistakes", title, note, items))
    return show.Exhibit("examples", f"Test {noun}", tuple(parts))


def _items(
    classes: Classes, samples: np.ndarray, overlaps: np.ndarray | None = None
) -> tuple[show.Example, ...]:
    """Samples with their true class, the predicted one and how sure it is."""
    names, items = (*classes.answers.class_names, _NOTHING), []  # the last one for −1
    for sample in map(int, samples):
        true, predicted = classes.true[sample], classes.predicted[sample]
        confidence = float(classes.confidence[sample])
        # 99.97 % is not certainty, and rounds to 100 %.
        certain = 0.999 < confidence < 1
        lines = [
            show.Line("true", names[true]),
            show.Line("predicted", names[predicted], wrong=bool(predicted != true)),
            show.Line("> 99.9 %" if certain else show.share(confidence, digits=1)),
        ]
        if overlaps is not None:
            lines.append(show.Line(f"IoU {overlaps[sample]:.3f}"))
        items.append(show.Example(sample, tuple(lines), classes.picture(sample)))
    return tuple(items)


def confusion_matrix(
    counts: np.ndarray, class_names: Sequence[str], *, width: float = 8.3
) -> Figure:
    """Counts of true against predicted classes, shaded by the share of the true class.

    Args:
        counts: int (c, c), rows true, columns predicted.
        class_names: of the c classes.
        width: inches.

    Returns:
        The figure; up to twelve classes hold their counts, and beyond some forty only
        every few classes are named.
    """
    classes = len(class_names)
    short = max(len(str(name)) for name in class_names) <= 2
    side = min(width, 6.4 if classes > 12 else 4.1 if short else 5.4)
    figure = Figure(figsize=(side, side * 0.9), layout="constrained")
    axes = figure.subplots()
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100.0 * counts / np.maximum(totals, 1)
    edges = np.arange(classes + 1) - 0.5
    mesh = axes.pcolormesh(
        edges, edges, shares, cmap="Blues", norm=Normalize(0, 100),
        rasterized=classes > 30,
    )  # fmt: skip
    axes.set_aspect("equal")
    axes.invert_yaxis()
    if classes <= 12:
        size = max(5.0, min(style.TICK, 80 * side / 4.1 / classes))
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = "white" if shares[row, column] > 55 else style.INK
            axes.text(
                column, row, f"{counts[row, column]}", ha="center", va="center",
                fontsize=size, color=ink,
            )  # fmt: skip
    # A name takes about 0.13 inch of the axis.
    step = math.ceil(classes / max(1, int(side * 0.72 / 0.13)))
    ticks = range(0, classes, step)
    names = [_shortened(class_names[tick], 16) for tick in ticks]
    size = style.TICK if classes <= 12 else 7
    upright = short and classes <= 20
    axes.set_xticks(ticks, names, rotation=0 if upright else 90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.tick_params(length=2, color=style.RULE, labelcolor=style.INK)
    style.name_axes(axes, "Predicted class", "True class")
    axes.spines[:].set_color(style.RULE)
    label = "Share of the true class (%)"
    style.color_bar(figure, mesh, axes, label, shrink=0.75, aspect=28)
    return figure


def _shortened(text: str, length: int) -> str:
    text = str(text).replace("$", r"\$")
    if len(text) <= length:
        return text
    # Long names often differ at their end: Speed limit (20km/h), (30km/h), …
    end = length // 2
    return f"{text[: length - 1 - end]}…{text[-end:]}"
