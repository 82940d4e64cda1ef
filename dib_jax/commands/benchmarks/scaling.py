"""Memory of a training step as depth, batch or width grows, by the compiler alone."""

import pathlib
from collections.abc import Iterator
from typing import Any

from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.training import compare

_ALGORITHMS = ("end_to_end", "end_to_end_recomputed", "parallel", "sequential")
# What grows → the values it takes, and the network and batch size at each of them.
_GROWING = {
    "depth": ((4, 8, 16, 32), lambda depth: (f"cnn{depth}w32", 128)),
    "batch": ((32, 128, 512, 1024), lambda batch: ("cnn8w32", batch)),
    "width": ((16, 32, 64, 128), lambda width: (f"cnn8w{width}", 128)),
}


def scaling(quick: bool = False) -> Iterator[list[dict[str, Any]]]:
    """Temporaries of a step of equal stages on pictures of 32 × 32 × 3.

    Args:
        quick: only the two smallest values of each.
    """
    return (
        [
            {"grows": what, "to": value, **row}
            for row in compare(*network_at(value), _ALGORITHMS, timed=False)
        ]
        for what, (values, network_at) in _GROWING.items()
        for value in values[: 2 if quick else None]
    )


def plot_growth(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Temporaries of each algorithm, a panel for each thing that grows.

    Args:
        path: of the picture.
        rows: as `scaling` gives them.
    """
    names = {"depth": "stages", "batch": "samples in a batch", "width": "channels"}
    table.plot_lines(
        path,
        [{**row, "grows": names[row["grows"]]} for row in rows],
        panel=("grows",),
        line="algorithm",
        across="to",
        column="temp MiB",
        label="temporaries of a step, MiB",
    )
