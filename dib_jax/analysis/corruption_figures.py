"""Figures of corrupted pictures. Data are those of corruptions.json."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from dib_jax.tasks import style

_SHOWN = {"accuracy": "Test accuracy (%)", "ece": "Calibration error (%)"}


def strengths(measured: Mapping[str, Any], *, width: float = style.WIDE) -> Figure:
    """Accuracy and calibration error against strength, a line for each corruption.

    Args:
        measured: corruptions.json; its clean pictures have strength 0.
        width: inches.
    """
    figure, panels = style.panels(
        2, 1 if width < 6 else 2, width=width, height=2.9, margin=0.4
    )
    for axes, (measure, label) in zip(panels, _SHOWN.items(), strict=True):
        clean = 100 * measured["clean"][measure]
        for color, (name, rows) in zip(
            style.PALETTE, measured["corrupted"].items(), strict=False
        ):
            axes.plot(
                [0, *(row["strength"] for row in rows)],
                [clean, *(100 * row[measure] for row in rows)],
                marker="o", ms=3.5, lw=1.4, color=color, label=name,
            )  # fmt: skip
        style.finish(axes, "Strength (0: clean)", label)
        style.whole_numbers(axes.xaxis, 6)
    panels[1].set_ylim(bottom=0)
    style.legend(
        figure, style.lines_of(panels[0]),
        columns=3 if width < 6 else 5, place="outside upper center",
    )  # fmt: skip
    return figure
