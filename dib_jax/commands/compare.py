"""Run several methods on several data sets and seeds, and compare them.

python -m experiments.compare --config=configs/compare/NAME.py[:quick] [--workdir=DIR]
    [--data_dir=DIR] [--jobs=N]

The config file's `get_config` returns

  base      a config file of experiments.run, "configs/NAME.py[:quick]"
  methods   name → overrides of the base, as after --config.: ("objective.beta=0", …)
  datasets  name → overrides, likewise; where a method names another network, head, task
            or objective, a data set's options of that section do not apply
  seeds     whole numbers
  reference the method that differences are taken to
  like      optional: another such file, whose fields it has where it sets none itself;
            of several, the fields of the last and the data sets of all
  search    optional: method → alternatives, each a tuple of overrides; every method has
            as many, tried with the first seed; the best on the validation split is run
            with the others
  curves    optional: triples of a curve's name, a method and the number by which it
            differs from the curve's others; what is measured is drawn against that
  axis      what that number is called, such as "β"

Every run is one of `experiments.run`, in DIR/runs/DATASET-METHOD-seedSEED, those of a
search in DIR/search; the same command goes on where it stopped. Leaves DIR/table.md,
.csv and .json, figures and report.html.
"""

import concurrent.futures
import csv
import functools
import io
import itertools
import json
import math
import os
import pathlib
import queue
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dib_jax.commands import command_line
from dib_jax.commands import config as configs

if TYPE_CHECKING:
    from dib_jax.analysis.comparison import Contrasts, Entry, Row
    from dib_jax.tasks.exhibits import Drawing

# The runs of a method on a data set, a seed each.
Runs = dict[tuple[str, str], list["Run"]]

_FIELDS = (
    "like", "base", "methods", "datasets", "seeds", "reference", "search", "curves",
    "axis",
)  # fmt: skip
_NAMED = ("methods", "datasets")
# So many pairs of methods are named one by one.
_MOST_PAIRS = 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+]*")
_REPORT = "report.html"
_WORDS = ("data set", "method", "chosen")  # columns that hold no numbers
# What a curve shows: quantity of `dib_jax.analysis.curves` → its meaning.
_CURVES = {
    "metric": "Test metric after each stage",
    "pull": "How strong the local loss pulls at a stage's features beside the task's: "
    "norms of gradients, means over the training",
    "kept": "Information about the input at the last probe",
}


class Plan(NamedTuple):
    """What is to be compared.

    Attributes:
        base: config file of `experiments.run`.
        methods: by name the overrides, text by dotted field.
        datasets: likewise.
        seeds: of the runs.
        reference: name of a method.
        search: alternatives by method; empty for no search.
        curves: numbers by method, by curve; empty for none.
        axis: what these numbers are called.
    """

    base: str
    methods: dict[str, dict[str, str]]
    datasets: dict[str, dict[str, str]]
    seeds: tuple[int, ...]
    reference: str
    search: dict[str, tuple[dict[str, str], ...]]
    curves: dict[str, dict[str, float]]
    axis: str


class Run(NamedTuple):
    """One run of the comparison.

    Attributes:
        dataset, method, seed: what it is of.
        overrides: text by dotted field of the base config.
        workdir: where it goes.
    """

    dataset: str
    method: str
    seed: int
    overrides: dict[str, str]
    workdir: pathlib.Path


class RunsFailedError(RuntimeError):
    """Some runs of a comparison did not finish; the others did."""


