"""Corrupted pictures on the command line: what is measured, where it goes, a table."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dib_jax.commands import command_line

if TYPE_CHECKING:
    from dib_jax.training.finished import Trained

FLAGS = ("--corruptions", "--samples=N")


def read_samples(flags: Mapping[str, str]) -> int:
    """How many test pictures are asked for, 0 for all.

    Args:
        flags: value by name, as `split_arguments` gives them.

    Raises:
        ValueError: the flag without `--corruptions`, or no whole number from 1.
    """
    if "samples" in flags and "corruptions" not in flags:
        raise ValueError("--samples belongs to --corruptions; give both")
    return command_line.whole_number(flags, "samples") or 0


def record(
    workdir: pathlib.Path, trained: "Trained", *, samples: int = 0
) -> dict[str, Any]:
    """Measure a finished run on corrupted pictures, and write corruptions.json.

    Args:
        workdir: of the run.
        trained: the run.
        samples: how many test pictures are used; 0 for all.

    Returns:
        What corruptions.json holds.

    Raises:
        ValueError: its task is not classification of pictures, or there are not so
            many.
    """
    from dib_jax.analysis import corruptions
    from dib_jax.training.workdir import write_json

    measured = corruptions.measure(trained.experiment, trained.network, samples=samples)
    write_json(workdir / corruptions.FILE, measured)
    return measured


def as_text(measured: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy by corruption and strength, and means of all measures, as a table.

    Args:
        measured: corruptions.json of each run; of several, mean ± standard deviation.
    """
    from dib_jax.analysis.corruptions import mean_of

    first = measured[0]["corrupted"]
    numbers = [row["strength"] for row in next(iter(first.values()))]
    width = 8 if len(measured) == 1 else 15
    heads = [*map(str, numbers), "mean", "ECE", "NLL"]
    lines = [
        "test accuracy by strength and its mean, calibration error (ECE), both in per "
        "cent; negative log likelihood (NLL) in nats"
        + (f"; {len(measured)} runs" if len(measured) > 1 else ""),
        f"{'':<12}" + "".join(f"{head:>{width}}" for head in heads),
    ]

    def line(name: str, runs: Sequence[Sequence[Mapping[str, float]]]) -> None:
        means = [mean_of(rows) for rows in runs]
        by_strength = [
            _said([100 * rows[place]["accuracy"] for rows in runs])
            if len(runs[0]) == len(numbers)
            else ""
            for place in range(len(numbers))
        ]
        cells = [
            *by_strength,
            _said([100 * mean["accuracy"] for mean in means]),
            _said([100 * mean["ece"] for mean in means]),
            _said([mean["loss"] for mean in means], digits=3),
        ]
        lines.append(f"{name:<12}" + "".join(f"{cell:>{width}}" for cell in cells))

    line("clean", [[each["clean"]] for each in measured])
    for name in first:
        line(name, [each["corrupted"][name] for each in measured])
    line("all", [[each["mean"]] for each in measured])
    return "\n".join(lines)


def _said(values: Sequence[float], *, digits: int = 2) -> str:
    from dib_jax.analysis.comparison import mean_and_std

    mean, std = mean_and_std(values)
    spread = "" if std is None else f" ± {std:.{digits}f}"
    return f"{mean:.{digits}f}{spread}"
