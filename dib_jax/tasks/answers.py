"""Which class each sample was given: confusions and examples."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dib_jax.tasks import style
from dib_jax.tasks.exhibits import (
    Drawing,
    Example,
    Examples,
    Exhibit,
    Line,
    Table,
    share,
)

EXAMPLES = 12
_PAIRS, _NOTHING = 10, "nothing found"
_MANY = 20  # classes, beyond which a matrix is drawn in pixels

Picture = Callable[[int], np.ndarray | None]


class Classes(NamedTuple):
    """True and predicted classes of n samples.

    Attributes:
        true: int (n,).
        predicted: int (n,), −1 where nothing was found.
        confidence: (n,), how sure each prediction is, 0..1.
        names: of the classes.
        noun: what the samples are, in the plural.
    """

    true: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    names: tuple[str, ...]
    noun: str


def confusions(classes: Classes) -> Exhibit:
    """The confusion matrix, and the most frequent confusions in a table."""
    names = classes.names
    if classes.predicted.min() < 0:  # a column of its own; no sample is truly of it
        names = (*names, _NOTHING)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (classes.true, classes.predicted), 1)
    drawing = Drawing(
        "confusion",
        functools.partial(confusion_matrix, counts, names),
        f"Confusion matrix of {len(names)} classes on the test split.",
        f"Test split: {np.trace(counts):,} of {len(classes.true):,} {classes.noun} are "
        "on the diagonal.",
        vector=len(names) <= _MANY,
    )
    wrong = counts * ~np.eye(len(names), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [divmod(int(flat), len(names)) for flat in order if wrong.flat[flat] > 0]
    rows = [
        (
            names[true],
            names[other],
            f"{wrong[true, other]:,}",
            share(wrong[true, other] / counts[true].sum(), digits=1),
        )
        for true, other in pairs
    ]
    header = ("True class", "Predicted as", classes.noun.capitalize(), "Of the class")
    table = Table("Most frequent confusions", header, rows, words=(0, 1))
    return Exhibit("confusion", "Confusions", (drawing, table) if pairs else (drawing,))


def chosen(
    classes: Classes,
    samples: Sequence[int] | np.ndarray,
    *,
    picture: Picture,
    overlaps: np.ndarray | None = None,
) -> tuple[Example, ...]:
    """Some samples with their true class, the predicted one and how sure it is.

    Args:
        classes: of all samples.
        samples: numbers of those to be shown.
        picture: number of a sample → uint8 (h, w, c); None for one that is no picture.
        overlaps: (n,), one more number for each sample.
    """
    names, found = (*classes.names, _NOTHING), []  # the last one for −1
    for sample in map(int, samples):
        true, predicted = classes.true[sample], classes.predicted[sample]
        confidence = float(classes.confidence[sample])
        # 99.97 % is not certainty, and rounds to 100 %.
        sure = "> 99.9 %" if 0.999 < confidence < 1 else share(confidence, digits=1)
        lines = [
            Line("true", names[true]),
            Line("predicted", names[predicted], wrong=bool(predicted != true)),
            Line(sure),
        ]
        if overlaps is not None:
            lines.append(Line(f"IoU {overlaps[sample]:.3f}"))
        found.append(Example(sample, tuple(lines), picture(sample)))
    return tuple(found)


def drawn_at_random(classes: Classes, *, seed: int, picture: Picture) -> Examples:
    """A few samples, the same for one seed."""
    count = len(classes.true)
    random = np.random.default_rng(seed)
    samples = np.sort(random.choice(count, min(EXAMPLES, count), replace=False))
    note = (
        f"{len(samples)} {classes.noun}, drawn at random with seed {seed}: the true "
        "class, the predicted one and its probability."
    )
    return Examples("examples", "", note, chosen(classes, samples, picture=picture))


def mistakes(classes: Classes, *, picture: Picture) -> tuple[Examples, ...]:
    """The mistakes that are surest of themselves; nothing where there are none."""
    wrong = np.flatnonzero(classes.predicted != classes.true)
    order = np.argsort(-classes.confidence[wrong], kind="stable")[:EXAMPLES]
    note = (
        f"{len(order)} of {len(wrong):,} mistakes among {len(classes.true):,} test "
        f"{classes.noun}."
    )
    items = chosen(classes, wrong[order], picture=picture)
    made = Examples("mistakes", "The most confident mistakes", note, items)
    return (made,) if items else ()


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
    ticks = list(range(0, classes, step))
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
