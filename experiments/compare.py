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
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments import command_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dib_jax.analysis.comparison import Contrasts, Entry, Row

_FIELDS = (
    "like", "base", "methods", "datasets", "seeds", "reference", "search", "curves",
    "axis",
)  # fmt: skip
# So many pairs of methods are named one by one.
_MOST_PAIRS = 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+]*")


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
    named = {
        field: {
            name: _overrides(f"{field}.{name}", value)
            for name, value in dict(given[field]).items()
        }
        for field in ("methods", "datasets")
    }
    for field, entries in named.items():
        for name in entries:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{field}: the name {name!r} becomes part of a folder's; use "
                    "letters, digits, _, . and +"
                )
    methods, reference = named["methods"], given["reference"]
    if reference not in methods:
        raise ValueError(f"reference {reference!r} is none of {', '.join(methods)}")
    seeds = tuple(given["seeds"])
    if len(set(seeds)) < len(seeds) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"seeds must be different whole numbers, got {seeds}")
    search = {
        name: tuple(_overrides(f"search.{name}", one) for one in alternatives)
        for name, alternatives in dict(given.get("search") or {}).items()
    }
    sizes = {name: len(alternatives) for name, alternatives in search.items()}
    if search and (set(sizes) != set(methods) or len(set(sizes.values())) > 1):
        raise ValueError(
            "search must have as many alternatives for every method, got "
            f"{ {name: sizes.get(name, 0) for name in methods} }"
        )
    return Plan(
        base=given["base"],
        methods=methods,
        datasets=named["datasets"],
        seeds=seeds,
        reference=reference,
        search=search,
        curves=_curves(given.get("curves") or (), methods),
        axis=given.get("axis") or "setting",
    )


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


def planned(
    plan: Plan, workdir: pathlib.Path, *, data_dir: str = ""
) -> dict[tuple[str, str], list[Run]]:
    """The runs of a plan, those of each data set and method together.

    Args:
        plan: the plan.
        workdir: of the comparison.
        data_dir: dataset.data_dir of every run; "" leaves it as it is.

    Returns:
        The runs by (data set, method), a seed each.
    """
    from dib_jax.training.config import FACTORIES

    place = {"dataset.data_dir": data_dir} if data_dir else {}
    found: dict[tuple[str, str], list[Run]] = {}
    for dataset, of_dataset in plan.datasets.items():
        for method, of_method in plan.methods.items():
            others = {name for name in FACTORIES if f"{name}.name" in of_method}
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


def _check(plan: Plan, run: Run) -> None:
    """Refuse a run whose config or folder cannot be used, before any has started."""
    from dib_jax.training import config as configs

    try:
        file = command_line.load_config(plan.base)
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
    from dib_jax.training.workdir import finished, read_results

    (workdir / "logs").mkdir(parents=True, exist_ok=True)
    shares: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for share in _shares(jobs):
        shares.put(share)

    def one(run: Run) -> str:
        if finished(run.workdir) and (run.workdir / "report.html").is_file():
            return ""
        words = [f"--config.{field}={value}" for field, value in run.overrides.items()]
        command = [
            sys.executable, "-m", "experiments.run", f"--config={plan.base}", *words,
            f"--workdir={run.workdir}",
        ]  # fmt: skip
        log = workdir / "logs" / f"{run.workdir.name}.log"
        cores = shares.get()
        try:
            with log.open("a") as stream:
                process = subprocess.Popen(
                    command, stdout=stream, stderr=subprocess.STDOUT
                )
                if cores:
                    os.sched_setaffinity(process.pid, cores)
                failed = process.wait()
        finally:
            shares.put(cores)  # or the runs that wait for them would do so for ever
        if not failed:
            return ""
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        return f"{run.workdir.name} failed: {lines[-1]} (all of it: {log})"

    failures = []
    waiting = [run for run in runs if not finished(run.workdir)]
    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, run): run for run in runs}
        done = 0
        for future in concurrent.futures.as_completed(futures):
            run, failure = futures[future], future.result()
            if failure:
                failures.append(failure)
                print(failure, file=sys.stderr, flush=True)
            if run not in waiting:
                continue
            done += 1
            left = (time.perf_counter() - begun) / done * (len(waiting) - done)
            if not failure:
                results = read_results(run.workdir)
                metric = results["metric"]
                print(
                    f"[{done}/{len(waiting)}] {run.workdir.name}: test {metric} "
                    f"{results['test'][metric]:.4f}, {results['seconds']:.0f} s; "
                    f"about {left / 60:.0f} min left",
                    flush=True,
                )
    return failures