def read_plan(given: Mapping[str, Any]) -> Plan:
    """The plan that a config file describes.

    Args:
        given: what `get_config` returned, as a dict.

    Raises:
        ValueError: a field is unknown, missing or impossible.
        FileNotFoundError: it is like a file that is not there.
    """
    given = _with_inherited(given)
    for field in ("base", "methods", "datasets", "seeds", "reference"):
        if not given.get(field):
            raise ValueError(f"a comparison needs the field {field!r}")
    methods, datasets = (_named(field, given[field]) for field in _NAMED)
    if given["reference"] not in methods:
        raise ValueError(
            f"reference {given['reference']!r} is none of {', '.join(methods)}"
        )
    seeds = tuple(given["seeds"])
    if len(set(seeds)) < len(seeds) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"seeds must be different whole numbers, got {seeds}")
    search = {
        name: tuple(_overrides(f"search.{name}", one) for one in alternatives)
        for name, alternatives in dict(given.get("search") or {}).items()
    }
    sizes = {name: len(search.get(name, ())) for name in methods | search}
    if search and (search.keys() != methods.keys() or len(set(sizes.values())) > 1):
        raise ValueError(
            f"search must have as many alternatives for every method, got {sizes}"
        )
    return Plan(
        base=given["base"],
        methods=methods,
        datasets=datasets,
        seeds=seeds,
        reference=given["reference"],
        search=search,
        curves=_curves(given.get("curves") or (), methods),
        axis=given.get("axis") or "setting",
    )


def _named(field: str, given: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    for name in given:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{field}: the name {name!r} becomes part of a folder's; use letters, "
                "digits, _, . and +"
            )
    return {name: _overrides(f"{field}.{name}", given[name]) for name in given}


