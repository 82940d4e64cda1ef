"""Several methods beside each other: from the results of runs to a table and figures.

Differences are paired by seed: two runs of one seed share their validation split, their
order of batches and, where the networks agree, their initial weights.
"""

import collections
import functools
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from dib_jax.analysis.statistics import mean_interval
from dib_jax.tasks import Measure, measure_of, measures_of, style

_LEVEL = 0.95
# Of metrics in float32.
_ROUNDING = 1e-6


class Entry(NamedTuple):
    """One finished run.

    Attributes:
        dataset: name of the data set in the comparison.
        method: name of the method in the comparison.
        seed: of the run.
        results: its results.json.
    """

    dataset: str
    method: str
    seed: int
    results: Mapping[str, Any]

    @property
    def score(self) -> float:
        """The metric on the test split."""
        return self.results["test"][self.results["metric"]]


class Row(NamedTuple):
    """A method on a data set.

    Attributes:
        dataset: name of the data set.
        method: name of the method.
        seeds: those of its runs, ascending.
        metric: name of the metric, 0..1 and higher is better.
        mean: of the metric on the test split, over the seeds.
        std: its sample standard deviation over the seeds; None with one seed.
        validation: mean of the metric on the validation split; None without one.
        difference: mean over common seeds of this method minus the reference; None
            for the reference itself, where there is no common seed, and where the
            reference has another metric.
        low, high: 95 % interval of that difference by Student's t over the seeds; None
            with fewer than two common seeds.
        seconds: mean of the runs' times.
        temp_bytes: largest over train steps and seeds, the compiler's figure.
        stages: mean test metric of each exit.
        exits: the numbers of the stages that these are of.
        others: the other metrics on the test split, the loss excepted: name → mean
            and standard deviation as above.
        ensemble: mean test metric of all heads together; None where a run has no such.
        ensemble_std: its sample standard deviation, as above.
        best_exit: mean test metric of the exit of each run that is best on the
            validation split, by `best_exit`; None where a run has none.
        best_exit_std: its sample standard deviation, as above.
    """

    dataset: str
    method: str
    seeds: tuple[int, ...]
    metric: str
    mean: float
    std: float | None
    validation: float | None
    difference: float | None
    low: float | None
    high: float | None
    seconds: float
    temp_bytes: int | None
    stages: tuple[float, ...]
    exits: tuple[int, ...]
    others: dict[str, tuple[float, float | None]]
    ensemble: float | None
    ensemble_std: float | None
    best_exit: float | None
    best_exit_std: float | None


class Contrasts(NamedTuple):
    """Which methods can be told apart on a data set.

    Attributes:
        methods: those that were compared.
        seeds: of their runs.
        least: difference of two means, in the metric's unit, from which on they are;
            None where there is one method, one seed, or no spread between the seeds.
        pairs: of those methods that are, in their order of appearance.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    least: float | None
    pairs: tuple[tuple[str, str], ...]


def rows(entries: Sequence[Entry], *, reference: str) -> list[Row]:
    """The table: methods on data sets, the best mean first.

    Args:
        entries: finished runs; at most one of each data set, method and seed.
        reference: the method that differences are taken to.

    Returns:
        One row for each pair of data set and method that has a run, data sets and then
        metrics in their order of appearance.

    Raises:
        ValueError: two runs are of the same data set, method and seed.
    """
    table: list[Row] = []
    for methods in _by_method(entries).values():
        metrics = list(dict.fromkeys(map(_metric, methods.values())))
        other = methods.get(reference, {})
        own = [
            _row(runs, other if name != reference and _alike(runs, other) else {})
            for name, runs in methods.items()
        ]
        # What has another metric stands apart.
        table += sorted(own, key=lambda row: (metrics.index(row.metric), -row.mean))
    return table


def _alike(runs: Mapping[int, Entry], others: Mapping[int, Entry]) -> bool:
    return bool(others) and _metric(runs) == _metric(others)


def _by_method(entries: Sequence[Entry]) -> dict[str, dict[str, dict[int, Entry]]]:
    """The runs of each data set, method and seed, in their order of appearance."""
    found: dict[str, dict[str, dict[int, Entry]]] = {}
    for entry in entries:
        runs = found.setdefault(entry.dataset, {}).setdefault(entry.method, {})
        if entry.seed in runs:
            raise ValueError(
                f"two runs of {entry.method} on {entry.dataset} have seed {entry.seed}"
            )
        runs[entry.seed] = entry
    return found


def _row(runs: Mapping[int, Entry], reference: Mapping[int, Entry]) -> Row:
    """A method on a data set; `reference` is what it is compared with, by seed."""
    seeds = tuple(sorted(runs))
    first, results = runs[seeds[0]], [runs[seed].results for seed in seeds]
    metric = first.results["metric"]
    others = {
        name: mean_and_std([result["test"][name] for result in results])
        for name in first.results["test"]
        if name != "loss"
    }
    mean, std = others.pop(metric)
    common = [seed for seed in seeds if seed in reference]
    difference, low, high = paired_difference(
        *([of[seed].score for seed in common] for of in (runs, reference))
    )
    validated, together = (
        [each[part][metric] for each in results if metric in (each.get(part) or ())]
        for part in ("validation", "ensemble")
    )
    validation, _ = mean_and_std(validated)
    # Not every run of a method need have an ensemble.
    ensemble, ensemble_std = mean_and_std(together * (len(together) == len(results)))
    exits = [each["test"][metric] for each in map(best_exit, results) if each]
    best, best_std = mean_and_std(exits * (len(exits) == len(results)))
    seconds = statistics.fmean(result["seconds"] for result in results)
    sizes = [r["temp_bytes"] for r in results if r.get("temp_bytes") is not None]
    by_stage = [
        [x["test"][metric] for x in result["stages"] if metric in x["test"]]
        for result in results
    ]
    stages = tuple(map(statistics.fmean, zip(*by_stage, strict=False)))
    numbers = [x["stage"] for x in first.results["stages"] if metric in x["test"]]
    return Row(
        first.dataset, first.method, seeds, metric, mean, std, validation, difference,
        low, high, seconds, max(sizes, default=None), stages,
        tuple(numbers[: len(stages)]), others, ensemble, ensemble_std, best, best_std,
    )  # fmt: skip


def best_exit(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The exit of a run that is best on the validation split, the first of equal ones.

    What it has on the test split says how good a network is that may be left early,
    and no test sample has chosen it.

    Args:
        results: results.json of a run.

    Returns:
        Its entry of the stages; None with one exit, or without a validation split.
    """
    metric = results["metric"]
    exits = [
        entry
        for entry in results["stages"]
        if metric in entry["test"] and metric in (entry.get("validation") or ())
    ]
    if len(exits) < 2:
        return None
    return max(exits, key=lambda entry: entry["validation"][metric])


