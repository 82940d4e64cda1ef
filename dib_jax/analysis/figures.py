"""Figures of a run: data in, a matplotlib figure out, nothing read and nothing written.

Every function takes the width in inches, so that one figure can be drawn for paper, for
a wide page and for a phone (`dib_jax.tasks.style` says how they look). Shares come in
as 0..1 and are drawn in per cent.

`render` and `save` make files of a drawing.
"""

import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from dib_jax.analysis.angles import is_angle
from dib_jax.tasks import Measure, measure_of, style
from dib_jax.tasks.exhibits import Drawing
from dib_jax.tasks.pictures import viewable
from dib_jax.training.workdir import write_atomically

_LARGE_PNG = 150_000  # bytes
_LARGEST_SVG = 200_000  # bytes; beyond it a PNG is smaller and as good
_CELL, _PICTURE = (1.35, 1.75), 1.2  # inches: a picture with its caption, and without
_CAPTION, _LINE = 7, 0.13  # of a caption: points, and inches of a line

# What a line of metrics.jsonl holds beside the terms.
_NOT_TERMS = frozenset({"stage", "epoch", "step", "split", "seconds"})
_GRADIENTS = {
    "task_gradient": "Norm of the gradient through the head",
    "local_gradient": "Norm of the gradient through all else",
}
_TERMS = {
    **_GRADIENTS,
    "loss": "Loss, all terms",
    "sigma": "Kernel width σ",
    "spread": "Share of features that differs between samples",
}
# Words in the names of terms in bits. HSIC and its kin hold none; they have no unit.
_IN_BITS = ("information", "entropy", "correlation")

Rows = Sequence[Mapping[str, Any]]
"""Lines of metrics.jsonl."""
Measures = Mapping[str, Measure]
"""Of a task, or of results.json (`dib_jax.tasks.measures_of`)."""


def term_of(name: str, measures: Measures) -> Measure:
    """What a loss term is called, and its unit: that of the task's loss, bits, or none.

    Args:
        name: its key in metrics.jsonl.
        measures: of the task.
    """
    if name in _TERMS:
        return Measure(_TERMS[name])
    found = measure_of(measures, name)
    if name == "task_loss":
        return found._replace(unit=measure_of(measures, "loss").unit)
    in_bits = name not in measures and any(word in name for word in _IN_BITS)
    return found._replace(unit="bits") if in_bits else found


def terms(rows: Rows, measures: Measures) -> tuple[str, ...]:
    """Names of the loss terms in the training lines, in the order of the record.

    Args:
        rows: lines of metrics.jsonl.
        measures: of the task; those in per cent are metrics and no terms, and angles
            have figures of their own.

    Returns:
        Those with a number somewhere, `loss` and `task_loss` first; `loss` is left out
        where `task_loss` is all of it, the gradients where all of them comes through
        the head.
    """
    train = [row for row in rows if row["split"] == "train"]
    names = dict.fromkeys(
        name for row in train for name, value in row.items() if is_number(value)
    )
    left_out = {name for name, each in measures.items() if each.unit == "%"}
    left_out |= _NOT_TERMS
    same = all(row.get("loss") == row.get("task_loss") for row in train)
    if "task_loss" in names and same:
        left_out.add("loss")
    if not any(row.get("local_gradient") for row in train):
        left_out |= _GRADIENTS.keys()
    # The whole first, then its parts.
    first = [name for name in ("loss", "task_loss") if name in names]
    return tuple(
        name
        for name in dict.fromkeys([*first, *names])
        if name not in left_out and not is_angle(name)
    )


