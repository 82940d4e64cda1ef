"""What a comparison leaves: its tables, figures and report."""

import csv
import functools
import io
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dib_jax.analysis import angles, comparison, curves, page
from dib_jax.analysis.comparison import Contrasts, Entry, Row
from dib_jax.analysis.report import shown
from dib_jax.analysis.runs import read_metrics
from dib_jax.commands.compare import Plan, Run
from dib_jax.tasks.exhibits import Drawing
from dib_jax.training.workdir import read_results, write_atomically, write_json

# So many pairs of methods are named one by one.
_MOST_PAIRS = 12
_WORDS = ("data set", "method", "chosen")  # columns that hold no numbers
_LISTS = ("seeds", "stages", "exits", "others")  # a cell of table.csv holds JSON
# What a curve shows: quantity of `dib_jax.analysis.curves` → its meaning.
_CURVES = {
    "metric": "Test metric after each stage",
    "pull": "How strong the local loss pulls at a stage's features beside the task's: "
    "norms of gradients, means over the training",
    "kept": "Information about the input at the last probe",
}


def write_report(
    workdir: pathlib.Path,
    plan: Plan,
    runs: Sequence[Run],
    chosen: Mapping[tuple[str, str], str],
    *,
    command: str,
    left: int = 0,
) -> pathlib.Path:
    """Write table.md, .csv and .json, the figures and report.html.

    Where curves are planned also curves.csv.

    Args:
        workdir: of the comparison.
        plan: what was compared.
        runs: the finished ones.
        chosen: what a search has chosen by (data set, method); empty without one.
        command: that makes them.
        left: how many runs are still to be done.

    Returns:
        The path of report.html.
    """
    entries = [
        Entry(run.dataset, run.method, run.seed, read_results(run.workdir))
        for run in runs
    ]
    table = comparison.rows(entries, reference=plan.reference)
    said = notes(entries, comparison.told_apart(entries), plan.reference)
    cells = _cells(table, plan.reference, chosen)
    header, lines = list(cells[0]), [list(row.values()) for row in cells]
    everything = [*said, f"{_made_on(entries)}."]
    text = _markdown([header, ["---"] * len(header), *lines], everything, command)
    write_atomically(workdir / "table.md", text.encode(errors="backslashreplace"))
    rows = [
        {**row._asdict(), "chosen": chosen.get((row.dataset, row.method), "")}
        for row in table
    ]
    facts = {
        name: _one_or_all([entry.results[name] for entry in entries])
        for name in ("hardware", "versions")
    }
    record = {"command": command, "reference": plan.reference, **facts, "rows": rows}
    write_json(workdir / "table.json", record)
    for row in rows:
        row |= {name: json.dumps(row[name]) for name in _LISTS}
    _write_csv(workdir / "table.csv", rows)
    drawings = _drawings(workdir, plan, runs, entries, table)
    pictures = "".join(shown.drawing(workdir, drawing) for drawing in drawings)
    words = {number for number, name in enumerate(header) if name in _WORDS}
    if left:
        said = [
            f"{len(runs)} of {len(runs) + left} runs are finished. The page is written "
            "again as others are, and loads itself every minute.",
            *said,
        ]
    text = page.page(
        "Comparison of training methods",
        subtitle=f"{', '.join(plan.datasets)}; seeds {', '.join(map(str, plan.seeds))}",
        lead="".join(f"<p>{page.escape(note)}</p>" for note in said),
        sections=[
            page.Section("table", "Table", page.table(header, lines, text=words)),
            page.Section("figures", "Figures", pictures),
            page.Section("command", "Command", page.command(command)),
        ],
        footer=page.escape(_made_on(entries)),
        wide=True,
        refresh=60 if left else 0,
    )
    write_atomically(workdir / "report.html", text.encode())
    return workdir / "report.html"


def _one_or_all(values: Sequence[Any]) -> Any:
    """What all have; a list of what there is where they differ."""
    there = [x for place, x in enumerate(values) if x not in values[:place]]
    return there[0] if len(there) == 1 else there