def _shares(jobs: int) -> list[list[int]]:
    """The cores of each of some jobs; none where the system or their number bars it.

    Jobs that spread over the same cores wait for each other's threads: two on two
    cores are done sooner with one core each.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    each = len(cores) // jobs if jobs > 1 else 0
    return [cores[job * each : (job + 1) * each] for job in range(jobs)]


def searched(
    plan: Plan,
    found: dict[tuple[str, str], list[Run]],
    *,
    jobs: int,
    workdir: pathlib.Path,
) -> tuple[dict[tuple[str, str], list[Run]], dict[tuple[str, str], str]]:
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
    from dib_jax.training.workdir import read_results

    tried = {key: trials(plan, runs[0], workdir) for key, runs in found.items()}
    everything = [run for runs in tried.values() for run in runs]
    for run in everything:
        _check(plan, run)
    if failures := execute(plan, everything, jobs=jobs, workdir=workdir):
        raise RunsFailedError("; ".join(failures))
    chosen, texts = {}, {}
    for key, runs in tried.items():
        scores = []
        for run in runs:
            results = read_results(run.workdir)
            if not results["validation"]:
                raise ValueError(
                    "a search needs a validation split; set dataset.val_fraction"
                )
            scores.append(results["validation"][results["metric"]])
        best = max(range(len(scores)), key=lambda index: scores[index])
        alternative = plan.search[key[1]][best]
        chosen[key] = [
            runs[best],
            *(
                run._replace(overrides={**run.overrides, **alternative})
                for run in found[key][1:]
            ),
        ]
        texts[key] = " ".join(
            f"{field}={value}" for field, value in alternative.items()
        )
    return chosen, texts


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
    from dib_jax.analysis import comparison, figures, page
    from dib_jax.training.workdir import write_atomically, write_json

    table = comparison.rows(entries, reference=plan.reference)
    header, lines = _shown(table, plan.reference, chosen)
    notes = _notes(entries, comparison.told_apart(entries), plan.reference)
    words = {0, 1} | ({len(header) - 1} if chosen else set())
    markdown = [
        "| " + " | ".join(header) + " |",
        "| --- " * len(header) + "|",
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
        *(f"{note}\n" for note in notes),
        f"```\n{command}\n```",
    ]
    write_atomically(workdir / "table.md", ("\n".join(markdown) + "\n").encode())
    plain = [
        {**row._asdict(), "chosen": chosen.get((row.dataset, row.method), "")}
        for row in table
    ]
    results = entries[0].results
    facts = {"hardware": results["hardware"], "versions": results["versions"]}
    write_json(
        workdir / "table.json",
        {"command": command, "reference": plan.reference, **facts, "rows": plain},
    )
    joined = ("seeds", "stages", "others")
    _write_csv(
        workdir / "table.csv",
        [{**row, **{k: json.dumps(row[k]) for k in joined}} for row in plain],
    )
    drawn: dict[str, tuple[str, Callable[..., Figure]]] = {
        "methods": (
            "Test metric of every run (a dot a seed; the bar is the mean).",
            functools.partial(comparison.methods_figure, table, entries),
        ),
        "stages": (
            "Mean test metric after each stage.",
            functools.partial(comparison.stages_figure, table),
        ),
    }
    drawn |= _curves_drawn(workdir, plan, found, table)
    pictures = []
    (workdir / "figures").mkdir(exist_ok=True)
    for name, (caption, draw) in drawn.items():
        picture = figures.png(draw(width=8.3))
        write_atomically(workdir / "figures" / f"{name}.png", picture)
        pictures.append(
            page.figure(
                ("image/svg+xml", figures.svg(draw(width=8.3))),
                ("image/svg+xml", figures.svg(draw(width=3.6))),
                width=797,
                alt=caption,
                caption=caption,
            )
        )
    text = page.page(
        "Comparison of training methods",
        subtitle=f"{', '.join(plan.datasets)}; seeds {', '.join(map(str, plan.seeds))}",
        lead="".join(f"<p>{page.escape(note)}</p>" for note in notes),
        sections=[
            page.Section("table", "Table", page.table(header, lines, text=words)),
            page.Section("figures", "Figures", "".join(pictures)),
            page.Section("command", "Command", page.command(command)),
        ],
        footer=page.escape(f"{results['hardware']}; {_versions(results['versions'])}"),
    )
    path = workdir / "report.html"
    write_atomically(path, text.encode())
    return path


def _curves_drawn(
    workdir: pathlib.Path,
    plan: Plan,
    found: Mapping[tuple[str, str], Sequence[Run]],
    table: "Sequence[Row]",
) -> "dict[str, tuple[str, Callable[..., Figure]]]":
    """Write curves.csv; captions and drawings of the curves by their name."""
    from dib_jax.analysis import curves
    from dib_jax.training.workdir import finished, read_results

    about = {
        "metric": "Test metric after each stage",
        "pull": "How strong the local loss pulls at a stage's features beside the "
        "task's: norms of gradients, means over the training",
        "kept": "Information about the input at the last probe",
    }
    drawn: dict[str, tuple[str, Callable[..., Figure]]] = {}
    everything = []
    for dataset in plan.datasets if plan.curves else ():
        runs = {
            method: [
                curves.measured(run.workdir, read_results(run.workdir))
                for run in found[dataset, method]
                if finished(run.workdir)
            ]
            for method in plan.methods
        }
        points = curves.table(plan.curves, runs)
        everything += [{"dataset": dataset, **point} for point in points]
        last = {row.method: row for row in table if row.dataset == dataset}
        reference = last.get(plan.reference)
        for quantity, words in about.items():
            if all(point[quantity] is None for point in points):
                continue
            drawn[f"{dataset}_{quantity}"] = (
                f"{dataset}: {words}, against {plan.axis}; bars are one standard "
                "deviation over seeds.",
                functools.partial(
                    curves.curves_figure,
                    points,
                    quantity,
                    axis=plan.axis,
                    metric=table[0].metric,
                    reference=reference and (reference.method, reference.mean),
                ),
            )
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


def _shown(
    table: "Sequence[Row]", reference: str, chosen: Mapping[tuple[str, str], str]
) -> tuple[list[str], list[list[str]]]:
    metric, others = table[0].metric, table[0].others
    header = [
        "data set", "method", "seeds", f"test {metric}", f"validation {metric}",
        f"difference to {reference}, points", "95 % interval", "seconds",
        "temporaries, MB", *(f"test {name}" for name in others),
    ]  # fmt: skip
    has_ensemble = any(row.ensemble is not None for row in table)
    if has_ensemble:
        header.append("ensemble of heads")
    if chosen:
        header.append("chosen")
    lines = []
    for row in table:
        interval = (
            "–"
            if row.low is None or row.high is None
            else f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"
        )
        line = [
            row.dataset,
            row.method,
            str(len(row.seeds)),
            _percent(row.mean, row.std),
            "–" if row.validation is None else f"{100 * row.validation:.2f}",
            "–" if row.difference is None else f"{100 * row.difference:+.2f}",
            interval,
            f"{row.seconds:.0f}",
            "–" if row.temp_bytes is None else f"{row.temp_bytes / 1e6:.1f}",
            *(_percent(*row.others[name]) for name in others),
        ]
        if has_ensemble:
            line.append(
                "–"
                if row.ensemble is None
                else _percent(row.ensemble, row.ensemble_std)
            )
        if chosen:
            line.append(chosen[row.dataset, row.method] or "as it is")
        lines.append(line)
    return header, lines


def _percent(mean: float, std: float | None) -> str:
    return f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def _notes(
    entries: "Sequence[Entry]", found: Mapping[str, "Contrasts"], reference: str
) -> list[str]:
    results = entries[0].results
    notes = [
        "Means ± sample standard deviation over seeds; differences are paired by seed, "
        "their intervals by Student's t. Temporaries are the compiler's figure for the "
        f"largest train step. {results['hardware']}; {_versions(results['versions'])}."
    ]
    for dataset, (methods, seeds, least, pairs) in found.items():
        if least is None:
            notes.append(
                f"{dataset}: no two methods can be told apart: that takes two methods "
                "with two seeds in common, and some spread between seeds."
            )
            continue
        note = (
            f"{dataset}: by these seeds two methods are told apart where their means "
            f"differ by {100 * least:.2f} points or more (Tukey's test at 5 % for all "
            f"pairs of {len(methods)} methods together, {len(seeds)} seeds as blocks): "
            f"{len(pairs) or 'none'} of {math.comb(len(methods), 2)} pairs"
        )
        if 0 < len(pairs) <= _MOST_PAIRS:
            note += ", " + ", ".join(f"{one} and {other}" for one, other in pairs)
        elif pairs:
            others = [
                one if other == reference else other
                for one, other in pairs
                if reference in (one, other)
            ]
            note += f"; from {reference}: {', '.join(others) or 'none'}"
        notes.append(f"{note}.")
    return notes


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def main(arguments: list[str]) -> int:
    """The command."""
    given = command_line.split_arguments(
        arguments, ("config", "workdir", "data_dir", "jobs")
    )
    if given.help:
        print((__doc__ or "").strip())
        return 0
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
    if not plan.search:
        for runs in found.values():
            for run in runs:
                _check(plan, run)

    from dib_jax.analysis.comparison import Entry
    from dib_jax.training.workdir import finished, read_results

    chosen: dict[tuple[str, str], str] = {}
    if plan.search:
        found, chosen = searched(plan, found, jobs=int(jobs), workdir=workdir)
        for runs in found.values():
            for run in runs:
                _check(plan, run)
    everything = [run for runs in found.values() for run in runs]
    # A seed of every method first: a comparison that is stopped early is a whole one.
    everything.sort(key=lambda run: plan.seeds.index(run.seed))
    failures = execute(plan, everything, jobs=int(jobs), workdir=workdir)
    entries = [
        Entry(run.dataset, run.method, run.seed, read_results(run.workdir))
        for run in everything
        if finished(run.workdir)
    ]
    if not entries:
        raise RunsFailedError(f"no run finished; the first: {failures[0]}")
    command = f"python -m experiments.compare {shlex.join(arguments)}"
    report = write_tables(workdir, plan, found, entries, chosen, command=command)
    print((workdir / "table.md").read_text().partition("```")[0].strip())
    print(f"{len(entries)} of {len(everything)} runs, report {report}")
    if failures:
        raise RunsFailedError(f"{len(failures)} runs failed: {'; '.join(failures)}")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.main(main, command="experiments.compare", goes_on=True))