def stage_metric(
    stages: Rows,
    name: str,
    measure: Measure,
    *,
    baseline: float | None = None,
    width: float = style.WIDE,
) -> Figure:
    """A metric after each stage, on the validation and the test split.

    Args:
        stages: entries of `stages` in results.json.
        name: of the metric.
        measure: what it is called.
        baseline: its test value end to end, drawn as a line; None for none.
        width: inches.
    """
    figure, (axes,) = style.panels(1, 1, width=width, height=3.1, margin=0)
    numbers = [entry["stage"] for entry in stages]
    looks: dict[str, dict[str, Any]] = {
        "validation": {"color": style.VERMILION, "marker": "s", "dashes": (4, 2)},
        "test": {"color": style.BLUE, "marker": "o"},
    }
    for split, look in looks.items():
        found = [(entry.get(split) or {}).get(name) for entry in stages]
        values = measure.scale * np.array(found, float)
        if not np.all(np.isnan(values)):
            look |= {"ms": 4.5, "lw": 1.6, "clip_on": False}
            axes.plot(numbers, values, label=split, **look)
    if baseline is not None:
        axes.axhline(
            measure.scale * baseline, label="end to end, test",
            color=style.INK, lw=1.1, ls=style.DOTTED,
        )  # fmt: skip
    style.finish(axes, "Stage", measure.axis)
    style.whole_numbers(axes.xaxis, 12)
    axes.set_xlim(min(numbers) - 0.3, max(numbers) + 0.3)
    style.legend(figure, style.lines_of(axes))
    return figure


def training_curves(
    rows: Rows,
    *,
    metric: str,
    measures: Measures,
    overlapping: bool = False,
    width: float = style.WIDE,
) -> Figure:
    """Metric and task loss over the epochs, training and validation.

    The training line shows `task_loss`, not the whole loss: that is what the
    validation loss can be compared with.

    Args:
        rows: lines of metrics.jsonl.
        metric: name of the metric.
        measures: of the task.
        overlapping: whether the stages train at once (one epoch axis for all) or one
            after the other (their epochs are laid end to end).
        width: inches.
    """
    figure, both = style.panels(2, 1, width=width, height=2.6, margin=0, sharex=True)
    # A phase that records neither has no room on the axis.
    drawn = (metric, "task_loss", "loss")
    there = {row["stage"] for row in rows if any(is_number(row.get(n)) for n in drawn)}
    rows = [row for row in rows if row["stage"] in there]
    layout = _Epochs(rows, overlapping=overlapping)
    splits = {row["split"] for row in rows}
    panels = (
        (both[0], measure_of(measures, metric), (metric,)),
        (both[1], term_of("task_loss", measures), ("task_loss", "loss")),
    )
    for axes, measure, names in panels:
        for split in _SPLIT_LINES:
            solid = len(splits) == 1
            layout.draw(axes, split, names, scale=measure.scale, solid=solid)
        style.finish(axes, "", measure.axis)
        layout.mark_stages(axes, names=axes is both[0], width=width)
    style.name_axes(both[1], layout.label, "")
    handles = [
        Line2D([], [], color=style.GREY, label=_SPLIT_NAMES[split], **look)
        for split, look in _SPLIT_LINES.items()
        if len(splits) > 1  # else there is but one kind of line
    ]
    layout.legend(figure, both, handles)
    return figure


def loss_terms(
    rows: Rows,
    *,
    measures: Measures,
    overlapping: bool = False,
    width: float = style.WIDE,
) -> Figure:
    """Every term of the training loss over the epochs, a panel each.

    Args:
        rows: lines of metrics.jsonl.
        measures: of the task.
        overlapping: as in `training_curves`.
        width: inches.

    Raises:
        ValueError: there is no term in the training lines.
    """
    names = terms(rows, measures)
    if not names:
        raise ValueError("metrics: no line of the train split holds a loss term")
    columns = min(2 if width > 5 else 1, len(names))
    figure, each = style.panels(
        len(names), columns, width=width, height=2.3, margin=0.4, sharex=True
    )
    layout = _Epochs(rows, overlapping=overlapping)
    for number, (name, axes) in enumerate(zip(names, each, strict=True)):
        layout.draw(axes, "train", (name,), solid=True)
        style.finish(axes, "", "")
        # A common factor above the panel would lie on the stages' names.
        axes.yaxis.set_major_formatter("{x:g}")
        style.heading(axes, term_of(name, measures).axis, pad=14)
        layout.mark_stages(axes, names=True, width=width / columns)
        if number + columns >= len(names):
            style.name_axes(axes, layout.label, "")
            axes.tick_params(labelbottom=True)
    layout.legend(figure, each, [])
    return figure


