"""A table of measurements as data, as text and as a picture."""

import json
import os
import pathlib
import platform
import sys
from collections.abc import Callable, Mapping
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
    record = {
        "hardware": hardware,
        "versions": versions,
        "command": command,
        "rows": rows,
    }
    path = out / f"benchmark_{name}"
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    columns = list(rows[0])
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
    lines += map(line, rows)
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plot(path.with_suffix(".png"), rows)


def line(row: Mapping[str, Any]) -> str:
    """A row as a line of a Markdown table."""
    return "| " + " | ".join(map(_cell, row.values())) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plot_times(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Milliseconds over the number of samples, a panel for each order α.

    Args:
        path: of the picture.
        rows: with the columns n, what, ms and perhaps alpha.
    """
    from matplotlib.figure import Figure

    # A panel for each order, and one colour for each contender in all of them.
    orders = list(dict.fromkeys(row.get("alpha") for row in rows))
    names = [
        name
        for name in dict.fromkeys(row["what"] for row in rows)
        if len({row["n"] for row in rows if row["what"] == name}) > 1
    ]
    figure = Figure(figsize=(3.6 * len(orders) + 2.8, 4), layout="constrained")
    panels = figure.subplots(1, len(orders), sharey=True, squeeze=False)[0]
    for axes, order in zip(panels, orders, strict=True):
        own = [row for row in rows if row.get("alpha") == order]
        for index, name in enumerate(names):
            points = [(row["n"], row["ms"]) for row in own if row["what"] == name]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=f"C{index}",
                    marker="o",
                    ms=3,
                    lw=1,
                    label=name,
                )
        sizes = sorted({row["n"] for row in own})
        axes.set(xscale="log", yscale="log", xlabel="samples n")
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if order is not None:
            axes.set_title(f"α = {order:g}")
    panels[0].set_ylabel("milliseconds, one thread")
    if panels[0].lines:
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside right center"
        )
    figure.savefig(path, dpi=90)
