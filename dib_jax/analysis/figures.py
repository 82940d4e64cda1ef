"""Figures of a run: data in, a matplotlib figure out, nothing read and nothing written.

Every function takes the width in inches, so that one figure can be drawn for paper, for
a wide page and for a phone; type keeps its size. Colours are Okabe and Ito's, which
stay apart for colour-blind eyes, up to seven stages, and a sequential map beyond.
Accuracies come in as 0..1 and are drawn in per cent. pyplot and its global state are
not used.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

# Okabe & Ito's palette without black and without yellow, which is lost on white paper.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
_PALETTE = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#5F5F5F")
_INK, _GREY, _RULE = "#222222", "#666666", "#C8C8C8"
_TITLE, _LABEL, _TICK = 9.5, 9, 8  # points

WIDE, NARROW = 8.3, 3.7  # inches: the page's column, and a phone's
_LARGE_PNG = 150_000  # bytes
_LARGEST_SVG = 200_000  # bytes; beyond it a PNG is smaller and as good
_CELL, _PICTURE = (1.35, 1.75), 1.2  # inches: a picture with its caption, and without
_CELL_CHARACTERS, _LINE = 22, 0.13  # of a caption: length and inches of a line

# What a line of metrics.jsonl holds beside the terms.
_NOT_TERMS = frozenset({"stage", "epoch", "step", "split", "seconds"})
_GRADIENTS = {
    "task_gradient": "Norm of the gradient through the head",
    "local_gradient": "Norm of the gradient through all else",
}
_METRICS = {
    "accuracy": "Accuracy",
    "ap50": "AP50",
    "ap50_largest": "AP50 (largest)",
    "map": "Mean AP",
    "mean_iou": "Mean IoU",
}

Rows = Sequence[Mapping[str, Any]]
"""Lines of metrics.jsonl."""


def stage_colors(count: int) -> list[str]:
    """Colours of `count` stages, as hexadecimal strings.

    Args:
        count: number of stages, ≥ 0.

    Returns:
        `count` different colours, in an order that shows depth beyond seven.
    """
    if count <= len(_PALETTE):
        return list(_PALETTE[:count])
    # Its upper end is too light for white paper.
    positions = np.linspace(0.0, 0.88, count)
    return [to_hex(color) for color in matplotlib.colormaps["viridis"](positions)]


def metric_label(name: str) -> str:
    """How a metric is called in text: `accuracy` → Accuracy, `ap50` → AP50."""
    return _METRICS.get(name, name.replace("_", " ").capitalize())


def term_label(name: str, *, loss_unit: str = "") -> str:
    """How a loss term is called in text, with its unit.

    Args:
        name: its key in metrics.jsonl.
        loss_unit: of the task's loss; empty for none.

    Returns:
        For example `Input information (bits)`; no unit for a term that is not known.
    """
    text = name.replace("_", " ")
    text = text[:1].upper() + text[1:]
    if name == "task_loss":
        return f"{text} ({loss_unit})" if loss_unit else text
    if name == "loss":
        return "Loss, all terms"
    if name == "sigma":
        return "Kernel width σ"
    if name == "spread":
        return "Share of features that differs between samples"
    if name in _GRADIENTS:
        return _GRADIENTS[name]
    # HSIC and its kin hold neither word; they have no unit.
    if any(word in name for word in ("information", "entropy", "correlation")):
        return f"{text} (bits)"
    return text


def terms(rows: Rows) -> tuple[str, ...]:
    """Names of the loss terms in the training lines, in the order of the record.

    Args:
        rows: lines of metrics.jsonl.

    Returns:
        Those with a number somewhere, without metrics, `loss` and `task_loss` first;
        `loss` is left out where `task_loss` is all of it, the gradients where all of
        them comes through the head.
    """
    found: dict[str, None] = {}
    for row in rows:
        if row["split"] == "train":
            found.update(
                {name: None for name, value in row.items() if _is_number(value)}
            )
    names = [name for name in found if name not in _NOT_TERMS | set(_METRICS)]
    train = [row for row in rows if row["split"] == "train"]
    if {"loss", "task_loss"} <= set(names) and all(
        row.get("loss") == row.get("task_loss") for row in train
    ):
        names.remove("loss")
    if not any(row.get("local_gradient") for row in train):
        names = [name for name in names if name not in _GRADIENTS]
    # The whole first, then its parts; sorting keeps the order of the others.
    return tuple(sorted(names, key=lambda n: (n != "loss", n != "task_loss")))


def stage_metric(
    stages: Sequence[Mapping[str, Any]],
    *,
    metric: str = "accuracy",
    baseline: float | None = None,
    width: float = 8.3,
) -> Figure:
    """The metric after each stage, on the validation and the test split.

    Args:
        stages: entries of `stages` in results.json.
        metric: which metric, 0..1.
        baseline: its test value end to end, drawn as a line; None for none.
        width: inches.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(width, 3.1), layout="constrained")
    axes = figure.subplots()
    numbers = [entry["stage"] for entry in stages]
    for split, color, marker, dashes in (
        ("validation", VERMILION, "s", (4, 2)),
        ("test", BLUE, "o", (None, None)),
    ):
        values = [_percent(entry.get(split, {}).get(metric)) for entry in stages]
        if np.all(np.isnan(values)):
            continue
        axes.plot(
            numbers, values, color=color, marker=marker, markersize=4.5, lw=1.6,
            dashes=dashes, label=split, clip_on=False,
        )  # fmt: skip
    if baseline is not None:
        axes.axhline(_percent(baseline), color=_INK, lw=1.1, ls=(0, (1, 2)))
        axes.plot([], [], color=_INK, lw=1.1, ls=(0, (1, 2)), label="end to end, test")
    finish(axes, "Stage", f"{metric_label(metric)} (%)")
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=12, integer=True, steps=[1, 2, 5, 10])
    )
    axes.set_xlim(min(numbers) - 0.3, max(numbers) + 0.3)
    _legend(figure, axes)
    return figure


