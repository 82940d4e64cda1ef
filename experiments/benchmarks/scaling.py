"""Memory of a training step as depth, batch or width grows, by the compiler alone."""

import pathlib
from collections.abc import Iterator
from typing import Any

from experiments.benchmarks.training import compare, draw, legend

_SCHEDULES = ("end_to_end", "end_to_end_recomputed", "parallel", "sequential")
# What grows → the values it takes, and the network and batch size at each of them.
_GROWING = {
    "depth": ((4, 8, 16, 32), lambda depth: (f"cnn{depth}w32", 128)),
    "batch": ((32, 128, 512, 1024), lambda batch: ("cnn8w32", batch)),
    "width": ((16, 32, 64, 128), lambda width: (f"cnn8w{width}", 128)),
}


def scaling(quick: str = "False") -> Iterator[list[dict[str, Any]]]:
    """Temporaries of a step of equal stages on pictures of 32 × 32 × 3.

    Args:
        quick: True for the two smallest values of each.

    Raises:
        ValueError: neither True nor False.
    """
    if quick not in ("True", "False"):
        raise ValueError(f"--quick: got {quick!r}; must be True or False")
    return (
        [
            {"grows": what, "to": value, **row}
            for row in compare(*network_at(value), _SCHEDULES, timed=False)
        ]
        for what, (values, network_at) in _GROWING.items()
        for value in values[: 2 if quick == "True" else None]
    )


def plot_growth(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Temporaries of each schedule, a panel for each thing that grows.

    Args:
        path: of the picture.
        rows: as `scaling` gives them.
    """
    from matplotlib.figure import Figure

    growing = list(dict.fromkeys(row["grows"] for row in rows))
    figure = Figure(figsize=(3.6 * len(growing) + 2.4, 3.4), layout="constrained")
    panels = figure.subplots(1, len(growing), squeeze=False)[0]
    names = {"depth": "stages", "batch": "samples in a batch", "width": "channels"}
    for axes, what in zip(panels, growing, strict=True):
        draw(axes, [row for row in rows if row["grows"] == what], "to", "temp MiB")
        axes.set(xlabel=names[what], ylim=(0, None))
    panels[0].set_ylabel("temporaries of a step, MiB")
    legend(figure, panels[0])
    figure.savefig(path, dpi=90)
