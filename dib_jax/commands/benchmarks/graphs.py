"""L-GCN against end to end on Facebook's pages: time to an accuracy, and memory."""

import pathlib
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from dib_jax.commands.assemble import assemble
from dib_jax.commands.benchmarks import table
from dib_jax.commands.command_line import override
from dib_jax.commands.config import ConfigDict, complete
from dib_jax.commands.recipes import constant_adam
from dib_jax.models.graph import sums_over_segments
from dib_jax.training import evaluation
from dib_jax.training.compilation import compile_epoch
from dib_jax.training.experiment import Experiment
from dib_jax.training.position import begin
from dib_jax.training.storage import as_stored

_END_TO_END = {"algorithm.name": "graph_end_to_end", "epochs": "150"}
# On Facebook's pages; chosen on the validation split, four settings of each.
_PAGES: dict[str, dict[str, str]] = {
    "lgcn": {"algorithm.name": "lgcn", "epochs": "(2,5)"},
    "graph_end_to_end": _END_TO_END,
}
_SEGMENTS, _TIMED = "graph_end_to_end, segments", 12
_TRIED = {
    "lgcn": (
        {"optimizer.learning_rate": "0.01"},
        {"optimizer.learning_rate": "0.03"},
        {"optimizer.learning_rate": "0.03", "optimizer.weight_decay": "0.1"},
        {"optimizer.learning_rate": "0.03", "algorithm.rule": "symmetric"},
    ),
    "graph_end_to_end": (
        {"optimizer.learning_rate": "0.01"},
        {"optimizer.learning_rate": "0.03"},
        {"optimizer.learning_rate": "0.01", "algorithm.dropout": "0.5"},
        {"optimizer.learning_rate": "0.03", "algorithm.dropout": "0.5"},
    ),
}
NOTE = (
    "Seconds are of training alone: joining neighbours for each layer and all steps, "
    "without compilation and validation. Temporaries are the compiler's figure for a "
    "step; `rows MiB` are the rows that a step of L-GCN gets. Time to equal accuracy: "
    "to the first epoch whose validation accuracy is at least the one that L-GCN has "
    "at its end. With segments the steps are the same, at the pace of 12 of them."
)


class Course(NamedTuple):
    """A training, epoch by epoch.

    Attributes:
        seconds: of training so far, after each epoch.
        stepping: seconds of steps alone.
        accuracies: on the validation split.
        temp_bytes: of a step, the largest.
        rows_bytes: of the samples of a step, the largest.
        test: accuracy on the test split after the last epoch.
        network: what was trained.
    """

    seconds: list[float]
    stepping: float
    accuracies: list[float]
    temp_bytes: int
    rows_bytes: int
    test: float
    network: Any = None


def measure(data_dir: str = "", seeds: int = 3) -> Iterator[list[table.Row]]:
    """L-GCN, and end to end with fast products and with the usual ones.

    Args:
        data_dir: folder of data sets that holds facebook_pages.
        seeds: how many.
    """
    base = ConfigDict(
        {
            "dataset": {"name": "facebook_pages", "data_dir": data_dir},
            "model": {"name": "gcn", "widths": (64, 64)},
            "objective": {"name": "cross_entropy"},
            "optimizer": constant_adam(0.01),
            "batch_size": 256,
        }
    )
    chosen: dict[str, dict[str, str]] = {}
    for name, settings in _TRIED.items():
        tried = [
            (max(course(experiment_of(base, {**_PAGES[name], **each})).accuracies), -i)
            for i, each in enumerate(settings)
        ]
        chosen[name] = settings[-max(tried)[1]]
    courses: dict[str, list[Course]] = {name: [] for name in _PAGES}
    for seed in range(seeds):
        for name, fields in _PAGES.items():
            given = {**fields, **chosen[name], "seed": str(seed)}
            courses[name].append(course(experiment_of(base, given)))
        # The usual way to join neighbours: the same steps at another pace.
        with sums_over_segments():
            given = {**given, "epochs": f"{_TIMED}"}
            slow = course(experiment_of(base, given))
        courses.setdefault(_SEGMENTS, []).append(_paced(courses[name][-1], slow))
    targets = [one.accuracies[-1] for one in courses["lgcn"]]
    chosen[_SEGMENTS] = chosen["graph_end_to_end"]
    yield [_page_row(name, courses, targets, chosen[name]) for name in courses]