def picture_grid(
    images: Sequence[np.ndarray], captions: Sequence[str], *, width: float = style.WIDE
) -> Figure:
    """Pictures with a caption each.

    Args:
        images: n ≥ 1 of one size, uint8 (h, w, c); c = 1 is grey, 3 is RGB, else
            channels are averaged.
        captions: n texts of one or a few lines.
        width: inches.
    """
    columns = min(len(images), max(1, int(width / _CELL[0])))
    lines = math.ceil(len(images) / columns)
    texts = [style.wrapped(text, _PICTURE, _CAPTION) for text in captions]
    # The cell has room for three lines of text.
    cell = _CELL[1] + _LINE * max(0, max(text.count("\n") for text in texts) - 2)
    figure = Figure(figsize=(_CELL[0] * columns, cell * lines))
    # All on one axes, in inches from the upper left: an axes each takes ten times as
    # long to draw.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    height, breadth = images[0].shape[:2]
    scale = _PICTURE / max(height, breadth)
    for number, (image, caption) in enumerate(zip(images, texts, strict=True)):
        line, column = divmod(number, columns)
        start = column * _CELL[0] + (_CELL[0] - _PICTURE) / 2
        left = start + (_PICTURE - scale * breadth) / 2
        top = line * cell + 0.06
        bottom = top + scale * height
        extent = (left, left + scale * breadth, bottom, top)
        axes.imshow(viewable(image), cmap="gray", vmin=0, vmax=255, extent=extent)
        # A $ in a class name is no formula.
        axes.text(
            start, bottom + 0.05, caption, fontsize=_CAPTION, color=style.INK,
            va="top", parse_math=False, linespacing=1.3,
        )  # fmt: skip
    axes.set_xlim(0, _CELL[0] * columns)
    axes.set_ylim(cell * lines, 0)
    return figure


class Rendered(NamedTuple):
    """A drawing as files.

    Attributes:
        drawing: what was drawn.
        png: for a wide page.
        svg: the same; None where the drawing has too many marks for it.
        page: media type, and contents for a wide page and for a phone.
        width: of the wide one, inches.
        gif: its animation; None where it has none.
    """

    drawing: Drawing
    png: bytes
    svg: bytes | None
    page: tuple[str, bytes, bytes]
    width: float
    gif: bytes | None


def render(drawing: Drawing) -> Rendered:
    """Draw it, once for all folders and pages that it goes to."""
    with style.readable():
        return _render(drawing)


def _render(drawing: Drawing) -> Rendered:
    wide, narrow = drawing.draw(width=style.WIDE), drawing.draw(width=style.NARROW)
    large, vector = png(wide), svg(wide) if drawing.vector else None
    pair = (vector, svg(narrow)) if vector and len(vector) <= _LARGEST_SVG else None
    if pair and len(pair[1]) <= _LARGEST_SVG:
        page = ("image/svg+xml", *pair)
    else:  # a PNG is smaller and as good
        page = ("image/png", large, png(narrow, dpi=240))
    gif = drawing.animate() if drawing.animate else None
    return Rendered(drawing, large, vector, page, wide.get_figwidth(), gif)


def save(
    workdir: pathlib.Path,
    rendered: Sequence[Rendered],
    *,
    endings: Sequence[str] = ("png", "svg", "gif"),
) -> None:
    """Write figures/NAME.png, .svg and, of an animation, .gif.

    Args:
        workdir: of a run, finished or not.
        rendered: of `render`.
        endings: of the files to be written.

    Raises:
        OSError: the workdir cannot be written.
    """
    for made in rendered:
        for ending in endings:
            if content := getattr(made, ending):
                write(workdir, f"{made.drawing.name}.{ending}", content)


def write(workdir: pathlib.Path, name: str, content: bytes) -> None:
    """Write one file into a run's folder of figures, which is made."""
    (workdir / "figures").mkdir(exist_ok=True)
    write_atomically(workdir / "figures" / name, content)


