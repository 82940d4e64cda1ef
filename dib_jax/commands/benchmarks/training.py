"""A training step by every algorithm: time, temporaries and work against end to end."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.steps import (
    Step,
    compile_step,
    each_size,
    experiment_of,
    run_steps,
    steps_of,
)
from dib_jax.commands.benchmarks.timing import compared, paired
from dib_jax.models import convolution

_END_TO_END = {"algorithm.name": "end_to_end"}
_AUGMENTED = {"dataset.augment": "crop,flip"}
# What is compared, and the fields of the config that make it.
ALGORITHMS: dict[str, dict[str, str]] = {
    # The baseline.
    "end_to_end": _END_TO_END,
    # Each stage recomputed from its input.
    "end_to_end_recomputed": {**_END_TO_END, "algorithm.remat": "True"},
    "end_to_end_augmented": {**_END_TO_END, **_AUGMENTED},
    # All stages at once.
    "parallel": {"algorithm.name": "parallel"},
    # A step of every stage, on what the stages before it put out.
    "sequential": {"algorithm.name": "sequential"},
    # … the stages before it forward only.
    "sequential_augmented": _AUGMENTED,
    # … with crops and flips drawn anew for every second step.
    "sequential_renewed": _AUGMENTED,
}
NOTE = (
    f"{table.TIMES} {table.FIGURES} Augmented steps are timed against end to end with "
    "the same augmentation."
)
# Temporaries, and times where there are any, of each algorithm × end to end.
plot = functools.partial(
    table.plot_bars,
    columns={
        "× temp MiB": "temporaries, × end to end",
        "× time": "time of a step, × end to end",
    },
    level=1,
)
# Those that the compiler's figures alone tell apart.
PLAIN = ("end_to_end", "end_to_end_recomputed", "parallel", "sequential")
_BASELINE = "end_to_end"
_BASELINES = dict.fromkeys(
    ("sequential_augmented", "sequential_renewed"), "end_to_end_augmented"
)
# Figure of the compiler → column, and how many of its units are one of the column's.
_FIGURES = {
    "temp_bytes": ("temp MiB", 2**20),
    "peak_bytes": ("peak MiB", 2**20),
    "flops": ("GFLOP", 10**9),
}


def measure(
    networks: tuple[str, ...] = ("vgg11",),
    batch_sizes: tuple[int, ...] = (128,),
    algorithms: tuple[str, ...] = tuple(ALGORITHMS),
    *,
    timed: bool = True,
) -> Iterator[list[table.Row]]:
    """Steps by all algorithms on pictures of 32 × 32 × 3 and ten classes.

    Args:
        networks: their names.
        batch_sizes: samples of a step.
        algorithms: names in `ALGORITHMS`; end_to_end is always among them.
        timed: whether steps are run; if not, convolutions are plain ones.

    Raises:
        ValueError: an unknown network or algorithm.
    """
    if unknown := [name for name in algorithms if name not in ALGORITHMS]:
        raise ValueError(
            f"--algorithms: got {unknown[0]!r}; must be some of {', '.join(ALGORITHMS)}"
        )
    # In this order, and the one that the others are compared with in any case.
    wanted = [name for name in ALGORITHMS if name in algorithms or name == _BASELINE]
    for network, size in each_size(networks, batch_sizes):
        yield compare(network, size, wanted, timed=timed)


def compare(
    network: str, batch_size: int, algorithms: Sequence[str], *, timed: bool
) -> list[table.Row]:
    """The rows of one network and batch size.

    Args:
        network: its name.
        batch_size: samples of a step.
        algorithms: names in `ALGORITHMS`, end_to_end the first of them.
        timed: whether steps are run; if not, convolutions are plain ones.
    """
    steps = {name: algorithm_steps(name, network, batch_size) for name in algorithms}
    seen: dict[str, Any] = {}
    rows: list[table.Row] = []
    runs: dict[str, Callable[[], None]] = {}
    base: dict[str, float | None] = {}
    for name, each in steps.items():
        with contextlib.nullcontext() if timed else convolution.direct_convolutions():
            compiled = [compile_step(step, seen) for step in each]
        row: table.Row = {"network": network, "batch": batch_size, "algorithm": name}
        row["steps"] = len(each)
        figures = _figures([one for _, one in compiled], each[0].updates)
        base = base or figures
        for column, value in figures.items():
            unit = base[column]
            row[column] = value
            row[f"× {column}"] = value / unit if value is not None and unit else None
        rows.append(row)
        if timed:
            runs[name] = run_steps([program for program, _ in compiled], each)
    if timed:
        times = {
            name: [one / steps[name][0].updates for one in milliseconds]
            for name, milliseconds in paired(runs, seconds=30.0).items()
        }
        rows = [{**row, **_timed(row["algorithm"], times)} for row in rows]
    return rows


def _figures(each: Sequence[dict[str, Any]], updates: int) -> dict[str, float | None]:
    """The compiler's figures of stages in turn, by column.

    Never more than the largest is held, and the work of all of them is done.
    """
    found: dict[str, float | None] = {}
    for key, (column, unit) in _FIGURES.items():
        # What the compiler for a CPU calls the peak leaves the temporaries out.
        if key == "peak_bytes" and jax.default_backend() == "cpu":
            continue
        values = [figures[key] for figures in each]
        if None in values:
            found[column] = None
        elif key == "flops":
            found[column] = sum(values) / updates / unit
        else:
            found[column] = max(values) / unit
    return found


def _timed(name: str, times: dict[str, list[float]]) -> table.Row:
    """Milliseconds of an update by an algorithm, against its baseline."""
    base = _BASELINES.get(name, _BASELINE)
    base = base if base in times else _BASELINE
    (row,) = (row for row in compared(times, base, {}) if row.pop("what") == name)
    row["× time"] = row.pop(f"× {base}")
    return row


def algorithm_steps(
    algorithm: str, network: str, batch_size: int, **fields: str
) -> list[Step]:
    """The training steps of a network by an algorithm, one for each phase.

    Args:
        algorithm: a name in `ALGORITHMS`.
        network: its name.
        batch_size: samples of a step.
        **fields: text of the fields of the config that differ, by dotted name.
    """
    fields = {**ALGORITHMS[algorithm], **fields}
    experiment = experiment_of(network, batch_size, fields)
    return steps_of(experiment, updates=2 if algorithm.endswith("_renewed") else 1)