def _markdown(lines: Sequence[Sequence[str]], said: Sequence[str], command: str) -> str:
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    paragraphs = [f"{note}\n" for note in said]
    return "\n".join([*table, "", *paragraphs, f"```\n{command}\n```\n"])


def _drawings(
    workdir: pathlib.Path,
    plan: Plan,
    runs: Sequence[Run],
    entries: Sequence[Entry],
    table: Sequence[Row],
) -> list[Drawing]:
    """The figures; the curves' numbers are written into curves.csv too."""
    methods = "Test metric of every run (a dot a seed; the bar is the mean)."
    stages = "Mean test metric after each stage."
    draw_methods = functools.partial(comparison.methods_figure, table, entries)
    draw_stages = functools.partial(comparison.stages_figure, table, entries)
    drawn = [
        Drawing("methods", draw_methods, methods, methods),
        Drawing("stages", draw_stages, stages, stages),
    ]
    means = {(row.dataset, row.method): row.mean for row in table}
    firsts = {row.dataset: row for row in reversed(table)}
    everything = []
    for dataset in plan.datasets if plan.curves else ():
        measured: dict[str, list[Any]] = {method: [] for method in plan.methods}
        for run, entry in zip(runs, entries, strict=True):
            if run.dataset == dataset:
                about = curves.measured(run.workdir, entry.results)
                measured[run.method].append(about)
        points = curves.table(plan.curves, measured)
        everything += [{"dataset": dataset, **point} for point in points]
        mean = means.get((dataset, plan.reference))
        draw = functools.partial(
            curves.curves_figure,
            points,
            axis=plan.axis,
            measure=comparison.own_measure(entries, firsts[dataset]),
            reference=None if mean is None else (plan.reference, mean),
        )
        for quantity, words in _CURVES.items():
            if any(point[quantity] is not None for point in points):
                caption = (
                    f"{dataset}: {words}, against {plan.axis}; bars are one standard "
                    "deviation over seeds."
                )
                curve = functools.partial(draw, quantity=quantity)
                drawn.append(Drawing(f"{dataset}_{quantity}", curve, caption, caption))
    if everything:
        _write_csv(workdir / "curves.csv", everything)
    return drawn + _angles(plan, runs, entries)


def _angles(plan: Plan, runs: Sequence[Run], entries: Sequence[Entry]) -> list[Drawing]:
    """Angles of feedback weights, for the data sets with runs that have some."""
    drawn = []
    for dataset in plan.datasets:
        rows: dict[str, list[Any]] = {}
        for run, entry in zip(runs, entries, strict=True):
            if run.dataset == dataset and entry.results.get("angles"):
                lines = read_metrics(run.workdir / "metrics.jsonl")
                rows.setdefault(run.method, []).append(lines)
        if rows:
            caption = (
                f"{dataset}: angles between the weights B that errors come back "
                "through and the transpose of the layer’s weights W, and between the "
                "layer’s gradient and the true one; means over seeds."
            )
            draw = functools.partial(angles.methods_figure, rows)
            drawn.append(Drawing(f"{dataset}_angles", draw, caption, caption))
    return drawn


