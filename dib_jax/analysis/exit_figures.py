"""Figures of exits: accuracy against cost, who leaves where, how sure is right.

Data are those of exits.json (`dib_jax.analysis.exits`).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dib_jax.tasks import style

_COLORS = {
    "commitment": style.BLUE,
    "confidence": style.VERMILION,
    "entropy": style.GREEN,
}
_BESIDE = {"sequential": "stages in turn, all samples"}

Measured = Mapping[str, Any]
"""What exits.json holds."""


def costs(measured: Measured, *, width: float = style.WIDE) -> Figure:
    """Accuracy against FLOPs and against measured time, both end to end = 1.

    Args:
        measured: exits.json.
        width: inches.
    """
    narrow = width < 6
    figure, (work, time) = style.panels(
        2, 1 if narrow else 2, width=width, height=3.1, margin=0.5, sharey=True
    )
    whole = measured["end_to_end"]
    unit = whole["inference_flops"]
    for rule, rows in measured["curves"].items():
        _line(work, rows, "flops", unit, color=_COLORS[rule], label=rule)
    for name, rows in measured["beside"].items():
        label = _BESIDE.get(name, name)
        _line(work, rows, "flops", unit, color=style.INK, ls=style.DOTTED, label=label)
    unit_time = whole["inference_seconds"]
    color = _COLORS[measured["rule"]]
    _line(time, measured["timed"], "seconds", unit_time, color=color, marker="o", ms=4)
    look: dict[str, Any] = {
        "marker": "o",
        "ms": 8,
        "mfc": "none",
        "mew": 1.6,
        "ls": "",
        "color": color,
    }
    accuracy = 100 * measured["accuracy"]
    label = f"chosen: {measured['rule']} ≥ {measured['tau']:.3g}"
    for axes, name, one in (
        (work, "inference_flops", unit),
        (time, "inference_seconds", unit_time),
    ):
        label = label if axes is work else ""
        axes.plot([measured[name] / one], [accuracy], label=label, **look)
        if whole["accuracy"] is None:
            axes.axvline(1, color=style.GREY, lw=1, label="end to end")
        else:
            axes.plot(
                [1], [100 * whole["accuracy"]], "D", ms=6, color=style.INK,
                label="end to end" if axes is work else "",
            )  # fmt: skip
    style.finish(work, "FLOPs of the mean sample, end to end = 1", "Test accuracy (%)")
    style.finish(time, "Time of the mean sample, end to end = 1", "")
    for axes in (work, time):
        axes.set_xlim(left=0)
    columns = 2 if narrow else 3
    style.legend(
        figure, style.lines_of(work), columns=columns, place="outside upper center"
    )
    return figure


def _line(
    axes: Axes, rows: Sequence[Measured], name: str, unit: float, **look: Any
) -> None:
    """A curve over a cost; beyond its best point, later thresholds only cost more."""
    points = sorted((row[name] / unit, 100 * row["accuracy"]) for row in rows)
    axes.plot(*zip(*points, strict=True), lw=1.5, **look)


def shares(measured: Measured, *, width: float = style.WIDE) -> Figure:
    """Which share of the samples leaves at each exit, and how many of them are right.

    Args:
        measured: exits.json.
        width: inches.
    """
    entries = measured["exits"]
    figure, (axes,) = style.panels(
        1, 1, width=width, height=0.55 + 0.32 * len(entries), margin=0.35
    )
    places = range(len(entries))
    values = [100 * each["share"] for each in entries]
    right = [100 * each["share"] * (each["accuracy"] or 0) for each in entries]
    axes.barh(places, values, color=style.RULE, height=0.65, label="wrong")
    axes.barh(places, right, color=style.BLUE, height=0.65, label="right")
    for place, each, value in zip(places, entries, values, strict=True):
        words = "none"
        if each["accuracy"] is not None:
            words = f"{value:.1f} %, {100 * each['accuracy']:.1f} % of them right"
        axes.text(
            value + 1, place, words, va="center", fontsize=style.TICK, color=style.INK
        )
    axes.set_yticks(list(places), [f"exit of stage {each['exit']}" for each in entries])
    axes.invert_yaxis()
    axes.set_xlim(0, 100 + 45 * 8.3 / width)
    axes.set_xticks(range(0, 101, 25))
    style.finish(axes, "Share of the test split that leaves (%)", "")
    style.legend(figure, style.lines_of(axes)[::-1], columns=2)
    return figure


def reliability(measured: Measured, *, width: float = style.WIDE) -> Figure:
    """The share that is right against sureness: a panel an exit, a line a rule.

    Args:
        measured: exits.json.
        width: inches.
    """
    entries = measured["calibration"]
    groups = [
        (number, list(own))
        for number, own in itertools.groupby(entries, key=lambda e: e["exit"])
    ]
    columns = min(len(groups), 1 if width < 6 else 3)
    figure, panels = style.panels(
        len(groups), columns, width=width, height=2.7, margin=0.4
    )
    for axes, (number, own) in zip(panels, groups, strict=True):
        axes.plot([0, 100], [0, 100], color=style.GREY, lw=1, ls=style.DOTTED)
        for place, each in enumerate(own):
            points = [(100 * sure, 100 * right) for sure, right, _ in each["bins"]]
            color = _COLORS[each["rule"]]
            axes.plot(
                *zip(*points, strict=True), marker="o", ms=3.5, lw=1.4,
                color=color, label=each["rule"],
            )  # fmt: skip
            axes.text(
                0.98, 0.04 + 0.09 * place, f"ECE {100 * each['ece']:.1f} %",
                transform=axes.transAxes, ha="right", fontsize=style.TICK, color=color,
            )  # fmt: skip
        style.heading(axes, f"Exit of stage {number}")
        style.finish(axes, "Sureness (%)", "Right (%)" if axes is panels[0] else "")
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
    style.legend(figure, style.lines_of(panels[0]), place="outside lower center")
    return figure
