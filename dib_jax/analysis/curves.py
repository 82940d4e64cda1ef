"""What a setting does: the metric, the local loss's pull and the information kept.

A curve joins methods of a comparison that differ in one number, its values are measured
at every stage: whether a penalty helps early and hurts late is what they are for.
"""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dib_jax.analysis import figures
from dib_jax.analysis.recording import SPLITS, read_information
from dib_jax.analysis.report.material import read_metrics

Curves = Mapping[str, Mapping[str, float]]
"""Name of a curve → name of a method → the number by which it differs."""

QUANTITIES = {
    "metric": "Test {metric} (%)",
    "pull": "Gradient of the local loss ÷ task’s",
    "kept": "I(X;T) at the end (bits)",
}


class Measured(NamedTuple):
    """One run at every stage.

    Attributes:
        metric: on the test split after each stage.
        pull: over the training of each stage, the mean norm of the gradient of all but
            the task's loss with respect to the stage's features, divided by that of the
            task's; None where the task's loss has none.
        kept: I(X;T) of each stage at the last probe, in bits, on the validation split
            where there is one; empty for a run without probes.
    """

    metric: tuple[float, ...]
    pull: tuple[float | None, ...]
    kept: tuple[float, ...]


def measured(workdir: pathlib.Path, results: Mapping[str, Any]) -> Measured:
    """What a finished run shows at every stage.

    Args:
        workdir: of the run.
        results: its results.json.

    Raises:
        ValueError: a file of the run is damaged.
    """
    stages = [entry for entry in results["stages"] if entry["test"]]
    rows = read_metrics(workdir / "metrics.jsonl")
    return Measured(
        metric=tuple(entry["test"][results["metric"]] for entry in stages),
        pull=tuple(_pull(rows, entry["stage"]) for entry in stages),
        kept=_kept(workdir),
    )


def _pull(rows: figures.Rows, stage: int) -> float | None:
    own = [row for row in rows if row["stage"] == stage and "task_gradient" in row]
    task = sum(row["task_gradient"] for row in own)
    return sum(row["local_gradient"] for row in own) / task if task else None


def _kept(workdir: pathlib.Path) -> tuple[float, ...]:
    if not (workdir / "information.npz").is_file():
        return ()  # the run was not probed
    information = read_information(workdir)
    for split in reversed(SPLITS):
        if f"{split}/input_stage" in information:
            return tuple(map(float, information[f"{split}/input_stage"][-1]))
    return ()


def table(
    curves: Curves, runs: Mapping[str, Sequence[Measured]]
) -> list[dict[str, Any]]:
    """The points of all curves: means and standard deviations over seeds.

    Args:
        curves: as they are planned.
        runs: of one data set, by method, one for each seed.

    Returns:
        For each curve, number and stage a dict with `curve`, `value`, `method`,
        `stage`, `seeds`, and for each of `QUANTITIES` its mean and `…_std`; None where
        there is nothing. Numbers ascend.
    """
    found = []
    for curve, methods in curves.items():
        for method, value in sorted(methods.items(), key=lambda item: item[1]):
            seeds = runs.get(method, ())
            for stage in range(len(seeds[0].metric) if seeds else 0):
                point: dict[str, Any] = {
                    "curve": curve, "value": value, "method": method, "stage": stage,
                    "seeds": len(seeds),
                }  # fmt: skip
                for quantity in QUANTITIES:
                    each = [getattr(run, quantity) for run in seeds]
                    own = [
                        values[stage]
                        for values in each
                        if stage < len(values) and values[stage] is not None
                    ]
                    point[quantity] = statistics.fmean(own) if own else None
                    several = len(own) > 1
                    point[f"{quantity}_std"] = (
                        statistics.stdev(own) if several else None
                    )
                found.append(point)
    return found


def curves_figure(
    points: Sequence[Mapping[str, Any]],
    quantity: str,
    *,
    axis: str,
    metric: str = "accuracy",
    reference: tuple[str, float] | None = None,
    width: float = 8.3,
) -> Figure:
    """One quantity against the setting, a panel a stage, a line a curve.

    Bars are one standard deviation over seeds to either side. The setting's axis is
    linear around 0 and logarithmic beyond, where its numbers have both signs.

    Args:
        points: as `table` gives them, of one data set.
        quantity: one of `QUANTITIES`.
        axis: what the setting is called.
        metric: name of the metric.
        reference: a method's name and its metric at the end, drawn in the last panel.
        width: inches.

    Raises:
        ValueError: no point has that quantity.
    """
    values = np.array(sorted({point["value"] for point in points}), float)
    points = [point for point in points if point[quantity] is not None]
    if not points:
        raise ValueError(f"{quantity}: no run of a curve has it")
    stages = sorted({point["stage"] for point in points})
    names = list(dict.fromkeys(point["curve"] for point in points))
    colors = figures.stage_colors(len(names))
    columns = min(len(stages), 4 if width > 5 else 1)
    lines = -(-len(stages) // columns)
    figure = Figure(figsize=(width, 2.5 * lines + 0.7), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    factor = 100 if quantity == "metric" else 1
    label = QUANTITIES[quantity].format(metric=metric)
    for number, axes in enumerate(panels.flat):
        if number >= len(stages):
            axes.set_visible(False)
            continue
        for name, color in zip(names, colors, strict=True):
            own = [
                point
                for point in points
                if point["curve"] == name and point["stage"] == stages[number]
            ]
            axes.errorbar(
                [point["value"] for point in own],
                [factor * point[quantity] for point in own],
                yerr=[factor * (point[f"{quantity}_std"] or 0) for point in own],
                color=color, label=name, marker="o", ms=3, lw=1.2, elinewidth=0.8,
            )  # fmt: skip
        if reference and quantity == "metric" and number == len(stages) - 1:
            axes.axhline(
                factor * reference[1],
                color="#666666",
                ls="--",
                lw=1,
                label=reference[0],
            )
        _scale(axes, values)
        if quantity == "pull":
            axes.set_yscale("symlog", linthresh=_least(points, quantity))
        figures.finish(
            axes,
            axis if number + columns >= len(stages) else "",
            label if number % columns == 0 else "",
        )
        axes.set_title(f"stage {stages[number]}", fontsize=9.5, loc="left")
        axes.tick_params("x", labelsize=7, labelbottom=number + columns >= len(stages))
    handles, labels = panels.flat[len(stages) - 1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", frameon=False, fontsize=8,
        ncols=max(1, min(len(labels), int(width / 1.9))),
    )  # fmt: skip
    return figure


def _scale(axes: Axes, values: np.ndarray) -> None:
    sizes = np.abs(values[values != 0])
    if len(sizes) and sizes.max() > 20 * sizes.min():
        axes.set_xscale("symlog", linthresh=sizes.min(), linscale=1)
        largest = 10.0 ** np.arange(
            np.ceil(np.log10(sizes.min())), np.floor(np.log10(sizes.max())) + 1
        )
        ticks = [-size for size in largest if -size >= values[0]]
        ticks += [0.0, *(size for size in largest if size <= values[-1])]
        labels = [f"{tick:g}".replace("-", "−") for tick in ticks]
        axes.set_xticks(ticks, labels)
        axes.minorticks_off()


def _least(points: Sequence[Mapping[str, Any]], quantity: str) -> float:
    return min(
        (point[quantity] for point in points if point[quantity] > 0), default=1.0
    )
