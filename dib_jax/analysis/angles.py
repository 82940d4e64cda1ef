"""Angles between the weights errors come back through and the ones they stand for.

A run by the algorithm `feedback` records them of each layer, in degrees: between B and
Wᵀ, and between the gradient of W and the true one. Here they become figures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dib_jax.algorithms.feedback import GRADIENT_ANGLE, WEIGHT_ANGLE
from dib_jax.tasks import style

KINDS = {
    WEIGHT_ANGLE: "Between B and the transpose of W",
    GRADIENT_ANGLE: "Between the gradient of W and the true one",
}
# Lines of metrics.jsonl.
Rows = Sequence[Mapping[str, Any]]
# Epochs and degrees, by the layer's name.
Courses = dict[str, tuple[np.ndarray, np.ndarray]]


def is_angle(name: str) -> bool:
    """Whether a term of metrics.jsonl is one of these angles.

    Args:
        name: of the term.
    """
    return name.endswith(tuple(KINDS))


def courses(runs: Sequence[Rows], kind: str) -> Courses:
    """The angles of each layer over the training, means over runs of one length.

    Args:
        runs: lines of each run's metrics.jsonl.
        kind: one of `KINDS`.

    Returns:
        By layer in the order of the network epochs (e,) and degrees (e,).
    """
    every: dict[str, dict[int, list[float]]] = {}
    for row in (row for rows in runs for row in rows):
        for name, value in row.items():
            if name.endswith(kind):
                layer = every.setdefault(name.removesuffix(kind), {})
                layer.setdefault(row["epoch"], []).append(value)
    # The head comes last, and names of stages are in order up to ten of them.
    order = sorted(every, key=lambda name: (name == "head", _number(name)))
    return {
        name: (
            np.array(sorted(every[name])),
            np.array([np.mean(every[name][epoch]) for epoch in sorted(every[name])]),
        )
        for name in order
    }


def _number(name: str) -> int:
    return int("".join(filter(str.isdigit, name.partition("_")[0])) or 0)


def _said(layer: str) -> str:
    """A layer's name in words: stage2_conv1 is "stage 2, conv1"."""
    if layer == "head":
        return "output layer"
    stage, _, inner = layer.partition("_")
    words = f"stage {_number(stage)}"
    return words if inner.endswith("_0") else f"{words}, {inner}"


def layers_figure(rows: Rows, *, width: float = style.WIDE) -> Figure:
    """Both angles of one run over its training, a line for each layer.

    Args:
        rows: of its metrics.jsonl.
        width: inches.
    """
    columns = 2 if width > 5 else 1
    figure, panels = style.panels(2, columns, width=width, height=2.7, margin=0.3)
    names = list(courses([rows], GRADIENT_ANGLE))
    colors = dict(zip(names, style.stage_colors(len(names)), strict=True))
    for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
        for name, (epochs, degrees) in courses([rows], kind).items():
            axes.plot(
                epochs, degrees, color=colors[name], lw=1.5, label=_said(name),
                marker="o" if len(epochs) == 1 else "",
            )  # fmt: skip
        _finish(axes, title)
    style.legend(figure, style.lines_of(panels[1]), columns=4)
    return figure


def methods_figure(
    runs: Mapping[str, Sequence[Rows]], *, width: float = style.WIDE
) -> Figure:
    """Both angles of each layer over the training, a line for each method.

    Args:
        runs: by method the metrics.jsonl of its seeds; those without angles are left
            out.
        width: inches.
    """
    panels = {
        (kind, layer): {
            method: course[layer]
            for method, rows in runs.items()
            if layer in (course := courses(rows, kind))
        }
        for kind in KINDS
        for layer in courses([row for rows in runs.values() for row in rows], kind)
        # Its error has come through nothing: its gradient is the true one.
        if (kind, layer) != (GRADIENT_ANGLE, "head")
    }
    columns = min(4 if width > 5 else 1, len(panels))
    figure, each = style.panels(
        len(panels), columns, width=width, height=2.0, margin=0.4, sharex=True
    )
    shown = list(dict.fromkeys(m for lines in panels.values() for m in lines))
    colors = dict(zip(shown, style.stage_colors(len(shown)), strict=True))
    handles: dict[str, Any] = {}
    for axes, ((kind, layer), lines) in zip(each, panels.items(), strict=True):
        for method, (epochs, degrees) in lines.items():
            (handles[method],) = axes.plot(
                epochs, degrees, color=colors[method], lw=1.4, label=method
            )
        what = "B, Wᵀ" if kind == WEIGHT_ANGLE else "gradients"
        _finish(axes, f"{_said(layer)}: {what}")
    style.legend(figure, list(handles.values()), columns=4)
    return figure


def _finish(axes: Axes, title: str) -> None:
    style.finish(axes, "Epoch", "Angle (degrees)")
    style.whole_numbers(axes.xaxis, 6)
    style.heading(axes, title)
    axes.set_ylim(0, max(95.0, axes.get_ylim()[1]))
    axes.axhline(90, color=style.GREY, lw=0.9, ls=style.DOTTED)