def png(figure: Figure, *, dpi: int = 160) -> bytes:
    """The figure as a PNG file; with 256 colours where it would be large otherwise."""
    content = _file(figure, format="png", dpi=dpi)
    if len(content) <= _LARGE_PNG:
        return content
    buffer = io.BytesIO()
    drawn = Image.open(io.BytesIO(content)).convert("RGB")
    reduced = drawn.quantize(256, dither=Image.Dither.NONE)
    reduced.save(buffer, format="PNG", optimize=True)
    return min(content, buffer.getvalue(), key=len)


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file, type as outlines; the same bytes each time."""
    with matplotlib.rc_context({"svg.hashsalt": "dib_jax", "svg.fonttype": "path"}):
        return _file(figure, format="svg", metadata={"Date": None})


def _file(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    # To arrange it took longer than to draw it, and another format needs no other way.
    figure.set_layout_engine("none")
    return buffer.getvalue()


_SPLIT_NAMES = {"train": "training", "validation": "validation"}
_SPLIT_LINES: dict[str, dict[str, Any]] = {
    "train": {"lw": 1.0, "dashes": (2.5, 1.5), "alpha": 0.85},
    "validation": {"lw": 1.6, "dashes": (None, None), "alpha": 1.0},
}


class _Epochs:
    """The epoch axis of a run: where each stage's epochs lie, and its colour."""

    def __init__(self, rows: Rows, *, overlapping: bool) -> None:
        self._rows = rows
        # In the order in which they train.
        self.stages = list(dict.fromkeys(row["stage"] for row in rows))
        self._colors = style.stage_colors(len(self.stages))
        self._several = len(self.stages) > 1
        self._overlapping = overlapping or not self._several
        lengths = [
            max(row["epoch"] for row in rows if row["stage"] == stage)
            for stage in self.stages
        ]
        self._total = sum(lengths)
        ends = np.cumsum([0, *lengths[:-1]])
        self._starts = (0 * ends if self._overlapping else ends).tolist()
        one_for_all = overlapping and self._several
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
        look = _SPLIT_LINES["validation" if solid else split]
        stages = zip(self.stages, self._starts, self._colors, strict=True)
        for stage, start, color in stages:
            points = [
                (start + row["epoch"], scale * values[0])
                for row in self._rows
                if (row["stage"], row["split"]) == (stage, split)
                if (values := [row[k] for k in keys if is_number(row.get(k))])
            ]
            if points:
                x, y = np.array(points).T
                marker = "." if len(x) <= 15 else None
                axes.plot(x, y, color=color, **look, marker=marker, ms=4, zorder=3)

    def mark_stages(self, axes: Axes, *, names: bool, width: float) -> None:
        """Rules between stages, and the stages' names above where there is room."""
        style.whole_numbers(axes.xaxis, 8)
        if self._overlapping:
            return
        axes.set_xlim(0.5, self._total + 0.5)
        for start in self._starts[1:]:
            axes.axvline(start + 0.5, color=style.RULE, lw=0.8, zorder=1)
        # A name needs half an inch, a bare number a fifth.
        room = width * 0.85 / len(self.stages)
        full = room >= 0.6
        step = 1 if full else math.ceil(0.22 / room)
        for place in range(0, len(self.stages) if names else 0, step):
            # Bare numbers say what they are once.
            prefix = "stage " if full or place == 0 else ""
            axes.annotate(
                f"{prefix}{self.stages[place]}",
                (self._starts[place] + 0.5, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(2 if full else 1, 2), textcoords="offset points",
                fontsize=7.5, color=self._colors[place],
                ha="left" if full or place else "right", annotation_clip=False,
            )  # fmt: skip

    def legend(
        self, figure: Figure, each: Sequence[Axes], handles: list[Line2D]
    ) -> None:
        """What the lines are, and the colours where no rule names the stages."""
        count = len(self.stages)
        if self._overlapping and self._several and count <= len(style.PALETTE):
            handles = handles + [
                Line2D([], [], color=color, lw=1.6, label=f"stage {stage}")
                for stage, color in zip(self.stages, self._colors, strict=True)
            ]
        elif self._overlapping and self._several:
            norm = BoundaryNorm(np.arange(count + 1) - 0.5, count)
            aspect = 8 * figure.get_figheight()
            colors = ListedColormap(self._colors)
            bar = style.color_bar(figure, (norm, colors), each, "Stage", aspect=aspect)
            ticks = range(0, count, math.ceil(count / 10))
            bar.set_ticks(ticks, labels=[str(self.stages[tick]) for tick in ticks])
            bar.minorticks_off()
        style.legend(figure, handles, columns=4)


def is_number(value: Any) -> bool:
    """Whether it is a number, as which no truth value counts."""
    return isinstance(value, int | float) and not isinstance(value, bool)
