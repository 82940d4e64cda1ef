"""A table of measurements as data, as text and as a picture."""

import json
import os
import pathlib
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def write(
    out: pathlib.Path,
    name: str,
    rows: list[dict[str, Any]],
    command: str,
    *,
    note: str,
    plot: Callable[[pathlib.Path, list[dict[str, Any]]], None],
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
    import jax
    import jaxlib

    from dib_jax.training.workdir import processor

    hardware = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "load": [round(value, 1) for value in os.getloadavg()],
    }
    versions = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
    }
    if "torch" in sys.modules:
        versions["torch"] = sys.modules["torch"].__version__
    facts = {"hardware": hardware, "versions": versions}
    record = {**facts, "command": command, "rows": rows}
    path = out / f"benchmark_{name}"
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
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
    ]
    lines += [line(row, columns) for row in rows]
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
    rows: list[dict[str, Any]],
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
        rows: without some of the columns where they have no point.
        panel: columns whose values have a panel each; its title.
        line: column whose values have a line each, of one colour in all panels.
        across: column along the horizontal axis.
        column: the vertical one.
        label: of the vertical axis.
        logarithmic: both axes, with the values across named.
    """
    from matplotlib.figure import Figure

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in panel)

    rows = [row for row in rows if row.get(column) is not None]
    places, names = (
        list(dict.fromkeys(map(key, rows))) for key in (place, lambda row: row[line])
    )
    figure = Figure(figsize=(3.6 * len(places) + 2.8, 4), layout="constrained")
    panels = figure.subplots(1, len(places), sharey=logarithmic, squeeze=False)[0]
    for axes, values in zip(panels, places, strict=True):
        inside = [row for row in rows if place(row) == values]
        for index, name in enumerate(names):
            points = [(row[across], row[column]) for row in inside if row[line] == name]
            if points:
                style = {"color": f"C{index}", "marker": "o", "ms": 3, "lw": 1}
                axes.plot(*zip(*points, strict=True), label=shown(name), **style)
        axes.set(xlabel=across, title=", ".join(map(_titled, panel, values)))
        if logarithmic:
            sizes = sorted({row[across] for row in inside})
            axes.set(xscale="log", yscale="log")
            axes.set_xticks(sizes, list(map(str, sizes)))
            axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(label)
    _save(path, figure, panels)


def plot_times(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
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
    rows: list[dict[str, Any]],
    columns: Mapping[str, str],
    *,
    level: float | None = None,
) -> None:
    """A group of bars for each network and batch size, a bar for each algorithm.

    Args:
        path: of the picture.
        rows: with the columns network, batch and algorithm.
        columns: those that have a panel each, and the label of its axis.
        level: at which a line is drawn.
    """
    from matplotlib.figure import Figure

    def group(row: Mapping[str, Any]) -> str:
        return f"{row['network']}, batch {row['batch']}"

    groups = list(dict.fromkeys(map(group, rows)))
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    size = (1.8 * len(groups) + 3.4, 2.8 * len(columns))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(columns), 1, squeeze=False)[:, 0]
    width = 0.8 / len(names)
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for index, name in enumerate(names):
            shift = (index - (len(names) - 1) / 2) * width
            bars = axes.bar(
                [
                    groups.index(group(r)) + shift
                    for r in rows
                    if r["algorithm"] == name
                ],
                [r[column] or 0 for r in rows if r["algorithm"] == name],
                width,
                label=shown(name),
            )
            axes.bar_label(bars, fmt="%.3g", fontsize=6, padding=1)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylabel(label)
        axes.margins(y=0.1)
        if level is not None:
            axes.axhline(level, color="grey", lw=0.8)
    _save(path, figure, panels)


def shown(name: str) -> str:
    """The name of an algorithm, or of anything else, as it is read."""
    return name.replace("_", " ")


def _titled(name: str, value: Any) -> str:
    name = {"alpha": "α"}.get(name, name)
    return f"{name} = {value:g}" if isinstance(value, float) else str(value or "")


def _save(path: pathlib.Path, figure: Any, panels: Any) -> None:
    """Save it with a legend of all that its panels show, each once."""
    shown_once: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        shown_once = dict(zip(labels, handles, strict=True)) | shown_once
    if shown_once:
        handles, labels = list(shown_once.values()), list(shown_once)
        figure.legend(handles, labels, loc="outside right center")
    figure.savefig(path, dpi=90)
