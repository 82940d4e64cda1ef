"""Graph networks of growing depth on Cora: accuracy, and how alike nodes become."""

import pathlib
import statistics
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dib_jax.analysis import probes
from dib_jax.analysis.report.nodes import mean_cosine
from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.graphs import course, experiment_of
from dib_jax.commands.command_line import load_config
from dib_jax.commands.config import ConfigDict
from dib_jax.tasks import style
from dib_jax.training.experiment import Experiment

_SAMPLES = 256  # test nodes whose information is measured
_DIB = {
    "objective.name": "dib",
    "objective.every": "1",
    "objective.compress": "entropy",
}
# Name → config, and the fields that differ; epochs of a phase.
_WAYS: dict[str, tuple[str, dict[str, str], int]] = {
    "end to end": (
        "cora_lgcn",
        {"algorithm.name": "graph_end_to_end", "optimizer.learning_rate": "0.01"},
        200,
    ),
    "lgcn": ("cora_lgcn", {}, 80),
    "lgcn, symmetric": ("cora_lgcn", {"algorithm.rule": "symmetric"}, 80),
    "keep entropy": (
        "cora_lgcn",
        {**_DIB, "objective.beta": "-0.05", "algorithm.rule": "symmetric"},
        80,
    ),
    "lrgi": ("cora_lrgi", {}, 0),
}
NOTE = (
    "Cora with 1,208 labels, but LRGI with the 140 of the public split. Accuracies "
    "are those after the last epoch on the test split, mean and standard deviation "
    "over the seeds. cosine: the mean between two test nodes after the last layer. "
    f"H(T), I(X;T), I(T;Y): of the last layer for {_SAMPLES} test nodes, at most 8 "
    "bits."
)


def measure(
    data_dir: str = "", seeds: int = 3, depths: tuple[int, ...] = (2, 4, 8, 16)
) -> Iterator[list[table.Row]]:
    """A row for each way to train and each depth.

    Args:
        data_dir: folder of data sets that holds cora and cora_full.
        seeds: how many.
        depths: numbers of layers.
    """
    for depth in depths:
        for name in _WAYS:
            yield [_row(name, depth, data_dir, seeds)]


def _row(name: str, depth: int, data_dir: str, seeds: int) -> table.Row:
    config, fields, epochs = _WAYS[name]
    base = load_config(f"configs/{config}.py").config
    width = base.model.widths[0]
    given = {
        **fields,
        "dataset.data_dir": data_dir,
        "model.widths": str((width,) * depth),
        "epochs": str(_epochs(base, name, depth, epochs)),
    }
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        experiment = experiment_of(base, {**given, "seed": str(seed)})
        one = course(experiment)
        values = {"test %": 100 * one.test, **_last_layer(experiment, one.network)}
        for key, value in values.items():
            found.setdefault(key, []).append(value)
    spread = statistics.stdev(found["test %"]) if seeds > 1 else 0.0
    means = {key: statistics.mean(values) for key, values in found.items()}
    first = {"algorithm": name, "layers": depth, "seeds": seeds}
    return {**first, "test %": means.pop("test %"), "±": spread, **means}


def _epochs(base: ConfigDict, name: str, depth: int, epochs: int) -> Any:
    if epochs:
        return epochs
    *layers, last = base.epochs
    later = (layers[-1],) * (depth - len(layers))
    return (*layers[:depth], *later, last)


def _last_layer(experiment: Experiment, network: Any) -> dict[str, float]:
    """What the last layer's features of test nodes are like."""
    dataset, algorithm = experiment.dataset, experiment.algorithm
    samples = {key: jnp.asarray(x) for key, x in dataset.test.items()}
    common = jax.tree.map(jnp.asarray, dict(experiment.common))
    batch = experiment.prepare_inputs(samples, common)
    last = jax.jit(algorithm.features)(network, batch)[-1]
    labels = dataset.test["labels"][:_SAMPLES]
    inputs = common["graph"].rows(samples["nodes"][:_SAMPLES])
    measured = probes.probe(
        lambda _: [last[:_SAMPLES]], {"images": inputs, "labels": labels}
    )
    return {
        "cosine": mean_cosine(np.asarray(last)),
        "H(T)": float(measured["entropy"][0]),
        "I(X;T)": float(measured["input_stage"][0]),
        "I(T;Y)": float(measured["stage_target"][0]),
    }


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Accuracy, likeness and entropy over the depth, a line for each way.

    Args:
        path: of the picture.
        rows: of `measure`.
    """
    columns = {
        "test %": "Test accuracy (%)",
        "cosine": "Mean cosine of nodes",
        "H(T)": "Entropy H(T) (bits)",
    }
    figure = Figure(figsize=(8.3, 3.1), layout="constrained")
    panels = figure.subplots(1, len(columns))
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for name, color in zip(names, style.stage_colors(len(names)), strict=True):
            some = [row for row in rows if row["algorithm"] == name]
            axes.plot(
                [row["layers"] for row in some], [row[column] for row in some],
                "o-", ms=4, lw=1.4, color=color, label=name,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        style.finish(axes, "Layers", label)
        ticks = sorted({row["layers"] for row in rows})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
    style.legend(figure, style.lines_of(panels[0]), columns=6)
    figure.savefig(path, dpi=110)