def mean_and_std(values: Sequence[float]) -> tuple[Any, float | None]:
    """Mean and sample standard deviation; None for what there are too few for."""
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def paired_difference(
    values: Sequence[float], others: Sequence[float]
) -> tuple[float | None, float | None, float | None]:
    """Mean of values − others, pair by pair, and its 95 % interval by Student's t.

    Args:
        values: one for each seed.
        others: of the same seeds in the same order.

    Returns:
        Mean, lower and upper end; None where there are too few pairs to tell.
    """
    differences = [a - b for a, b in zip(values, others, strict=True)]
    mean, std = mean_and_std(differences)
    if std is None:
        return mean, None, None
    _, low, high = map(float, mean_interval(np.array(differences)))
    return mean, low, high


def told_apart(entries: Sequence[Entry]) -> dict[str, Contrasts]:
    """Which methods differ by more than chance, for each data set.

    Tukey's test of all pairs together at 5 %, with the seeds as blocks: the spread is
    what is left of the metric after each method's and each seed's own mean, one for all
    methods. Those with the set of seeds that most of them have take part; a set of one
    seed only where there is no larger one.

    Args:
        entries: finished runs.

    Returns:
        The contrasts by name of the data set, and of the metric where methods on it
        have several, as "DATA, METRIC".

    Raises:
        ValueError: two runs are of the same data set, method and seed.

    Source: Tukey, The Problem of Multiple Comparisons, 1953.
    """
    found: dict[str, Contrasts] = {}
    for dataset, methods in _by_method(entries).items():
        groups: dict[str, dict[str, dict[int, Entry]]] = {}
        for name, runs in methods.items():
            groups.setdefault(_metric(runs), {})[name] = runs
        for metric, group in groups.items():
            several = len(groups) > 1
            found[f"{dataset}, {metric}" if several else dataset] = _contrasts(group)
    return found


def _metric(runs: Mapping[int, Entry]) -> str:
    return next(iter(runs.values())).results["metric"]


def _contrasts(runs: Mapping[str, Mapping[int, Entry]]) -> Contrasts:
    sets = collections.Counter(tuple(sorted(of_method)) for of_method in runs.values())
    seeds = max(sets, key=lambda each: (len(each) > 1, sets[each], len(each)))
    methods = tuple(name for name, each in runs.items() if each.keys() >= set(seeds))
    nothing = Contrasts(methods, seeds, None, ())
    if min(len(methods), len(seeds)) < 2:
        return nothing
    values = np.array([[runs[name][seed].score for seed in seeds] for name in methods])
    means = values.mean(axis=1)
    rest = values - means[:, None] - values.mean(axis=0) + values.mean()
    freedom = (len(methods) - 1) * (len(seeds) - 1)
    spread = math.sqrt((rest**2).sum() / freedom)
    # A metric that counts pictures may by chance differ by the same in all seeds.
    if spread < _ROUNDING:
        return nothing
    range_of_means = float(stats.studentized_range.ppf(_LEVEL, len(methods), freedom))
    least = range_of_means * spread / math.sqrt(len(seeds))
    named = zip(methods, means, strict=True)
    pairs = tuple(
        (one, other)
        for (one, its_mean), (other, others_mean) in itertools.combinations(named, 2)
        if abs(its_mean - others_mean) >= least
    )
    return Contrasts(methods, seeds, least, pairs)


