"""A training step by every algorithm: time, temporaries and work against end to end."""

import contextlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.steps import (
    Step,
    check_networks,
    compile_step,
    experiment_of,
    run_steps,
    steps_of,
)
from dib_jax.commands.benchmarks.timing import compared, paired

_AUGMENTED = {"augment": "crop,flip"}
# What is compared, and the sections of the config that make it.
ALGORITHMS: dict[str, dict[str, dict[str, Any]]] = {
    # The baseline.
    "end_to_end": {"algorithm": {"name": "end_to_end"}},
    # Each stage recomputed from its input.
    "end_to_end_recomputed": {"algorithm": {"name": "end_to_end", "remat": True}},
    "end_to_end_augmented": {
        "algorithm": {"name": "end_to_end"},
        "dataset": _AUGMENTED,
    },
    # All stages at once.
    "parallel": {"algorithm": {"name": "parallel"}},
    # A step of every stage, on what the stages before it put out.
    "sequential": {},
    # … the stages before it forward only.
    "sequential_augmented": {"dataset": _AUGMENTED},
    # … with crops and flips drawn anew for every second step.
    "sequential_renewed": {"dataset": _AUGMENTED},
}
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


def training(
    networks: tuple[str, ...] = ("vgg11",),
    batch_sizes: tuple[int, ...] = (128,),
    algorithms: tuple[str, ...] = tuple(ALGORITHMS),
) -> Iterator[list[dict[str, Any]]]:
    """Steps by all algorithms on pictures of 32 × 32 × 3 and ten classes.

    Args:
        networks: their names.
        batch_sizes: samples of a step.
        algorithms: names in `ALGORITHMS`; end_to_end is always among them.

    Raises:
        ValueError: an unknown network or algorithm.
    """
    return _rows(networks, batch_sizes, algorithms, timed=True)


def memory(
    networks: tuple[str, ...] = ("vgg11", "resnet18", "resnet34", "resnet110"),
    batch_sizes: tuple[int, ...] = (128,),
    algorithms: tuple[str, ...] = (
        "end_to_end",
        "end_to_end_recomputed",
        "parallel",
        "sequential",
    ),
) -> Iterator[list[dict[str, Any]]]:
    """The compiler's figures of the same steps with plain convolutions, none run.

    Args:
        networks: as for `training`.
        batch_sizes: as for `training`.
        algorithms: as for `training`.

    Raises:
        ValueError: as `training`.
    """
    return _rows(networks, batch_sizes, algorithms, timed=False)


def _rows(
    networks: Sequence[str],
    batch_sizes: Sequence[int],
    algorithms: Sequence[str],
    *,
    timed: bool,
) -> Iterator[list[dict[str, Any]]]:
    check_networks(networks)
    if unknown := [name for name in algorithms if name not in ALGORITHMS]:
        raise ValueError(
            f"--algorithms: got {unknown[0]!r}; must be some of {', '.join(ALGORITHMS)}"
        )
    # In this order, and the one that the others are compared with in any case.
    wanted = [name for name in ALGORITHMS if name in algorithms or name == _BASELINE]
    return (
        compare(network, size, wanted, timed=timed)
        for network, size in itertools.product(networks, batch_sizes)
    )


def compare(
    network: str, batch_size: int, algorithms: Sequence[str], *, timed: bool
) -> list[dict[str, Any]]:
    """The rows of one network and batch size.

    Args:
        network: its name.
        batch_size: samples of a step.
        algorithms: names in `ALGORITHMS`, end_to_end among them.
        timed: whether steps are run; if not, convolutions are plain ones.
    """
    from dib_jax.models.convolution import direct_convolutions

    steps = {name: algorithm_steps(name, network, batch_size) for name in algorithms}
    seen: dict[str, Any] = {}
    with contextlib.nullcontext() if timed else direct_convolutions():
        compiled = {
            name: [compile_step(step, seen) for step in each]
            for name, each in steps.items()
        }
    figures = {
        name: _figures([one for _, one in compiled[name]], steps[name][0].updates)
        for name in algorithms
    }
    rows = []
    for name in algorithms:
        row = {"network": network, "batch": batch_size, "algorithm": name}
        row["steps"] = len(steps[name])
        for column, value in figures[name].items():
            base = figures[_BASELINE][column]
            row[column] = value
            row[f"× {column}"] = value / base if value is not None and base else None
        rows.append(row)
    if timed:
        runs = {
            name: run_steps([program for program, _ in compiled[name]], steps[name])
            for name in algorithms
        }
        updates = {name: steps[name][0].updates for name in algorithms}
        for row, time in zip(rows, _times(runs, updates), strict=True):
            row |= time
    return rows


def _figures(each: Sequence[dict[str, Any]], updates: int) -> dict[str, float | None]:
    """The compiler's figures of stages in turn, by column.

    Never more than the largest is held, and the work of all of them is done.
    """
    import jax

    found: dict[str, float | None] = {}
    for key, (column, unit) in _FIGURES.items():
        # What the compiler for a CPU calls the peak leaves the temporaries out.
        if key == "peak_bytes" and jax.default_backend() == "cpu":
            continue
        values = [figures[key] for figures in each]
        if None in values:
            found[column] = None
        else:
            total = sum(values) / updates if key == "flops" else max(values)
            found[column] = total / unit
    return found


def _times(
    runs: dict[str, Callable[[], None]], updates: dict[str, int]
) -> list[dict[str, Any]]:
    """Milliseconds of an update by each algorithm, against its baseline."""
    times = {
        name: [one / updates[name] for one in milliseconds]
        for name, milliseconds in paired(runs, seconds=30.0).items()
    }
    rows = []
    for name in times:
        base = _BASELINES.get(name, _BASELINE)
        base = base if base in times else _BASELINE
        compared_with = {row["what"]: row for row in compared(times, base, {})}
        row = compared_with[name]
        row["× time"] = row.pop(f"× {base}")
        del row["what"]
        rows.append(row)
    return rows


def algorithm_steps(
    algorithm: str, network: str, batch_size: int, **sections: dict[str, Any]
) -> list[Step]:
    """The training steps of a network by an algorithm, one for each phase.

    Args:
        algorithm: a name in `ALGORITHMS`.
        network: its name.
        batch_size: samples of a step.
        **sections: fields of the config that differ, by section.
    """
    fields = {**ALGORITHMS[algorithm], **sections}
    experiment = experiment_of(network, batch_size, fields)
    return steps_of(experiment, updates=2 if algorithm.endswith("_renewed") else 1)


def plot_ratios(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Temporaries, and times where there are any, of each algorithm × end to end.

    Args:
        path: of the picture.
        rows: as `training` gives them.
    """
    columns = {"× temp MiB": "temporaries", "× time": "time of a step"}
    titles = {
        name: f"{what}, × end to end"
        for name, what in columns.items()
        if name in rows[0]
    }
    table.plot_bars(path, rows, titles, level=1)