def _with_inherited(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are given, and those of the files that it is like."""
    for field in given:
        if field not in _FIELDS:
            raise ValueError(f"unknown field {field!r}; a comparison has {_FIELDS}")
    like = given.get("like") or ()
    inherited: dict[str, Any] = {}
    for file in (like,) if isinstance(like, str) else like:
        other = _with_inherited(command_line.load_config(file).config.to_dict())
        datasets = {**inherited.get("datasets", {}), **other.get("datasets", {})}
        inherited = {**inherited, **other, "datasets": datasets}
    return {**inherited, **given}


def _curves(
    given: Sequence[Any], methods: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for one in given:
        match one:
            case (str(curve), str(method), int() | float() as value):
                pass
            case _:
                raise ValueError(
                    f"curves: {one!r} is not a curve's name, a method and a number"
                )
        if method not in methods:
            raise ValueError(f"curves: {curve!r} names {method!r}, which is no method")
        found.setdefault(curve, {})[method] = float(value)
    return found


def _overrides(where: str, value: Any) -> dict[str, str]:
    texts = (value,) if isinstance(value, str) else tuple(value)
    for text in texts:
        if not isinstance(text, str) or "=" not in text:
            raise ValueError(f"{where}: {text!r} is no override; write FIELD=VALUE")
    return {field: value for field, _, value in (text.partition("=") for text in texts)}


def planned(plan: Plan, workdir: pathlib.Path, *, data_dir: str = "") -> Runs:
    """The runs of a plan, those of each data set and method together.

    Args:
        plan: the plan.
        workdir: of the comparison.
        data_dir: dataset.data_dir of every run; "" leaves it as it is.

    Returns:
        The runs by (data set, method), a seed each.
    """
    place = {"dataset.data_dir": data_dir} if data_dir else {}
    found: Runs = {}
    for dataset, of_dataset in plan.datasets.items():
        for method, of_method in plan.methods.items():
            others = {name for name in configs.FACTORIES if f"{name}.name" in of_method}
            fitting = {
                field: value
                for field, value in of_dataset.items()
                if field.partition(".")[0] not in others
            }
            for seed in plan.seeds:
                overrides = {**fitting, **of_method, **place, "seed": str(seed)}
                name = f"{dataset}-{method}-seed{seed}"
                run = Run(dataset, method, seed, overrides, workdir / "runs" / name)
                found.setdefault((dataset, method), []).append(run)
    return found


def _check(plan: Plan, runs: Sequence[Run]) -> None:
    """Refuse runs whose config or folder cannot be used, before any has started."""
    file = command_line.load_config(plan.base)
    for run in runs:
        try:
            config = configs.complete(command_line.override(file.config, run.overrides))
            command_line.check_workdir(run.workdir, config)
        except ValueError as error:
            raise ValueError(f"{run.method} on {run.dataset}: {error}") from None


def trials(plan: Plan, run: Run, workdir: pathlib.Path) -> list[Run]:
    """The runs that a method's alternatives are chosen by.

    Args:
        plan: the plan, with a search.
        run: the method's run of the first seed.
        workdir: of the comparison.
    """
    return [
        run._replace(
            overrides={**run.overrides, **alternative},
            workdir=workdir / "search" / f"{run.dataset}-{run.method}-{index}",
        )
        for index, alternative in enumerate(plan.search[run.method])
    ]


def execute(
    plan: Plan, runs: Sequence[Run], *, jobs: int, workdir: pathlib.Path
) -> list[str]:
    """Do the runs that are not finished, some side by side, and say how it goes.

    Args:
        plan: the plan they belong to.
        runs: in the order in which they start.
        jobs: how many at once.
        workdir: of the comparison; each run's output goes to a file in its `logs`.

    Returns:
        A line for each run that failed.
    """
    (workdir / "logs").mkdir(parents=True, exist_ok=True)
    shares: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for share in _shares(jobs):
        shares.put(share)
    waiting = [run for run in runs if not _is_done(run)]
    begun, failures = time.perf_counter(), []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(_execute_one, plan.base, run, workdir / "logs", shares): run
            for run in waiting
        }
        finishing = concurrent.futures.as_completed(futures)
        for done, future in enumerate(finishing, start=1):
            if failure := future.result():
                failures.append(failure)
                print(failure, file=sys.stderr, flush=True)
                continue
            left = (time.perf_counter() - begun) / done * (len(waiting) - done)
            run = futures[future]
            results = _results(run)
            metric = results["metric"]
            print(
                f"[{done}/{len(waiting)}] {run.workdir.name}: test {metric} "
                f"{results['test'][metric]:.4f}, {results['seconds']:.0f} s; "
                f"about {left / 60:.0f} min left",
                flush=True,
            )
    return failures


def _is_done(run: Run) -> bool:
    return all((run.workdir / name).is_file() for name in ("results.json", _REPORT))


def _results(run: Run) -> dict[str, Any]:
    from dib_jax.training.workdir import read_results

    return read_results(run.workdir)


def _execute_one(
    base: str, run: Run, logs: pathlib.Path, shares: "queue.SimpleQueue[list[int]]"
) -> str:
    """Do a run in a process of its own; a line where it fails, else ""."""
    words = [f"--config.{field}={value}" for field, value in run.overrides.items()]
    command = [
        sys.executable, "-m", "dib_jax.commands.run", f"--config={base}", *words,
        f"--workdir={run.workdir}",
    ]  # fmt: skip
    log = logs / f"{run.workdir.name}.log"
    cores = shares.get()
    try:
        with log.open("a") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
            if cores:
                os.sched_setaffinity(process.pid, cores)
            if not process.wait():
                return ""
    finally:
        shares.put(cores)  # or the runs that wait for them would do so for ever
    lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
    return f"{run.workdir.name} failed: {lines[-1]} (all of it: {log})"


def _shares(jobs: int) -> list[list[int]]:
    """The cores of each of some jobs; none where the system or their number bars it.

    Jobs that spread over the same cores wait for each other's threads: two on two
    cores are done sooner with one core each.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    each = len(cores) // jobs if jobs > 1 else 0
    return [cores[job * each : (job + 1) * each] for job in range(jobs)]


def searched(
    plan: Plan, found: Runs, *, jobs: int, workdir: pathlib.Path
) -> tuple[Runs, dict[tuple[str, str], str]]:
    """Choose each method's alternative on the validation split.

    Args:
        plan: the plan, with a search.
        found: as `planned` gives it.
        jobs: how many runs at once.
        workdir: of the comparison.

    Returns:
        The runs with the overrides that were chosen, the first seed's being the trial
        itself, and those overrides as text.

    Raises:
        RunsFailedError: a run of the search failed.
        ValueError: a run has no validation split to choose by.
    """
    tried = {key: trials(plan, runs[0], workdir) for key, runs in found.items()}
    everything = list(itertools.chain(*tried.values()))
    _check(plan, everything)
    if failures := execute(plan, everything, jobs=jobs, workdir=workdir):
        raise RunsFailedError("; ".join(failures))
    chosen, texts = {}, {}
    for key, runs in tried.items():
        scores = [_validation(run) for run in runs]
        best = scores.index(max(scores))
        alternative = plan.search[key[1]][best]
        others = [
            run._replace(overrides={**run.overrides, **alternative})
            for run in found[key][1:]
        ]
        chosen[key] = [runs[best], *others]
        texts[key] = " ".join(map("=".join, alternative.items()))
    return chosen, texts


def _validation(run: Run) -> float:
    results = _results(run)
    if not results["validation"]:
        raise ValueError("a search needs a validation split; set dataset.val_fraction")
    return results["validation"][results["metric"]]


def write_tables(
    workdir: pathlib.Path,
    plan: Plan,
    found: Mapping[tuple[str, str], Sequence[Run]],
    entries: "Sequence[Entry]",
    chosen: Mapping[tuple[str, str], str],
    *,
    command: str,
) -> pathlib.Path:
    """Write table.md, .csv and .json, the figures and report.html.

    Where curves are planned also curves.csv.

    Args:
        workdir: of the comparison.
        plan: what was compared.
        found: the runs by (data set, method).
        entries: the finished ones.
        chosen: what a search has chosen; empty without one.
        command: that makes them.

    Returns:
        The path of report.html.
    """
    from dib_jax.analysis import comparison
    from dib_jax.training.workdir import write_atomically, write_json

    table = comparison.rows(entries, reference=plan.reference)
    columns = _columns(table, plan.reference, chosen)
    lines = [[cell(row) for cell in columns.values()] for row in table]
    notes = _notes(entries, comparison.told_apart(entries), plan.reference)
    markdown = [
        _line(columns),
        "| --- " * len(columns) + "|",
        *map(_line, lines),
        "",
        *(f"{note}\n" for note in notes),
        f"```\n{command}\n```\n",
    ]
    write_atomically(workdir / "table.md", "\n".join(markdown).encode())
    rows = [
        {**row._asdict(), "chosen": chosen.get((row.dataset, row.method), "")}
        for row in table
    ]
    facts = {name: entries[0].results[name] for name in ("hardware", "versions")}
    record = {"command": command, "reference": plan.reference, **facts, "rows": rows}
    write_json(workdir / "table.json", record)
    joined = ("seeds", "stages", "others")
    _write_csv(
        workdir / "table.csv",
        [{**row, **{name: json.dumps(row[name]) for name in joined}} for row in rows],
    )
    drawings = _drawings(workdir, plan, found, entries, table)
    shown = (list(columns), lines)
    footer = _made_on(entries)
    text = _page(workdir, plan, notes, shown, drawings, command, footer)
    write_atomically(workdir / _REPORT, text.encode())
    return workdir / _REPORT


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _page(
    workdir: pathlib.Path,
    plan: Plan,
    notes: Sequence[str],
    table: tuple[list[str], list[list[str]]],
    drawings: "Sequence[Drawing]",
    command: str,
    footer: str,
) -> str:
    """The report, as HTML; the figures are saved beside it."""
    from dib_jax.analysis import page
    from dib_jax.analysis.report import shown

    header, lines = table
    words = {number for number, name in enumerate(header) if name in _WORDS}
    pictures = "".join(shown.drawing(workdir, drawing) for drawing in drawings)
    return page.page(
        "Comparison of training methods",
        subtitle=f"{', '.join(plan.datasets)}; seeds {', '.join(map(str, plan.seeds))}",
        lead="".join(f"<p>{page.escape(note)}</p>" for note in notes),
        sections=[
            page.Section("table", "Table", page.table(header, lines, text=words)),
            page.Section("figures", "Figures", pictures),
            page.Section("command", "Command", page.command(command)),
        ],
        footer=page.escape(footer),
    )


def _drawings(
    workdir: pathlib.Path,
    plan: Plan,
    found: Mapping[tuple[str, str], Sequence[Run]],
    entries: "Sequence[Entry]",
    table: "Sequence[Row]",
) -> "list[Drawing]":
    from dib_jax.analysis import comparison
    from dib_jax.tasks.exhibits import Drawing

    methods = "Test metric of every run (a dot a seed; the bar is the mean)."
    stages = "Mean test metric after each stage."
    draw_methods = functools.partial(comparison.methods_figure, table, entries)
    draw_stages = functools.partial(comparison.stages_figure, table, entries)
    return [
        Drawing("methods", draw_methods, methods, methods),
        Drawing("stages", draw_stages, stages, stages),
        *_curves_drawn(workdir, plan, found, entries, table),
    ]


def _curves_drawn(
    workdir: pathlib.Path,
    plan: Plan,
    found: Mapping[tuple[str, str], Sequence[Run]],
    entries: "Sequence[Entry]",
    table: "Sequence[Row]",
) -> "list[Drawing]":
    """Write curves.csv, and draw the curves."""
    from dib_jax.analysis import curves
    from dib_jax.tasks import measure_of, measures_of
    from dib_jax.tasks.exhibits import Drawing

    drawn: list[Drawing] = []
    everything = []
    for dataset in plan.datasets if plan.curves else ():
        runs = {
            method: [
                curves.measured(run.workdir, _results(run))
                for run in found[dataset, method]
                if _is_done(run)
            ]
            for method in plan.methods
        }
        points = curves.table(plan.curves, runs)
        everything += [{"dataset": dataset, **point} for point in points]
        reference = [
            (row.method, row.mean)
            for row in table
            if (row.dataset, row.method) == (dataset, plan.reference)
        ]
        metric = table[0].metric
        draw = functools.partial(
            curves.curves_figure,
            points,
            axis=plan.axis,
            measure=measure_of(measures_of(entries[0].results), metric),
            reference=reference[0] if reference else None,
        )
        for quantity, words in _CURVES.items():
            if any(point[quantity] is not None for point in points):
                caption = (
                    f"{dataset}: {words}, against {plan.axis}; bars are one standard "
                    "deviation over seeds."
                )
                curve = functools.partial(draw, quantity=quantity)
                name = f"{dataset}_{quantity}"
                drawn.append(Drawing(name, curve, caption, caption))
    if everything:
        _write_csv(workdir / "curves.csv", everything)
    return drawn


def _write_csv(path: pathlib.Path, lines: Sequence[Mapping[str, Any]]) -> None:
    from dib_jax.training.workdir import write_atomically

    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(path, stream.getvalue().encode())


def _columns(
    table: "Sequence[Row]", reference: str, chosen: Mapping[tuple[str, str], str]
) -> "dict[str, Callable[[Row], str]]":
    """What stands in each column of the table, by its title."""

    def points(value: float | None, std: float | None = None, *, sign: str = "") -> str:
        spread = "" if std is None else f" ± {100 * std:.2f}"
        return "–" if value is None else f"{100 * value:{sign}.2f}{spread}"

    def interval(row: "Row") -> str:
        if row.low is None:
            return "–"
        return f"{points(row.low, sign='+')} to {points(row.high, sign='+')}"

    def memory(row: "Row") -> str:
        return "–" if row.temp_bytes is None else f"{row.temp_bytes / 1e6:.1f}"

    def other(name: str) -> "Callable[[Row], str]":
        return lambda row: points(*row.others[name])

    metric = table[0].metric
    columns: dict[str, Callable[[Row], str]] = {
        "data set": lambda row: row.dataset,
        "method": lambda row: row.method,
        "seeds": lambda row: str(len(row.seeds)),
        f"test {metric}": lambda row: points(row.mean, row.std),
        f"validation {metric}": lambda row: points(row.validation),
        f"difference to {reference}, points": lambda row: points(
            row.difference, sign="+"
        ),
        "95 % interval": interval,
        "seconds": lambda row: f"{row.seconds:.0f}",
        "temporaries, MB": memory,
    }
    for name in table[0].others:
        columns[f"test {name}"] = other(name)
    if any(row.ensemble is not None for row in table):
        columns["ensemble of heads"] = lambda row: points(
            row.ensemble, row.ensemble_std
        )
    if chosen:
        columns["chosen"] = lambda row: chosen[row.dataset, row.method] or "as it is"
    return columns


def _notes(
    entries: "Sequence[Entry]", found: Mapping[str, "Contrasts"], reference: str
) -> list[str]:
    notes = [
        "Means ± sample standard deviation over seeds; differences are paired by seed, "
        "their intervals by Student's t. Temporaries are the compiler's figure for the "
        f"largest train step. {_made_on(entries)}."
    ]
    for dataset, (methods, seeds, least, pairs) in found.items():
        if least is None:
            notes.append(
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
        notes.append(
            f"{dataset}: by these seeds two methods are told apart where their means "
            f"differ by {100 * least:.2f} points or more (Tukey's test at 5 % for all "
            f"pairs of {len(methods)} methods together, {len(seeds)} seeds as blocks): "
            f"{len(pairs) or 'none'} of {math.comb(len(methods), 2)} pairs{named}."
        )
    return notes


def _made_on(entries: "Sequence[Entry]") -> str:
    results = entries[0].results
    versions = ", ".join(map(" ".join, results["versions"].items()))
    return f"{results['hardware']}; {versions}"


def main(arguments: list[str]) -> None:
    """The command."""
    given = command_line.split_arguments(
        arguments, ("config", "workdir", "data_dir", "jobs")
    )
    if given.help:
        print(command_line.documented("compare", __doc__))
        return
    if "config" not in given.flags:
        raise ValueError("--config is missing: give --config=configs/compare/NAME.py")
    jobs = given.flags.get("jobs", "1")
    if not jobs.isdecimal() or int(jobs) < 1:
        raise ValueError(f"--jobs must be a whole number ≥ 1, got {jobs!r}")
    file = command_line.load_config(given.flags["config"])
    try:
        plan = read_plan(file.config.to_dict())
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from None
    workdir = pathlib.Path(
        given.flags.get("workdir") or f"runs/compare-{file.name}-{file.variant}"
    ).expanduser()
    data_dir = given.flags.get("data_dir", "")
    found = planned(plan, workdir, data_dir=data_dir)
    chosen: dict[tuple[str, str], str] = {}
    if plan.search:
        found, chosen = searched(plan, found, jobs=int(jobs), workdir=workdir)
    everything = list(itertools.chain(*found.values()))
    _check(plan, everything)
    # A seed of every method first: a comparison that is stopped early is a whole one.
    everything.sort(key=lambda run: plan.seeds.index(run.seed))
    failures = execute(plan, everything, jobs=int(jobs), workdir=workdir)
    from dib_jax.analysis.comparison import Entry

    entries = [
        Entry(run.dataset, run.method, run.seed, _results(run))
        for run in everything
        if _is_done(run)
    ]
    if not entries:
        raise RunsFailedError(f"no run finished; the first: {failures[0]}")
    command = f"python -m {command_line.called('compare')} {shlex.join(arguments)}"
    report = write_tables(workdir, plan, found, entries, chosen, command=command)
    print((workdir / "table.md").read_text().partition("```")[0].strip())
    print(f"{len(entries)} of {len(everything)} runs, report {report}")
    if failures:
        raise RunsFailedError(f"{len(failures)} runs failed: {'; '.join(failures)}")


if __name__ == "__main__":
    command_line.start("compare")
