"""Memory of a training step as depth, batch or width grows, by the compiler alone."""

import pathlib
from collections.abc import Iterator

from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.training import PLAIN, compare

NOTE = table.PLAIN
# What grows → the values it takes, and the network and batch size at each of them.
_GROWING = {
    "depth": ((4, 8, 16, 32), lambda depth: (f"cnn{depth}w32", 128)),
    "batch": ((32, 128, 512, 1024), lambda batch: ("cnn8w32", batch)),
    "width": ((16, 32, 64, 128), lambda width: (f"cnn8w{width}", 128)),
}


def measure(quick: bool = False) -> Iterator[list[table.Row]]:
    """Temporaries of a step of equal stages on pictures of 32 × 32 × 3.

    Args:
        quick: only the two smallest values of each.
    """
    for what, (values, network_at) in _GROWING.items():
        for value in values[: 2 if quick else None]:
            rows = compare(*network_at(value), PLAIN, timed=False)
            yield [{"grows": what, "to": value, **row} for row in rows]


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Temporaries of each algorithm, a panel for each thing that grows.

    Args:
        path: of the picture.
        rows: as `measure` gives them.
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
