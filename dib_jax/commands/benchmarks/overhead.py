"""What a step costs besides the network: the information term, and the engine."""

import functools
import pathlib
import statistics
import tempfile
from collections.abc import Iterator
from typing import Any

from dib_jax.analysis.runs import read_metrics
from dib_jax.commands.assemble import assemble
from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.steps import (
    compile_step,
    each_size,
    run_steps,
    write_pictures,
)
from dib_jax.commands.benchmarks.timing import compared, paired
from dib_jax.commands.benchmarks.training import algorithm_steps
from dib_jax.commands.config import complete
from dib_jax.training.train import train

NOTE = (
    f"{table.TIMES} ms of one step; × over all stages: ratio of the sums; dispatch: "
    "against the quickest stage's step."
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
_RATIO = f"× {_WITHOUT}"
# How many times a step without the term each way to measure it takes, by stage.
plot = functools.partial(
    table.plot_lines,
    panel=("network", "batch"),
    line="what",
    across="stage",
    column=_RATIO,
    label=f"times a step {_WITHOUT}",
)
# A multiple of all m of every m-th step, so that each run has its share of them.
_STEPS = 8
_EMPTY = {"samples": 50_000, "epochs": 6}


def measure(
    networks: tuple[str, ...] = ("vgg11",),
    batch_sizes: tuple[int, ...] = (128,),
    seconds: float = 2.0,
) -> Iterator[list[table.Row]]:
    """Steps of all stages in turn with the information term and without, and dispatch.

    Args:
        networks: their names.
        batch_sizes: samples of a step.
        seconds: for each stage's comparison, but three rounds in any case.

    Raises:
        ValueError: an unknown network.
    """
    for network, size in each_size(networks, batch_sizes):
        fixed = {"network": network, "batch": size}
        for rows in _both(network, size, seconds):
            yield [{**fixed, **row} for row in rows]


def _both(network: str, batch_size: int, seconds: float) -> Iterator[list[table.Row]]:
    each: list[table.Row] = []
    for rows in _terms(network, batch_size, seconds):
        each += rows
        yield rows
    totals: dict[str, float] = {}
    for row in each:
        totals[row["what"]] = totals.get(row["what"], 0.0) + row["ms"]
    yield [
        {"stage": "all", "what": what, "ms": ms, _RATIO: ms / totals[_WITHOUT]}
        for what, ms in totals.items()
    ]
    quickest = min(row["ms"] for row in each if row["what"] == _WITHOUT)
    what = "dispatch: a step of a run with an empty network"
    ms = _empty_step(batch_size)
    row = {"stage": "quickest", "what": what, "ms": ms, "rounds": _EMPTY["epochs"] - 1}
    yield [{**row, _RATIO: ms / quickest}]


def _terms(network: str, batch_size: int, seconds: float) -> Iterator[list[table.Row]]:
    """For each stage, milliseconds of a step on what the stages before it put out."""
    objectives = {_WITHOUT: {"name": "cross_entropy"}}
    objectives |= {what: {"name": "dib", **term} for what, term in _TERMS.items()}
    steps = {}
    for what, options in objectives.items():
        fields = {f"objective.{name}": str(value) for name, value in options.items()}
        steps[what] = algorithm_steps("sequential", network, batch_size, **fields)
    seen: dict[str, Any] = {}
    for stage in range(len(steps[_WITHOUT])):
        runs = {}
        for what, each in steps.items():
            program, _ = compile_step(each[stage], seen, repeat=_STEPS)
            runs[what] = run_steps([program], [each[stage]])
        times = {
            what: [ms / _STEPS for ms in milliseconds]
            for what, milliseconds in paired(runs, seconds=seconds).items()
        }
        yield compared(times, _WITHOUT, {"stage": stage})


def _empty_step(batch_size: int) -> float:
    """Milliseconds a step in a run that computes next to nothing.

    A real run with all that belongs to one: the order of the samples, taking them, the
    metrics and writing them, on pictures of one pixel with a network of one unit. What
    little it computes is counted as dispatch.
    """
    count = _EMPTY["samples"]
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(folder, "pixels", ((1, 1, 1), 2, None), count)
        config = complete(
            dataset={"name": "pixels", "data_dir": folder, "val_fraction": 0.0},
            model={"name": "mlp", "widths": (1,), "batch_norm": False},
            objective={"name": "cross_entropy"},
            optimizer={"learning_rate": 0.01, "schedule": "constant"},
            epochs=_EMPTY["epochs"],
            batch_size=batch_size,
        )
        workdir = pathlib.Path(folder, "run")
        train(assemble(config), workdir)
        lines = read_metrics(workdir / "metrics.jsonl")
    # The first epoch is left out: something is always done for the first time in it.
    return 1e3 * statistics.median(
        line["seconds"] / (count // batch_size) for line in lines[1:]
    )
