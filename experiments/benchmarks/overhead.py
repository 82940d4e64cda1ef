"""What a step costs besides the network: the information term, and the engine."""

import itertools
import json
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from experiments.benchmarks.timing import compared, paired
from experiments.benchmarks.training import (
    Program,
    compile_step,
    network,
    run_steps,
    sizes_of,
    steps_of,
)

# Ways to measure the information, as options of the objective; the first is its own:
# at most 64 samples, at every 4th step.
_TERMS: dict[str, dict[str, Any]] = {
    "as it is by default": {},
    "whole batch, every step": {"samples": 0, "every": 1},
    "half of the batch": {"samples": 64, "every": 1},
    "every 4th step": {"samples": 0, "every": 4},
    "every 8th step": {"samples": 0, "every": 8},
    "α = 2": {"alpha": 2.0, "samples": 0, "every": 1},
    "α = 2, every 4th step": {"alpha": 2.0, "samples": 0, "every": 4},
}
_WITHOUT = "without the term"
# A multiple of all m of every m-th step, so that each run has its share of them.
_STEPS = 8
_EMPTY = {"samples": 50_000, "epochs": 6}


def overhead(
    networks: str = "vgg11", batch_sizes: str = "128", seconds: str = "2"
) -> Iterator[list[dict[str, Any]]]:
    """Steps of all stages in turn with the information term and without, and dispatch.

    Args:
        networks: their names, with commas.
        batch_sizes: samples of a step, with commas.
        seconds: for each stage's comparison, but three rounds in any case.

    Raises:
        ValueError: an unknown network, a size that is none, seconds that are none.
    """
    names, sizes = networks.split(","), sizes_of(batch_sizes)
    for name in names:
        network(name)
    if not seconds.replace(".", "", 1).isdecimal():
        raise ValueError(f"--seconds: got {seconds!r}; must be a number from 0")
    return itertools.chain.from_iterable(
        _both(name, size, float(seconds)) for name in names for size in sizes
    )


def _both(name: str, batch_size: int, seconds: float) -> Iterator[list[dict[str, Any]]]:
    quickest = float("inf")
    totals: dict[str, float] = {}
    fixed = {"network": name, "batch": batch_size}
    for rows in _terms(name, batch_size, seconds):
        for row in rows:
            totals[row["what"]] = totals.get(row["what"], 0.0) + row["ms"]
        quickest = min(quickest, rows[0]["ms"])
        yield [{**fixed, **row} for row in rows]
    every = [
        {
            "stage": "all",
            "what": what,
            "ms": ms,
            f"× {_WITHOUT}": ms / totals[_WITHOUT],
            "rounds": 1,
        }
        for what, ms in totals.items()
    ]
    yield [{**fixed, **row} for row in every]
    per_step = _empty_step(batch_size)
    yield [
        {
            **fixed,
            "stage": "quickest",
            "what": "dispatch: a step of a run with an empty network",
            "ms": per_step,
            f"× {_WITHOUT}": per_step / quickest,
            "rounds": _EMPTY["epochs"] - 1,
        }
    ]


def _terms(
    name: str, batch_size: int, seconds: float
) -> Iterator[list[dict[str, Any]]]:
    """For each stage, milliseconds of a step on what the stages before it put out."""
    from dib_jax.training.build import find

    objectives = {_WITHOUT: find("objectives", "cross_entropy")()}
    objectives |= {
        what: find("objectives", "dib")(**own) for what, own in _TERMS.items()
    }
    programs = {
        what: steps_of("sequential", name, batch_size, objective=objective)
        for what, objective in objectives.items()
    }
    seen: dict[str, Any] = {}
    for stage in range(len(programs[_WITHOUT])):
        runs: dict[str, Callable[[], None]] = {}
        for what, steps in programs.items():
            program: Program = steps[stage]
            compiled, _ = compile_step(program, seen, steps=_STEPS)
            runs[what] = run_steps([compiled], [program])
        rows = compared(paired(runs, seconds=seconds), _WITHOUT, {"stage": stage})
        yield [
            {
                "stage": row["stage"],
                "what": row["what"],
                "ms": row["ms"] / _STEPS,
                f"× {_WITHOUT}": row[f"× {_WITHOUT}"],
                "rounds": row["rounds"],
            }
            for row in rows
        ]


def _empty_step(batch_size: int) -> float:
    """Milliseconds a step in a run that computes next to nothing.

    A real run with all that belongs to one: the order of the samples, taking them, the
    metrics and writing them, on pictures of one pixel with a network of one unit. What
    little it computes is counted as dispatch.
    """
    import ml_collections
    import numpy as np

    from dib_jax.training import train
    from dib_jax.training.config import complete

    count = _EMPTY["samples"]
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder, "data", "pixels")
        home.mkdir(parents=True)
        labels = np.arange(count, dtype=np.int32) % 2
        images = (255 * labels).astype(np.uint8).reshape(-1, 1, 1, 1)
        for split, rows in (("train", count), ("test", 2)):
            np.savez(home / f"{split}.npz", images=images[:rows], labels=labels[:rows])
        config = ml_collections.ConfigDict(
            {
                "dataset": {
                    "name": "pixels",
                    "data_dir": str(home.parent),
                    "val_fraction": 0.0,
                },
                "model": {"name": "mlp", "widths": (1,), "batch_norm": False},
                "head": {"name": "linear"},
                "task": {"name": "classification"},
                "objective": {"name": "cross_entropy"},
                "schedule": {"name": "sequential"},
                "optimizer": {
                    "name": "sgd",
                    "learning_rate": 0.01,
                    "schedule": "constant",
                },
                "epochs": _EMPTY["epochs"],
                "batch_size": batch_size,
            }
        )
        workdir = pathlib.Path(folder, "run")
        train.train(complete(config), workdir, config_name="empty")
        text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    # The first epoch is left out: something is always done for the first time in it.
    return 1e3 * statistics.median(
        line["seconds"] / (count // batch_size) for line in lines[1:]
    )


def plot_terms(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """How many times a step without the term each way to measure it takes, by stage.

    Args:
        path: of the picture.
        rows: as `overhead` gives them.
    """
    from matplotlib.figure import Figure

    runs = list(dict.fromkeys((row["network"], row["batch"]) for row in rows))
    figure = Figure(figsize=(4 * len(runs) + 2.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, run in zip(panels, runs, strict=True):
        own = [row for row in rows if (row["network"], row["batch"]) == run]
        for what in dict.fromkeys(row["what"] for row in own):
            points = [
                (row["stage"], row[f"× {_WITHOUT}"])
                for row in own
                if row["what"] == what and isinstance(row["stage"], int)
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", ms=3, label=what)
        axes.set(title=f"{run[0]}, batch {run[1]}", xlabel="stage")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"times a step {_WITHOUT}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=90)