def _write_csv(path: pathlib.Path, lines: Sequence[Mapping[str, Any]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(path, stream.getvalue().encode())


def _cells(
    table: Sequence[Row], reference: str, chosen: Mapping[tuple[str, str], str]
) -> list[dict[str, str]]:
    """What stands in each line of the table, by the title of the column."""
    # Tasks differ in what they measure: the columns are those of all rows together.
    metrics = list(dict.fromkeys(row.metric for row in table))
    every = dict.fromkeys(name for row in table for name in row.others)
    others = [name for name in every if name not in metrics]
    with_ensemble = any(row.ensemble is not None for row in table)
    with_exits = any(row.best_exit is not None for row in table)
    lines = []
    for row in table:
        low, high = _points(row.low, sign="+"), _points(row.high, sign="+")
        memory = "–" if row.temp_bytes is None else f"{row.temp_bytes / 1e6:.1f}"
        validated = {row.metric: row.validation}
        line = {
            "data set": row.dataset,
            "method": row.method,
            "seeds": str(len(row.seeds)),
            **_tested(row, metrics),
            **{f"validation {x}": _points(validated.get(x)) for x in metrics},
            f"difference to {reference}, points": _points(row.difference, sign="+"),
            "95 % interval": low if row.low is None else f"{low} to {high}",
            "seconds": f"{row.seconds:.0f}",
            "temporaries, MB": memory,
            **_tested(row, others),
        }
        if with_ensemble:
            line["ensemble of heads"] = _points(row.ensemble, row.ensemble_std)
        if with_exits:
            line["exit best on validation"] = _points(row.best_exit, row.best_exit_std)
        if chosen:
            line["chosen"] = chosen[row.dataset, row.method] or "as it is"
        lines.append(line)
    return lines


def _tested(row: Row, names: Sequence[str]) -> dict[str, str]:
    """A row's metrics on the test split by the title of their column."""
    found = {**row.others, row.metric: (row.mean, row.std)}
    return {f"test {name}": _points(*found.get(name, (None,))) for name in names}


def _points(value: float | None, std: float | None = None, *, sign: str = "") -> str:
    spread = "" if std is None else f" ± {100 * std:.2f}"
    return "–" if value is None else f"{100 * value:{sign}.2f}{spread}"


def notes(
    entries: Sequence[Entry], found: Mapping[str, Contrasts], reference: str
) -> list[str]:
    """What is to be known of the table, in sentences.

    Args:
        entries: the runs.
        found: by data set and metric, which methods are told apart.
        reference: name of a method.
    """
    said = [
        "Means ± sample standard deviation over seeds; differences are paired by seed, "
        "their intervals by Student's t. Temporaries are the compiler's figure for the "
        "largest train step."
    ]
    if any(entry.results.get("one_view") for entry in entries):
        said.append(
            "Test outputs are averaged over changed copies of each sample where the "
            "config has dataset.views; those for the validation split are not."
        )
    for dataset, (methods, seeds, least, pairs) in found.items():
        if least is None:
            said.append(
                f"{dataset}: no two methods can be told apart: that takes two methods "
                "with two seeds in common, and some spread between seeds."
            )
            continue
        named = ""
        if 0 < len(pairs) <= _MOST_PAIRS:
            named = ", " + ", ".join(map(" and ".join, pairs))
        elif pairs:
            others = (set(pair) - {reference} for pair in pairs if reference in pair)
            named = f"; from {reference}: {', '.join(map(''.join, others)) or 'none'}"
        said.append(
            f"{dataset}: by these seeds two methods are told apart where their means "
            f"differ by {100 * least:.2f} points or more (Tukey's test at 5 % for all "
            f"pairs of {len(methods)} methods together, {len(seeds)} seeds as blocks): "
            f"{len(pairs) or 'none'} of {math.comb(len(methods), 2)} pairs{named}."
        )
    return said + [
        f"{dataset}, {method}: at the end the angles between feedback weights and "
        f"transposes are {angles} degrees, input side first (means over seeds)."
        for (dataset, method), angles in _last_angles(entries).items()
    ]


def _last_angles(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], list[list[float]]] = {}
    for entry in entries:
        if seed := entry.results.get("angles"):
            found.setdefault((entry.dataset, entry.method), []).append(seed)
    return {
        run: ", ".join(
            f"{statistics.fmean(layer):.1f}" for layer in zip(*seeds, strict=True)
        )
        for run, seeds in found.items()
    }


def _made_on(entries: Sequence[Entry]) -> str:
    made = [
        f"{entry.results['hardware']}; "
        f"{', '.join(map(' '.join, entry.results['versions'].items()))}"
        for entry in entries
    ]
    first, *others = dict.fromkeys(made)
    if not others:
        return first
    return (
        f"Not all runs were made alike, so their seconds do not compare: {first}; also "
        f"{'; also '.join(others)}"
    )