def training_curves(
    rows: Rows,
    *,
    metric: str = "accuracy",
    overlapping: bool = False,
    loss_unit: str = "",
    width: float = 8.3,
) -> Figure:
    """Metric and task loss over the epochs, training and validation.

    The training line shows `task_loss`, not the whole loss: that is what the
    validation loss can be compared with.

    Args:
        rows: lines of metrics.jsonl.
        metric: which metric, 0..1.
        overlapping: whether the stages train at once (one epoch axis for all) or one
            after the other (their epochs are laid end to end).
        loss_unit: of the task's loss; empty for none.
        width: inches.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(width, 5.2), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    layout = _Epochs(rows, overlapping=overlapping)
    splits = {row["split"] for row in rows}
    for axes, label, keys, scale in (
        (panels[0], f"{metric_label(metric)} (%)", (metric,), 100.0),
        (
            panels[1],
            term_label("task_loss", loss_unit=loss_unit),
            ("task_loss", "loss"),
            1.0,
        ),
    ):
        for split in ("train", "validation"):
            layout.draw(axes, split, keys, scale=scale, solid=len(splits) == 1)
        finish(axes, "", label)
        layout.mark_stages(axes, names=axes is panels[0], width=width)
    panels[1].set_xlabel(layout.label, fontsize=_LABEL, color=_INK)
    handles = [
        Line2D([], [], color=_GREY, **_SPLIT_LINES[split], label=name)
        for split, name in (("train", "training"), ("validation", "validation"))
        if len(splits) > 1  # else there is but one kind of line
    ]
    layout.legend(figure, panels, handles)
    return figure


def loss_terms(
    rows: Rows,
    *,
    overlapping: bool = False,
    loss_unit: str = "",
    width: float = 8.3,
) -> Figure:
    """Every term of the training loss over the epochs, a panel each.

    Args:
        rows: lines of metrics.jsonl.
        overlapping: as in `training_curves`.
        loss_unit: of the task's loss; empty for none.
        width: inches.

    Returns:
        The figure.

    Raises:
        ValueError: there is no term in the training lines.
    """
    names = terms(rows)
    if not names:
        raise ValueError("metrics: no line of the train split holds a loss term")
    columns = min(2 if width > 5 else 1, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(width, 2.3 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True)
    layout = _Epochs(rows, overlapping=overlapping)
    for number, axes in enumerate(panels.flat):
        if number >= len(names):
            axes.set_visible(False)
            continue
        layout.draw(axes, "train", (names[number],), solid=True)
        finish(axes, "", "")
        # A common factor above the panel would lie on the stages' names.
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(
            term_label(names[number], loss_unit=loss_unit),
            fontsize=_TITLE,
            color=_INK,
            loc="left",
            pad=14,
        )
        layout.mark_stages(axes, names=True, width=width / columns)
        if number + columns >= len(names):
            axes.set_xlabel(layout.label, fontsize=_LABEL, color=_INK)
            axes.tick_params(labelbottom=True)
    layout.legend(figure, panels.ravel()[: len(names)], [])
    return figure


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
    shares = np.divide(
        100.0 * counts, totals, out=np.zeros(counts.shape), where=totals > 0
    )
    mesh = axes.pcolormesh(
        np.arange(classes + 1) - 0.5, np.arange(classes + 1) - 0.5, shares,
        cmap="Blues", norm=Normalize(0, 100), rasterized=classes > 30,
    )  # fmt: skip
    axes.set_aspect("equal")
    axes.invert_yaxis()
    if classes <= 12:
        size = max(5.0, min(_TICK, 80 * side / 4.1 / max(classes, 1)))
        for row, column in zip(*np.nonzero(counts), strict=True):
            axes.text(
                column, row, f"{counts[row, column]}", ha="center", va="center",
                fontsize=size, color="white" if shares[row, column] > 55 else _INK,
            )  # fmt: skip
    # A name takes about 0.13 inch of the axis.
    step = math.ceil(classes / max(1, int(side * 0.72 / 0.13)))
    ticks = list(range(0, classes, step))
    names = [_shortened(class_names[tick], 16) for tick in ticks]
    upright = short and classes <= 20
    size = _TICK if classes <= 12 else 7
    axes.set_xticks(ticks, names, rotation=0 if upright else 90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.tick_params(length=2, color=_RULE, labelcolor=_INK)
    axes.set_xlabel("Predicted class", fontsize=_LABEL, color=_INK)
    axes.set_ylabel("True class", fontsize=_LABEL, color=_INK)
    for spine in axes.spines.values():
        spine.set_color(_RULE)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.75, aspect=28, pad=0.02)
    bar.set_label("Share of the true class (%)", fontsize=_LABEL, color=_INK)
    bar.ax.tick_params(labelsize=_TICK, length=2, color=_RULE)
    bar.outline.set_visible(False)
    return figure


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
    figure = Figure(figsize=(width, 3.1), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 1, 41 if width > 5 else 21)
    for number, (name, values) in enumerate(overlaps.items()):
        style: dict[str, Any] = (
            {"histtype": "stepfilled", "color": BLUE, "alpha": 0.75}
            if number == 0
            else {"histtype": "step", "color": VERMILION, "lw": 1.6}
        )
        label = f"{name}, mean {np.mean(values):.3f}"
        axes.hist(np.clip(values, 0, 1), bins=list(edges), label=label, **style)
    finish(axes, "IoU of the found box with the true one", "Test pictures")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    _legend(figure, axes)
    return figure


def picture_grid(
    images: np.ndarray, captions: Sequence[str], *, width: float = 8.3
) -> Figure:
    """Pictures with a caption each.

    Args:
        images: uint8 (n, h, w, c), n ≥ 1; c = 1 is grey, 3 is RGB, else channels are
            averaged.
        captions: n texts of one or a few lines.
        width: inches.

    Returns:
        The figure.
    """
    columns = min(len(images), max(1, int(width / _CELL[0])))
    lines = math.ceil(len(images) / columns)
    texts = [_wrapped(caption) for caption in captions]
    # The cell has room for three lines of text.
    cell = _CELL[1] + _LINE * max(0, max(text.count("\n") for text in texts) - 2)
    figure = Figure(figsize=(_CELL[0] * columns, cell * lines))
    # All on one axes, in inches from the upper left: an axes each takes ten times as
    # long to draw.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    height, breadth = images.shape[1:3]
    scale = _PICTURE / max(height, breadth)
    for number, (image, caption) in enumerate(zip(images, texts, strict=True)):
        line, column = divmod(number, columns)
        left = (column + 0.5) * _CELL[0] - scale * breadth / 2
        top = line * cell + 0.06
        bottom = top + scale * height
        axes.imshow(
            viewable(image), cmap="gray", vmin=0, vmax=255,
            extent=(left, left + scale * breadth, bottom, top),
        )  # fmt: skip
        # A $ in a class name is no formula.
        axes.text(
            left, bottom + 0.05, caption, fontsize=7, color=_INK, va="top",
            parse_math=False, linespacing=1.3,
        )  # fmt: skip
    axes.set_xlim(0, _CELL[0] * columns)
    axes.set_ylim(cell * lines, 0)
    return figure


def viewable(image: np.ndarray) -> np.ndarray:
    """A picture that can be shown: (h, w) grey or (h, w, 3).

    Args:
        image: uint8 (h, w, c).

    Returns:
        uint8; grey where c = 1, the mean of the channels where c is neither 1 nor 3.
    """
    if image.shape[-1] == 3:
        return image
    return np.round(image.mean(axis=-1)).astype(np.uint8)


def png(figure: Figure, *, dpi: int = 160) -> bytes:
    """The figure as a PNG file; with 256 colours where it would be large otherwise."""
    content = _file(figure, format="png", dpi=dpi)
    if len(content) <= _LARGE_PNG:
        return content
    buffer = io.BytesIO()
    drawn = Image.open(io.BytesIO(content)).convert("RGB")
    drawn.quantize(256, dither=Image.Dither.NONE).save(
        buffer, format="PNG", optimize=True
    )
    return min(content, buffer.getvalue(), key=len)


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file, type as outlines; the same bytes each time."""
    with matplotlib.rc_context({"svg.hashsalt": "dib_jax", "svg.fonttype": "path"}):
        return _file(figure, format="svg", metadata={"Date": None})


