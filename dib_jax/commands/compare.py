"""Run several methods on several data sets and seeds, and compare them.

python -m experiments.compare --config=configs/compare/NAME.py[:quick] [--workdir=DIR]
    [--data_dir=DIR] [--jobs=N]

The config file's `get_config` returns

  base      a config file of experiments.run, "configs/NAME.py[:quick]"
  methods   name → overrides of the base, as after --config.: ("objective.beta=0", …)
  datasets  name → overrides, likewise; where a method names another network, head,
            task, objective or algorithm than a data set has, its options of that
            section do not apply
  seeds     whole numbers
  reference the method that differences are taken to
  like      optional: another such file, whose fields it has where it sets none itself;
            of several, the fields of the last and the data sets of all
  search    optional: method → alternatives, each a tuple of overrides; every method has
            as many, tried with the first seed; the best on the validation split is run
            with the others, and one that fails loses
  curves    optional: triples of a curve's name, a method and the number by which it
            differs from the curve's others; what is measured is drawn against that
  axis      what that number is called, such as "β"

Every run is one of `experiments.run`, in DIR/runs/DATASET-METHOD-seedSEED, those of a
search in DIR/search; the same command goes on where it stopped. Leaves DIR/table.md,
.csv and .json, figures and report.html.
"""

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import queue
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dib_jax import settings
from dib_jax.commands import command_line, surroundings
from dib_jax.commands import config as configs
from dib_jax.commands.registry import prefixed
from dib_jax.training.lock import owned

# The runs of a method on a data set, a seed each.
Runs = dict[tuple[str, str], list["Run"]]
# A page of what is finished takes one in so many parts of the time.
_SHARE = 20.0
Processes = set["subprocess.Popen[bytes]"]

_NEEDED = ("base", "methods", "datasets", "seeds", "reference")
_FIELDS = ("like", *_NEEDED, "search", "curves", "axis")
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
    for field in _NEEDED:
        if not given.get(field):
            raise ValueError(f"a comparison needs the field {field!r}")
    methods, datasets = (
        _named(field, given[field]) for field in ("methods", "datasets")
    )
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
    inherited: dict[str, Any] = {}
    for file in _several(given.get("like") or ()):
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
                found.setdefault(curve, {})[method] = float(value)
            case _:
                raise ValueError(
                    f"curves: {one!r} is not a curve's name, a method and a number"
                )
        if method not in methods:
            raise ValueError(f"curves: {curve!r} names {method!r}, which is no method")
    return found


