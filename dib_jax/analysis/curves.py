"""What a setting does: the metric, the local loss's pull, the information that stays.

A curve joins methods of a comparison that differ in one number, its values are measured
at every stage: whether a penalty helps early and hurts late is what they are for.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dib_jax.analysis.comparison import mean_and_std
from dib_jax.analysis.figures import Rows
from dib_jax.analysis.recording import SPLITS, read_information
from dib_jax.analysis.runs import read_metrics
from dib_jax.tasks import Measure, style

Curves = Mapping[str, Mapping[str, float]]
"""Name of a curve → name of a method → the number by which it differs."""

QUANTITIES = {
    "metric": "Test {metric}",
    "pull": "Gradient of the local loss ÷ task’s",
    "kept": "I(X;T) at the end (bits)",
}


class Measured(NamedTuple):
    """One run at every stage that it has outputs of: of each block at its last one.

    Attributes:
        stages: their numbers.
        metric: on the test split after each stage.
        pull: over the training of each stage, the mean norm of the gradient of all but
            the task's loss with respect to the stage's features, divided by that of the
            task's; None where the task's loss has none.
        kept: I(X;T) of each stage at the last probe, in bits, on the validation split
            where there is one; empty for a run without probes.
    """

    stages: tuple[int, ...]
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
    information: Mapping[str, np.ndarray] = {}
    if (workdir / "information.npz").is_file():  # else the run was not probed
        information = read_information(workdir)
    # On the validation split where there is one.
    bits = [information.get(f"{split}/input_stage") for split in reversed(SPLITS)]
    last = next((values[-1] for values in bits if values is not None), ())
    # Probes are of all stages, also of those inside of a block.
    kept = [float(last[entry["stage"]]) for entry in stages if len(last)]
    return Measured(
        stages=tuple(entry["stage"] for entry in stages),
        metric=tuple(entry["test"][results["metric"]] for entry in stages),
        pull=tuple(_pull(rows, entry["stage"]) for entry in stages),
        kept=tuple(kept),
    )


def _pull(rows: Rows, stage: int) -> float | None:
    rows = [row for row in rows if row["stage"] == stage and "task_gradient" in row]
    task = sum(row["task_gradient"] for row in rows)
    return sum(row["local_gradient"] for row in rows) / task if task else None


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
            for place, stage in enumerate(seeds[0].stages if seeds else ()):
                point: dict[str, Any] = {
                    "curve": curve, "value": value, "method": method, "stage": stage,
                    "seeds": len(seeds),
                }  # fmt: skip
                for quantity in QUANTITIES:
                    each = [getattr(run, quantity)[place : place + 1] for run in seeds]
                    at = [x for of_run in each for x in of_run if x is not None]
                    point[quantity], point[f"{quantity}_std"] = mean_and_std(at)
                found.append(point)
    return found


def curves_figure(
    points: Sequence[Mapping[str, Any]],
    quantity: str,
    *,
    axis: str,
    measure: Measure,
    reference: tuple[str, float] | None = None,
    width: float = style.WIDE,
) -> Figure:
    """One quantity against the setting, a panel a stage, a line a curve.

    Bars are one standard deviation over seeds to either side. The setting's axis is
    linear around 0 and logarithmic beyond, where its numbers have both signs.

    Args:
        points: as `table` gives them, of one data set.
        quantity: one of `QUANTITIES`.
        axis: what the setting is called.
        measure: what the metric is called.
        reference: a method's name and its metric at the end, drawn in the last panel.
        width: inches.

    Raises:
        ValueError: no point has that quantity.
    """
    settings = np.array(sorted({point["value"] for point in points}), float)
    points = [point for point in points if point[quantity] is not None]
    if not points:
        raise ValueError(f"{quantity}: no run of a curve has it")
    stages = sorted({point["stage"] for point in points})
    names = list(dict.fromkeys(point["curve"] for point in points))
    columns = min(len(stages), 4 if width > 5 else 1)
    alike = {"width": width, "sharex": True, "sharey": True}
    figure, panels = style.panels(len(stages), columns, height=2.5, margin=0.7, **alike)
    factor = measure.scale if quantity == "metric" else 1
    label = QUANTITIES[quantity].format(metric=measure.axis)
    for number, (axes, stage) in enumerate(zip(panels, stages, strict=True)):
        for name, color in zip(names, style.stage_colors(len(names)), strict=True):
            line = [p for p in points if (p["curve"], p["stage"]) == (name, stage)]
            axes.errorbar(
                [point["value"] for point in line],
                [factor * point[quantity] for point in line],
                yerr=[factor * (point[f"{quantity}_std"] or 0) for point in line],
                color=color, label=name, marker="o", ms=3, lw=1.2, elinewidth=0.8,
            )  # fmt: skip
        if reference and quantity == "metric" and axes is panels[-1]:
            name, value = reference
            axes.axhline(factor * value, color=style.GREY, ls="--", lw=1, label=name)
        _scale(axes, settings)
        if quantity == "pull":
            least = min((p["pull"] for p in points if p["pull"] > 0), default=1.0)
            axes.set_yscale("symlog", linthresh=least)
        lowest = number + columns >= len(stages)
        style.finish(axes, axis * lowest, label * (number % columns == 0))
        style.heading(axes, f"stage {stage}")
        axes.tick_params("x", labelsize=7, labelbottom=lowest)
    handles, most = style.lines_of(panels[-1]), max(1, int(width / 1.9))
    style.legend(figure, handles, columns=most, place="outside lower center")
    return figure


def _scale(axes: Axes, values: np.ndarray) -> None:
    sizes = np.abs(values[values != 0])
    if len(sizes) and sizes.max() > 20 * sizes.min():
        axes.set_xscale("symlog", linthresh=sizes.min(), linscale=1)
        ends = np.ceil(np.log10(sizes.min())), np.floor(np.log10(sizes.max()))
        powers = 10.0 ** np.arange(ends[0], ends[1] + 1)
        ticks = [-tick for tick in powers if -tick >= values[0]]
        ticks += [0.0, *(tick for tick in powers if tick <= values[-1])]
        axes.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
        axes.minorticks_off()