def methods_figure(
    table: Sequence[Row], entries: Sequence[Entry], *, width: float = style.WIDE
) -> Figure:
    """The metric of each method: a dot a seed, a bar at the mean; a panel a data set.

    Args:
        table: as `rows` gives it.
        entries: the same runs.
        width: inches.
    """
    figure, lines = _lines(table, entries, width=width, margin=0.4)
    for axes, place, scale, row in lines:
        points = [
            scale * entry.score
            for entry in entries
            if (entry.dataset, entry.method) == (row.dataset, row.method)
        ]
        axes.plot(points, [place] * len(points), "o", ms=4, color=style.BLUE, alpha=0.6)
        axes.plot([scale * row.mean], [place], "|", ms=13, mew=2, color=style.INK)
    return figure


def stages_figure(
    table: Sequence[Row], entries: Sequence[Entry], *, width: float = style.WIDE
) -> Figure:
    """The mean metric after each stage: a row a method, a dot a stage.

    What was trained as one block has one dot, several blocks those of their last
    stages; a panel a data set.

    Args:
        table: as `rows` gives it.
        entries: the same runs.
        width: inches.
    """
    several = {n for row in table if len(row.exits) > 1 for n in row.exits}
    stages = sorted(several)
    colors = dict(zip(stages, style.stage_colors(len(stages)), strict=True))
    figure, lines = _lines(table, entries, width=width, margin=0.7)
    for axes, place, scale, row in lines:
        values = [scale * value for value in row.stages]
        places = [place] * len(values)
        axes.plot(values, places, lw=1, color=style.RULE, zorder=1)
        if len(values) == 1:
            axes.plot(values, places, "D", ms=5, color=style.INK)
        else:
            own = [colors[stage] for stage in row.exits]
            axes.scatter(values, places, s=25, color=own, zorder=2)
    mark = functools.partial(Line2D, [], [], ls="", ms=5)
    marks = [
        mark(marker="o", color=color, label=f"stage {stage}")
        for stage, color in colors.items()
    ]
    if any(len(row.stages) == 1 for row in table):
        marks.append(mark(marker="D", color=style.INK, label="one block"))
    most = max(1, int(1.1 * width))
    style.legend(figure, marks, columns=most, place="outside lower center")
    return figure


def own_measure(entries: Sequence[Entry], row: Row) -> Measure:
    """What the metric of a row is, by the runs of its data set.

    Args:
        entries: of all runs.
        row: of the table.
    """
    kind = row.dataset, row.metric
    results = next(
        x.results for x in entries if (x.dataset, x.results["metric"]) == kind
    )
    return measure_of(measures_of(results), row.metric)


def _lines(
    table: Sequence[Row], entries: Sequence[Entry], *, width: float, margin: float
) -> tuple[Figure, list[tuple[Axes, int, float, Row]]]:
    """A figure with a panel a data set and metric, and a labelled line a method in it.

    The first method is on top.

    Args:
        table: as `rows` gives it.
        entries: the same runs.
        width: inches.
        margin: inches of height beside the panels.

    Returns:
        The figure, and for each row of the table its axes, its place there and what
        its metric is multiplied with.
    """
    groups = itertools.groupby(table, key=lambda row: (row.dataset, row.metric))
    rows_of = {group: [*own][::-1] for group, own in groups}
    heights = [0.5 + 0.27 * len(here) for here in rows_of.values()]
    figure = Figure(figsize=(width, margin + sum(heights)), layout="constrained")
    panels = figure.subplots(len(rows_of), 1, squeeze=False, height_ratios=heights)
    lines: list[tuple[Axes, int, float, Row]] = []
    for axes, ((dataset, _), here) in zip(panels.flat, rows_of.items(), strict=True):
        measure = own_measure(entries, here[0])
        axes.set_yticks(range(len(here)), [row.method for row in here])
        axes.set_ylim(-0.6, len(here) - 0.4)
        style.heading(axes, dataset)
        style.finish(axes, f"Test {measure.axis}", "")
        axes.grid(axis="x", color=style.GRID, lw=0.7)
        lines += [(axes, n, measure.scale, row) for n, row in enumerate(here)]
    return figure, lines