def _overrides(where: str, value: Any) -> dict[str, str]:
    texts = _several(value)
    for text in texts:
        if not isinstance(text, str) or "=" not in text:
            raise ValueError(f"{where}: {text!r} is no override; write FIELD=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _several(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


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
    base = _named_by(plan.base)
    found: Runs = {}
    for dataset, of_dataset in plan.datasets.items():
        for method, of_method in plan.methods.items():
            usual = {**base, **of_dataset}
            others = {
                name
                for name in configs.FACTORIES
                if of_method.get(f"{name}.name", "") not in ("", usual[f"{name}.name"])
            }
            fitting = {
                field: value
                for field, value in of_dataset.items()
                if field.partition(".")[0] not in others
            }
            shared = {**fitting, **of_method, **place}
            found[dataset, method] = [
                Run(
                    dataset,
                    method,
                    seed,
                    {**shared, "seed": str(seed)},
                    workdir / "runs" / f"{dataset}-{method}-seed{seed}",
                )
                for seed in plan.seeds
            ]
    return found


def _named_by(base: str) -> dict[str, str]:
    """The network, head, task, objective and algorithm of a config, by dotted field."""
    fields, config = configs.schema({}), command_line.load_config(base).config
    names = [f"{section}.name" for section in configs.FACTORIES]
    given = settings.flatten(config.to_dict())
    return {name: given.get(name, fields[name].default) for name in names}


def _check(plan: Plan, runs: Sequence[Run], *, folders: bool = True) -> None:
    """Refuse runs whose config or folder cannot be used, before any has started."""
    file = command_line.load_config(plan.base)
    for run in runs:
        with prefixed(f"{run.method} on {run.dataset}: "):
            config = configs.complete(command_line.override(file.config, run.overrides))
            if folders:
                command_line.check_workdir(run.workdir, config)


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


def _tried(plan: Plan, found: Runs, workdir: pathlib.Path) -> Runs:
    return {key: trials(plan, runs[0], workdir) for key, runs in found.items()}


def execute(
    plan: Plan,
    runs: Sequence[Run],
    *,
    jobs: int,
    workdir: pathlib.Path,
    failures: list[str] | None = None,
    after: Callable[[], None] = lambda: None,
) -> list[str]:
    """Do the runs that are not finished, some side by side, and say how it goes.

    Args:
        plan: the plan they belong to.
        runs: in the order in which they start.
        jobs: how many at once.
        workdir: of the comparison; each run's output goes to a file in its `logs`.
        failures: to which a line is added for each run that failed.
        after: called when a run is finished.

    Returns:
        A line for each run that failed.
    """
    logs = workdir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    shares: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for share in _shares(jobs):
        shares.put(share)
    waiting = [run for run in runs if not _is_done(run)]
    begun, failures = time.perf_counter(), [] if failures is None else failures
    with _pool(jobs) as (pool, started):
        futures = {
            pool.submit(_execute_one, plan.base, run, logs, shares, started): run
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
            after()
    return failures


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[tuple[concurrent.futures.Executor, Processes]]:
    """Threads that wait for processes; what is left of these ends with the block."""
    started: Processes = set()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            yield pool, started
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in tuple(started):
                process.terminate()
            raise


def _is_done(run: Run) -> bool:
    return all(
        (run.workdir / name).is_file() for name in ("results.json", "report.html")
    )


def _results(run: Run) -> dict[str, Any]:
    from dib_jax.training.workdir import read_results

    return read_results(run.workdir)


def _execute_one(
    base: str,
    run: Run,
    logs: pathlib.Path,
    shares: "queue.SimpleQueue[list[int]]",
    started: Processes,
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
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=surroundings.child_environment(),
            )
            started.add(process)
            if cores:
                os.sched_setaffinity(process.pid, cores)
            status = process.wait()
            started.discard(process)
            if not status:
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
    plan: Plan,
    found: Runs,
    *,
    jobs: int,
    workdir: pathlib.Path,
    failures: list[str] | None = None,
) -> tuple[Runs, dict[tuple[str, str], str]]:
    """Choose each method's alternative on the validation split; one that fails loses.

    Once later seeds have begun with an alternative, it stays. When a comparison goes
    on, a trial that had failed by chance may be the best one.

    Args:
        plan: the plan, with a search.
        found: as `planned` gives it.
        jobs: how many runs at once.
        workdir: of the comparison.
        failures: to which a line is added for each run of the search that failed.

    Returns:
        The runs with the overrides that were chosen, the first seed's being the trial
        itself, and those overrides as text.

    Raises:
        RunsFailedError: all alternatives of a method failed.
        ValueError: a run has no validation split to choose by.
    """
    tried = _tried(plan, found, workdir)
    everything = list(itertools.chain(*tried.values()))
    _check(plan, everything)
    failures = execute(plan, everything, jobs=jobs, workdir=workdir, failures=failures)
    chosen, texts = {}, {}
    for key, runs in tried.items():
        if not (done := [run for run in runs if _is_done(run)]):
            raise RunsFailedError(
                f"{key[1]} on {key[0]}: no alternative of the search finished; give "
                f"others: {'; '.join(failures)}"
            )
        later = {
            run.workdir: [
                other._replace(overrides={**other.overrides, **alternative})
                for other in found[key][1:]
            ]
            for run, alternative in zip(runs, plan.search[key[1]], strict=True)
        }
        best = max(
            done, key=lambda run: (_begun(plan, later[run.workdir]), _validation(run))
        )
        alternative = plan.search[key[1]][runs.index(best)]
        others = later[best.workdir]
        chosen[key] = [best, *others]
        texts[key] = " ".join(map("=".join, alternative.items()))
    return chosen, texts


def _begun(plan: Plan, runs: Sequence[Run]) -> bool:
    """Whether there are folders of such runs, and all of them have these overrides."""
    begun = [run for run in runs if run.workdir.exists()]
    try:
        _check(plan, begun)
    except ValueError:
        return False
    return bool(begun)


def _validation(run: Run) -> float:
    results = _results(run)
    if not results["validation"]:
        raise ValueError("a search needs a validation split; set dataset.val_fraction")
    return results["validation"][results["metric"]]


def main(arguments: list[str]) -> None:
    """The command."""
    given = command_line.split_arguments(
        arguments,
        ("--config=FILE", "--workdir=DIR", "--data_dir=DIR", "--jobs=N"),
        help=command_line.documented("compare", __doc__),
    )
    if "config" not in given.flags:
        raise ValueError("--config is missing: give --config=configs/compare/NAME.py")
    jobs = command_line.whole_number(given.flags, "jobs") or 1
    file = command_line.load_config(given.flags["config"])
    with prefixed(f"{file.path}: "):
        plan = read_plan(file.config.to_dict())
    workdir = pathlib.Path(
        given.flags.get("workdir") or f"runs/compare-{file.name}-{file.variant}"
    ).expanduser()
    found = planned(plan, workdir, data_dir=given.flags.get("data_dir", ""))
    command = f"python -m {command_line.called('compare')} {shlex.join(arguments)}"
    # With a search the runs' folders are those of alternatives that are not known yet.
    everything = list(itertools.chain(*found.values()))
    _check(plan, everything, folders=not plan.search)
    if plan.search:
        _check(plan, list(itertools.chain(*_tried(plan, found, workdir).values())))
    with owned(workdir):
        _compare(plan, found, jobs=jobs, workdir=workdir, command=command)


def _compare(
    plan: Plan, found: Runs, *, jobs: int, workdir: pathlib.Path, command: str
) -> None:
    """Do all runs, and write the report, which is there as soon as one is done."""
    chosen: dict[tuple[str, str], str] = {}
    lost: list[str] = []
    if plan.search:
        found, chosen = searched(plan, found, jobs=jobs, workdir=workdir, failures=lost)
    everything = list(itertools.chain(*found.values()))
    _check(plan, everything)
    # A seed of every method first: a comparison that is stopped early is a whole one.
    everything.sort(key=lambda run: plan.seeds.index(run.seed))
    wrote, cost = time.monotonic(), 0.0

    def report() -> tuple[list[Run], pathlib.Path]:
        # Late, for it needs JAX; a device, if there is one, is for the runs.
        import jax

        from dib_jax.commands.comparison_report import write_report

        jax.config.update("jax_platforms", "cpu")
        finished = [run for run in everything if _is_done(run)]
        left = len(everything) - len(finished) - len(failures)
        path = write_report(workdir, plan, finished, chosen, command=command, left=left)
        return finished, path

    def now_and_then() -> None:
        nonlocal wrote, cost
        if time.monotonic() - wrote >= _SHARE * cost:
            start = time.monotonic()
            _, path = report()
            if not cost:
                print(f"the report so far, made again as runs finish: {path}")
            wrote = time.monotonic()
            cost = wrote - start

    failures: list[str] = []
    execute(
        plan, everything, jobs=jobs, workdir=workdir, failures=failures,
        after=now_and_then,
    )  # fmt: skip
    if not any(map(_is_done, everything)):
        raise RunsFailedError(f"no run finished; the first: {failures[0]}")
    finished, path = report()
    print((workdir / "table.md").read_text("utf-8").partition("```")[0].strip())
    print(f"{len(finished)} of {len(everything)} runs, report {path}")
    if failed := [*lost, *failures]:
        raise RunsFailedError(f"{len(failed)} runs failed: {'; '.join(failed)}")


if __name__ == "__main__":
    command_line.start("compare")