def _paced(one: Course, slow: Course) -> Course:
    """A training at the pace of another one."""
    # The first step may be slower than the others.
    pace = statistics.median(np.diff([0.0, *slow.seconds]))
    seconds = [pace * (number + 1) for number in range(len(one.seconds))]
    return one._replace(seconds=seconds, temp_bytes=slow.temp_bytes)


def _page_row(
    name: str,
    courses: dict[str, list[Course]],
    targets: list[float],
    chosen: dict[str, str],
) -> table.Row:
    times = {
        key: [_time_to(one, t) for one, t in zip(each, targets, strict=True)]
        for key, each in courses.items()
    }
    ratios = [a / b for a, b in zip(times[name], times["lgcn"], strict=True)]
    best = [100 * max(one.accuracies) for one in courses[name]]
    test = [100 * one.test for one in courses[name]]
    largest = max(one.temp_bytes for one in courses[name]) / 2**20
    base = max(one.temp_bytes for one in courses["lgcn"]) / 2**20
    return {
        "graph": "facebook_pages",
        "algorithm": name,
        "chosen": " ".join(f"{k.partition('.')[2]}={v}" for k, v in chosen.items()),
        "seeds": len(best),
        "best validation %": statistics.mean(best),
        "last test %": statistics.mean(test),
        "s to equal": statistics.mean(times[name]),
        "× s": statistics.mean(ratios),
        "temp MiB": largest,
        "× temp": largest / base,
        "rows MiB": max(one.rows_bytes for one in courses[name]) / 2**20,
    }


def _time_to(one: Course, accuracy: float) -> float:
    """Seconds to an accuracy; NaN where it is never reached."""
    pairs = zip(one.seconds, one.accuracies, strict=True)
    return next((seconds for seconds, found in pairs if found >= accuracy), np.nan)


def experiment_of(base: ConfigDict, fields: dict[str, str]) -> Experiment:
    """An experiment of a config.

    Args:
        base: some fields of it, or all.
        fields: text of those that differ, by dotted name.
    """
    return assemble(complete(override(complete(base), fields)))


def course(experiment: Experiment, *, epochs: int = 0) -> Course:
    """Train an experiment without files, with a clock.

    Args:
        experiment: the experiment; its phases have no `given`.
        epochs: of each phase; 0 for all.
    """
    network, clock, stepping = experiment.algorithm.network, 0.0, 0.0
    seconds, accuracies, temporaries, rows = [], [], [0], [0]
    splits = [
        evaluation.place(experiment, split)
        for split in (experiment.dataset.train, experiment.dataset.validation)
    ]
    for index, phase in enumerate(experiment.phases):
        start = time.monotonic()
        train, held = splits
        if phase.enter:
            train = jax.block_until_ready(phase.enter(network, train))
        clock += time.monotonic() - start
        if phase.enter:
            held = phase.enter(network, held)
        stored, checked = (
            as_stored(data.samples, None, data.common) for data in (train, held)
        )
        state = begin(experiment, phase, network).state
        program = compile_epoch(experiment, index, state, network, stored)
        temporaries.append(program.figures["temp_bytes"] or 0)
        size = min(experiment.batch_size, stored.length)
        rows.append(size * sum(x[0].nbytes for x in stored.leaves.values()))
        predict = evaluation.predictor(
            experiment, evaluation.phase_outputs(experiment, index)
        )
        for epoch in range(min(phase.epochs, epochs or phase.epochs)):
            start = time.monotonic()
            state, _ = program.run(state, network, stored, epoch * program.steps)
            jax.block_until_ready(state)
            passed = time.monotonic() - start
            clock, stepping = clock + passed, stepping + passed
            now = phase.read(state, network)
            found = evaluation.validate(experiment, predict, now, checked)
            seconds.append(clock)
            # A phase without outputs has no accuracy.
            accuracies.append(found[-1]["accuracy"] if found else float("nan"))
        network = phase.read(state, network)
    test = evaluation.evaluate(experiment, network)[0][-1]["accuracy"]
    return Course(
        seconds, stepping, accuracies, max(temporaries), max(rows), test, network
    )


_BARS = {"s to equal": "seconds to equal accuracy", "temp MiB": "temporaries, MiB"}


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Bars of the algorithms.

    Args:
        path: of the picture.
        rows: of `measure`.
    """
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    panels = figure.subplots(1, 2)
    names = [row["algorithm"].replace("graph_", "").replace("_", " ") for row in rows]
    for axes, (column, label) in zip(panels, _BARS.items(), strict=True):
        bars = axes.barh(names, [row[column] for row in rows])
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
        axes.set_xlabel(label)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].set_yticklabels([])
    figure.savefig(path, dpi=110)
