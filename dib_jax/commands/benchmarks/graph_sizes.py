"""Graphs of growing size, by layers and end to end: time, temporaries, memory."""

import pathlib
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.graphs import course, experiment_of
from dib_jax.commands.config import ConfigDict
from dib_jax.commands.recipes import constant_adam
from dib_jax.tasks import style

# Of end to end: epochs, how many of them are timed, nodes up to which all are run.
_EPOCHS, _STEPS, _TRAINED = 200, 5, 10_000
_SIZES = (10_000, 100_000, 1_000_000)
_DEGREE, _FEATURES, _CLASSES = 10, 64, 10
_PART = 2**24  # bytes of features that are drawn at a time
_CORNERS = (0.57, 0.19, 0.19, 0.05)  # of R-MAT
NOTE = (
    "Seconds are of training alone: joining neighbours for each layer and all steps, "
    "without compilation and validation. Temporaries are the compiler's figure for a "
    "step. End to end is timed for 5 steps where there are more than 10,000 nodes, and "
    "its seconds are those of 200 steps at that pace. `process MiB` is the most that "
    "the process has had so far, pages of the memory map included."
)


def measure(
    nodes: tuple[int, ...] = _SIZES, features: int = _FEATURES
) -> Iterator[list[table.Row]]:
    """Rows of generated graphs whose features are read through a memory map.

    Args:
        nodes: their sizes.
        features: of each node.
    """
    for count in nodes:
        with tempfile.TemporaryDirectory() as folder:
            seconds = time.monotonic()
            generate(pathlib.Path(folder, "generated"), count, features)
            seconds = time.monotonic() - seconds
            for row in _sizes(folder, count, seconds):
                yield [row]


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


def _sizes(folder: str, nodes: int, seconds: float) -> Iterator[table.Row]:
    """Rows of a generated graph: L-GCN in full, and end to end for some steps."""
    base = ConfigDict(
        {
            "dataset": {"name": "generated", "data_dir": folder},
            "model": {"name": "gcn", "widths": (64, 64)},
            "objective": {"name": "cross_entropy"},
            "optimizer": constant_adam(0.01),
            "batch_size": 1024,
        }
    )
    fixed: dict[str, Any] = {
        "nodes": nodes,
        "edges": _DEGREE * nodes,
        "s to write": seconds,
    }
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


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Time and temporaries of a step over the size.

    Args:
        path: of the picture.
        rows: of `measure`.
    """
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    labels = {"ms a step": "ms a step", "temp MiB": "temporaries of a step, MiB"}
    panels = figure.subplots(1, 2)
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        for name in dict.fromkeys(row["algorithm"] for row in rows):
            some = [row for row in rows if row["algorithm"] == name]
            numbers = [row["nodes"] for row in some]
            values = [row[column] for row in some]
            axes.loglog(numbers, values, "o-", label=name.replace("_", " "))
        style.finish(axes, "Nodes", label)
    style.legend(figure, style.lines_of(panels[0]))
    figure.savefig(path, dpi=110)