def for_page(
    saved: bytes, vector: bytes | None, narrow: Figure
) -> tuple[str, bytes, bytes]:
    """What a page shows of a figure: SVG, or PNG where that is much smaller.

    Args:
        saved: the wide figure as a PNG.
        vector: the same as an SVG; None for none.
        narrow: the figure for phones.

    Returns:
        Media type; contents for a wide page and for a phone.
    """
    if vector is not None and len(vector) <= _LARGEST_SVG:
        small = svg(narrow)
        if len(small) <= _LARGEST_SVG:
            return "image/svg+xml", vector, small
    return "image/png", saved, png(narrow, dpi=240)


def _file(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    # To arrange it took longer than to draw it, and another format needs no other way.
    figure.set_layout_engine("none")
    return buffer.getvalue()


_SPLIT_LINES: dict[str, dict[str, Any]] = {
    "train": {"lw": 1.0, "dashes": (2.5, 1.5), "alpha": 0.85},
    "validation": {"lw": 1.6, "dashes": (None, None), "alpha": 1.0},
}


class _Epochs:
    """The epoch axis of a run: where each stage's epochs lie, and its colour."""

    def __init__(self, rows: Rows, *, overlapping: bool) -> None:
        self._rows = rows
        self.stages = sorted({row["stage"] for row in rows})
        self._colors = dict(
            zip(self.stages, stage_colors(len(self.stages)), strict=True)
        )
        lengths = {stage: 0 for stage in self.stages}
        for row in rows:
            lengths[row["stage"]] = max(lengths[row["stage"]], row["epoch"])
        self._lengths = lengths
        self._overlapping = overlapping or len(self.stages) == 1
        ends = np.cumsum([0, *lengths.values()])
        self._starts = {
            stage: 0 if self._overlapping else int(end)
            for stage, end in zip(self.stages, ends, strict=False)
        }
        one_for_all = overlapping and len(self.stages) > 1
        self.label = "Epoch of every stage" if one_for_all else "Epoch"

    def draw(
        self,
        axes: Axes,
        split: str,
        keys: Sequence[str],
        *,
        scale: float = 1.0,
        solid: bool = False,
    ) -> None:
        """A line for each stage, of the first of the keys that a line of it holds."""
        style = _SPLIT_LINES["validation" if solid else split]
        for stage in self.stages:
            points = [
                (self._starts[stage] + row["epoch"], value)
                for row in self._rows
                if row["stage"] == stage and row["split"] == split
                for value in [_first_number(row, keys)]
                if value is not None
            ]
            if not points:
                continue
            x, y = np.array(points).T
            axes.plot(
                x, scale * y, color=self._colors[stage], **style,
                marker="." if len(x) <= 15 else None, markersize=4, zorder=3,
            )  # fmt: skip

    def mark_stages(self, axes: Axes, *, names: bool, width: float) -> None:
        """Rules between stages, and the stages' names above where there is room."""
        axes.xaxis.set_major_locator(
            MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10])
        )
        if self._overlapping:
            return
        total = sum(self._lengths.values())
        axes.set_xlim(0.5, total + 0.5)
        for stage in self.stages[1:]:
            axes.axvline(self._starts[stage] + 0.5, color=_RULE, lw=0.8, zorder=1)
        if not names:
            return
        # A name needs half an inch, a bare number a fifth.
        room = width * 0.85 / len(self.stages)
        full = room >= 0.6
        step = 1 if full else math.ceil(0.22 / room)
        for stage in self.stages[::step]:
            # Bare numbers say what they are once.
            prefix = "stage " if full or stage == self.stages[0] else ""
            axes.annotate(
                f"{prefix}{stage}",
                (self._starts[stage] + 0.5, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(2 if full else 1, 2), textcoords="offset points",
                fontsize=7.5, color=self._colors[stage],
                ha="left" if full or stage != self.stages[0] else "right",
                annotation_clip=False,
            )  # fmt: skip

    def legend(
        self, figure: Figure, panels: Sequence[Axes] | np.ndarray, handles: list[Line2D]
    ) -> None:
        """What the lines are, and the colours where no rule names the stages."""
        if self._overlapping and len(self.stages) > 1:
            if len(self.stages) <= len(_PALETTE):
                handles = handles + [
                    Line2D([], [], color=color, lw=1.6, label=f"stage {stage}")
                    for stage, color in self._colors.items()
                ]
            else:
                self._color_bar(figure, panels)
        if handles:
            figure.legend(
                handles=handles, loc="outside upper right", frameon=False,
                ncols=min(len(handles), 4), fontsize=_TICK, labelcolor=_INK,
                borderaxespad=0.2,
            )  # fmt: skip

    def _color_bar(self, figure: Figure, panels: Sequence[Axes] | np.ndarray) -> None:
        count = len(self.stages)
        colors = ListedColormap(list(self._colors.values()))
        norm = BoundaryNorm(np.arange(count + 1) - 0.5, count)
        bar = figure.colorbar(
            ScalarMappable(norm, colors),
            ax=list(panels),
            pad=0.02,
            aspect=8 * figure.get_figheight(),
        )
        ticks = np.arange(0, count, math.ceil(count / 10))
        bar.set_ticks(list(ticks), labels=[str(self.stages[tick]) for tick in ticks])
        bar.minorticks_off()
        bar.set_label("Stage", fontsize=_LABEL, color=_INK)
        bar.ax.tick_params(labelsize=_TICK, length=2)
        bar.outline.set_visible(False)


def finish(axes: Axes, x: str, y: str) -> None:
    """Labels, spines, ticks and grid as all figures here have them.

    Args:
        axes: to be changed.
        x: label of the x axis, with its unit; "" for none.
        y: likewise.
    """
    if x:
        axes.set_xlabel(x, fontsize=_LABEL, color=_INK)
    if y:
        axes.set_ylabel(y, fontsize=_LABEL, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_RULE)
    axes.tick_params(labelsize=_TICK, color=_RULE, labelcolor=_INK, length=3)
    axes.grid(axis="y", color="#EDEDED", lw=0.7)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper right", frameon=False, ncols=3,
        fontsize=_TICK, labelcolor=_INK, borderaxespad=0.2,
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first_number(row: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    return next((row[key] for key in keys if _is_number(row.get(key))), None)


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100.0 * value


def _wrapped(caption: str) -> str:
    """Each line of a caption broken where it is wider than a cell of the grid."""
    return "\n".join(
        "\n".join(textwrap.wrap(line, _CELL_CHARACTERS)) for line in caption.split("\n")
    )


def _shortened(text: str, length: int) -> str:
    text = str(text).replace("$", r"\$")
    if len(text) <= length:
        return text
    # Long names often differ at their end: Speed limit (20km/h), (30km/h), …
    end = length // 2
    return f"{text[: length - 1 - end]}…{text[-end:]}"
