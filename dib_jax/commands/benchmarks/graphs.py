"""Layer-wise training on graphs against end to end: time to an accuracy, memory, size.

With a folder of data sets Facebook's pages: how long each way takes to the accuracy
that L-GCN ends with. Without, generated graphs of growing size: time and temporaries of
a step, and memory of the whole training.
"""

import pathlib
import resource
import statistics
import tempfile
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
from dib_jax.models.graph import sums_over_segments
from dib_jax.training import evaluation
from dib_jax.training.compilation import compile_epoch
from dib_jax.training.experiment import Experiment
from dib_jax.training.position import begin
from dib_jax.training.storage import as_stored

_ADAM = {
    "name": "adamw",
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup_epochs": 0.0,
}
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
_EPOCHS, _TRAINED = 200, 10_000  # of end to end, and the nodes up to which it is run
_SIZES = (10_000, 100_000, 1_000_000)
_DEGREE, _FEATURES, _CLASSES = 10, 64, 10
_PART = 2**24  # bytes of features that are drawn at a time
_CORNERS = (0.57, 0.19, 0.19, 0.05)  # of R-MAT
NOTE = (
    "Seconds are of training alone: joining neighbours for each layer and all steps, "
    "without compilation and validation. Temporaries are the compiler's figure for a "
    "step; `rows MiB` are the rows that a step of L-GCN gets. Time to equal accuracy: "
    "to the first epoch whose validation accuracy is at least the one that L-GCN has "
    "at its end. Of generated graphs end to end is timed for 5 steps where there are "
    "more than 10,000 nodes, and its seconds are those of 200 steps at that pace; "
    "`process MiB` is the highest that the process has had so far."
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


def measure(
    data_dir: str = "",
    seeds: int = 3,
    nodes: tuple[int, ...] = _SIZES,
    features: int = _FEATURES,
) -> Iterator[list[table.Row]]:
    """Rows on Facebook's pages, or on generated graphs where there is no folder.

    Args:
        data_dir: folder of data sets that holds facebook_pages.
        seeds: on Facebook's pages.
        nodes: sizes of generated graphs.
        features: of a node there.
    """
    if data_dir:
        yield from _pages(data_dir, seeds)
        return
    for count in nodes:
        with tempfile.TemporaryDirectory() as folder:
            seconds = time.monotonic()
            generate(pathlib.Path(folder, "generated"), count, features)
            seconds = time.monotonic() - seconds
            for row in _sizes(folder, count, seconds):
                yield [row]


def _pages(data_dir: str, seeds: int) -> Iterator[list[table.Row]]:
    base = ConfigDict(
        {
            "dataset": {"name": "facebook_pages", "data_dir": data_dir},
            "model": {"name": "gcn", "widths": (64, 64)},
            "objective": {"name": "cross_entropy"},
            "optimizer": _ADAM,
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
            accuracies.append(found[-1]["accuracy"])
        network = phase.read(state, network)
    test = evaluation.evaluate(experiment, network)[0][-1]["accuracy"]
    return Course(
        seconds, stepping, accuracies, max(temporaries), max(rows), test, network
    )


# Generated graphs ---------------------------------------------------------------------


def generate(folder: pathlib.Path, nodes: int, features: int = _FEATURES) -> None:
    """A graph by R-MAT with ten times as many edges as nodes, as a data set.

    A node's class is its place, so neighbours often share it; its features are noise
    around the mean of its class.

    Args:
        folder: is made, with graph.npz and features.npy.
        nodes: how many.
        features: of each.

    Source: Chakrabarti, Zhan & Faloutsos, R-MAT, 2004.
    """
    draw = np.random.default_rng(0)
    wanted, codes = _DEGREE * nodes, np.zeros(0, np.int64)
    levels = int(np.ceil(np.log2(nodes)))
    while len(codes) < wanted:
        ends = np.zeros((2, wanted), np.int64)
        for _ in range(levels):
            corner = draw.choice(4, wanted, p=_CORNERS).astype(np.int8)
            ends *= 2
            ends[0] += corner // 2
            ends[1] += corner % 2
        low, high = ends.min(axis=0), ends.max(axis=0)
        new = (low * nodes + high)[(high < nodes) & (low < high)]
        codes = np.union1d(codes, new)
        del ends, low, high, new
    codes = draw.permutation(codes)[:wanted]
    labels = np.arange(nodes) * _CLASSES // nodes
    order = draw.permutation(nodes)
    first, second = int(0.6 * nodes), int(0.8 * nodes)
    folder.mkdir(parents=True)
    np.savez(
        folder / "graph.npz",
        edges=np.stack([codes // nodes, codes % nodes], axis=1).astype(np.int32),
        labels=labels,
        train=order[:first],
        val=order[first:second],
        test=order[second:],
    )
    means = draw.normal(size=(_CLASSES, features)).astype(np.float32)
    file = np.lib.format.open_memmap(
        folder / "features.npy", "w+", np.float32, (nodes, features)
    )
    step = max(1, _PART // (4 * features))
    for start in range(0, nodes, step):
        some = labels[start : start + step]
        noise = draw.standard_normal((len(some), features), np.float32)
        file[start : start + step] = means[some] + 8 * noise
    file.flush()


_STEPS = 5  # of end to end that are timed; the whole training follows from them


def _sizes(folder: str, nodes: int, seconds: float) -> Iterator[table.Row]:
    """Rows of a generated graph: L-GCN in full, and end to end for some steps."""
    base = ConfigDict(
        {
            "dataset": {"name": "generated", "data_dir": folder},
            "model": {"name": "gcn", "widths": (64, 64)},
            "objective": {"name": "cross_entropy"},
            "optimizer": _ADAM,
            "batch_size": 1024,
        }
    )
    fixed = {"nodes": nodes, "edges": _DEGREE * nodes, "s to write": seconds}
    size = pathlib.Path(folder, "generated", "features.npy").stat().st_size
    fixed["features MiB"] = size / 2**20
    start = time.monotonic()
    found = course(experiment_of(base, {"algorithm.name": "lgcn", "epochs": "3"}))
    steps = len(found.seconds) * (int(0.6 * nodes) // 1024)
    yield {
        "graph": "generated",
        "algorithm": "lgcn",
        **fixed,
        "ms a step": 1e3 * found.stepping / steps,
        "temp MiB": found.temp_bytes / 2**20,
        "s of training": found.seconds[-1],
        "s in all": time.monotonic() - start,
        "test %": 100 * found.test,
        "process MiB": _peak(),
    }
    start = time.monotonic()
    fields = {"algorithm.name": "graph_end_to_end", "epochs": f"{_EPOCHS}"}
    found = course(
        experiment_of(base, fields), epochs=_STEPS if nodes > _TRAINED else 0
    )
    each = statistics.median(np.diff(found.seconds))
    yield {
        "graph": "generated",
        "algorithm": "graph_end_to_end",
        **fixed,
        "ms a step": 1e3 * each,
        "temp MiB": found.temp_bytes / 2**20,
        # Of so many steps, from those that were timed.
        "s of training": _EPOCHS * each,
        "s in all": time.monotonic() - start,
        "test %": 100 * found.test if nodes <= _TRAINED else None,
        "process MiB": _peak(),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


_BARS = {"s to equal": "seconds to equal accuracy", "temp MiB": "temporaries, MiB"}


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Bars of the algorithms on Facebook's pages; lines over the size where it grows.

    Args:
        path: of the picture.
        rows: of `measure`.
    """
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    panels = figure.subplots(1, 2)
    if "nodes" in rows[0]:
        for axes, column in zip(panels, ("ms a step", "temp MiB"), strict=True):
            for name in dict.fromkeys(row["algorithm"] for row in rows):
                some = [row for row in rows if row["algorithm"] == name]
                numbers = [row["nodes"] for row in some]
                axes.loglog(numbers, [row[column] for row in some], "o-", label=name)
            axes.set_xlabel("nodes")
            axes.set_ylabel(column.replace("temp MiB", "temporaries of a step, MiB"))
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].legend(frameon=False, fontsize=8)
    else:
        names = [
            row["algorithm"].replace("graph_", "").replace("_", " ") for row in rows
        ]
        for axes, (column, label) in zip(panels, _BARS.items(), strict=True):
            bars = axes.barh(names, [row[column] for row in rows])
            axes.bar_label(bars, fmt="%.2g", padding=2, fontsize=8)
            axes.set_xlabel(label)
            axes.invert_yaxis()
            axes.spines[["top", "right"]].set_visible(False)
        panels[1].set_yticklabels([])
    figure.savefig(path, dpi=110)
