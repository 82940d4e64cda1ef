"""A table of measurements as data, as text and as a picture."""

import json
import os
import pathlib
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from matplotlib.figure import Figure

from dib_jax.training.workdir import processor

# A column is a number or text by its name; a measurement without it has it not.
Row = dict[str, Any]
# What the columns of several benchmarks mean.
TIMES = (
    "ms: median over rounds, in which all that is compared runs in turn; ×: how many "
    "times what it is compared with."
)
FIGURES = (
    "Temporaries, the peak (not on a CPU) and work of a step are the compiler's own "
    "figures; of stages in turn the largest over the stages, and the sum of them."
)
PLAIN = f"×: how many times end to end. {FIGURES} Convolutions are plain ones."


def write(
    out: pathlib.Path,
    name: str,
    rows: list[Row],
    command: str,
    *,
    note: str,
    plot: Callable[[pathlib.Path, list[Row]], None],
) -> None:
    """Write benchmark_NAME.json, .md and .png.

    Args:
        out: a folder that is there.
        name: of the benchmark.
        rows: one dict a line of the table, with a number or text a column.
        command: that makes it.
        note: what the columns mean.
        plot: draws the rows into a file.
    """
    hardware = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "load": [round(value, 1) for value in os.getloadavg()],
    }
    loaded = filter(None, map(sys.modules.get, ("jax", "jaxlib", "torch")))
    versions = {module.__name__: module.__version__ for module in loaded}
    versions = {"python": platform.python_version(), **versions}
    record = {"hardware": hardware, "versions": versions, "command": command}
    path = out / f"benchmark_{name}"
    path.with_suffix(".json").write_text(
        json.dumps({**record, "rows": rows}, indent=1) + "\n"
    )
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [
        f"`{command}`",
        "",
        f"{hardware['processor']}; load {hardware['load'][0]} at its end. "
        + ", ".join(f"{key} {value}" for key, value in versions.items())
        + f". {note}",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *(line(row, columns) for row in rows),
    ]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plot(path.with_suffix(".png"), rows)


def line(row: Mapping[str, Any], columns: Iterable[str]) -> str:
    """A row as a line of a Markdown table.

    Args:
        row: of numbers and text, by column; without those that mean nothing to it.
        columns: of the table.
    """
    return "| " + " | ".join(_cell(row.get(name)) for name in columns) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plot_lines(
    path: pathlib.Path,
    rows: list[Row],
    *,
    panel: tuple[str, ...],
    line: str,
    across: str,
    column: str,
    label: str,
    logarithmic: bool = False,
) -> None:
    """A column of the rows over another one, a line for each value of a third.

    Args:
        path: of the picture.
        rows: without a number along or in the column where they have no point.
        panel: columns whose values have a panel each; its title.
        line: column whose values have a line each, of one colour in all panels.
        across: column along the horizontal axis.
        column: the vertical one.
        label: of the vertical axis.
        logarithmic: both axes, with the values across named.
    """
    points = [
        (tuple(map(row.get, panel)), str(row[line]), row[across], row[column])
        for row in rows
        if row.get(column) is not None and isinstance(row[across], int)
    ]
    if not points:
        return  # at the start of a benchmark
    places = list(dict.fromkeys(values for values, *_ in points))
    names = list(dict.fromkeys(name for _, name, *_ in points))
    figure = Figure(figsize=(3.6 * len(places) + 2.8, 4), layout="constrained")
    panels = figure.subplots(1, len(places), sharey=logarithmic, squeeze=False)[0]
    for axes, values in zip(panels, places, strict=True):
        inside = [point[1:] for point in points if point[0] == values]
        for index, name in enumerate(names):
            curve = [(x, y) for each, x, y in inside if each == name]
            if curve:
                style = {"color": f"C{index}", "marker": "o", "ms": 3, "lw": 1}
                words = name.replace("_", " ")
                axes.plot(*zip(*curve, strict=True), label=words, **style)
        axes.set(xlabel=across, title=", ".join(map(_titled, panel, values)))
        if logarithmic:
            sizes = sorted({x for _, x, _ in inside})
            axes.set(xscale="log", yscale="log")
            axes.set_xticks(sizes, list(map(str, sizes)))
            axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(label)
    _save(path, figure, panels)


def plot_times(path: pathlib.Path, rows: list[Row]) -> None:
    """Milliseconds over the number of samples, a panel for each order α.

    Args:
        path: of the picture.
        rows: with the columns n, what, ms and perhaps alpha.
    """
    sizes: dict[str, set[int]] = {}
    for row in rows:
        sizes.setdefault(row["what"], set()).add(row["n"])
    plot_lines(
        path,
        [row for row in rows if len(sizes[row["what"]]) > 1],
        panel=("alpha",),
        line="what",
        across="n",
        column="ms",
        label="milliseconds, one thread",
        logarithmic=True,
    )


def plot_bars(
    path: pathlib.Path,
    rows: list[Row],
    columns: Mapping[str, str],
    *,
    level: float | None = None,
) -> None:
    """A group of bars for each network and batch size, a bar for each algorithm.

    Args:
        path: of the picture.
        rows: with the columns network, batch and algorithm; those without the others
            are left out.
        columns: those that have a panel each where there are any, and the label of its
            axis.
        level: at which a line is drawn.
    """

    columns = {
        name: label
        for name, label in columns.items()
        if any(name in row for row in rows)
    }
    rows = [
        {**row, "group": f"{row['network']}, batch {row['batch']}"}
        for row in rows
        if columns.keys() <= row.keys()
    ]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    size = (1.8 * len(groups) + 3.4, 2.8 * len(columns))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(columns), 1, squeeze=False)[:, 0]
    width = 0.8 / len(names)
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for index, name in enumerate(names):
            shift = (index - (len(names) - 1) / 2) * width
            some = [row for row in rows if row["algorithm"] == name]
            places = [groups.index(row["group"]) + shift for row in some]
            heights = [row[column] or 0 for row in some]
            bars = axes.bar(places, heights, width, label=name.replace("_", " "))
            axes.bar_label(bars, fmt="%.3g", fontsize=6, padding=1)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylabel(label)
        axes.margins(y=0.1)
        if level is not None:
            axes.axhline(level, color="grey", lw=0.8)
    _save(path, figure, panels)


def _titled(name: str, value: Any) -> str:
    shown = "α" if name == "alpha" else name
    return f"{shown} = {value:g}" if isinstance(value, float) else str(value or "")


def _save(path: pathlib.Path, figure: Any, panels: Any) -> None:
    """Save it with a legend of all that its panels show, each once."""
    once: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True)) | once
    if once:
        figure.legend(list(once.values()), list(once), loc="outside right center")
    figure.savefig(path, dpi=90)
