"""Peak memory of commands against the number of pictures they are given.

Each command is a process of its own, and its peak is the most that it has held of the
machine's memory, as the system counts it. A training holds its data set; nothing else
should grow with it. Predictions should hold a few pictures at a time.
"""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from dib_jax.commands.benchmarks import table

NOTE = (
    "peak MB: the most memory that the process held, pictures and programs together; "
    "for each MB more: how much it grows for each megabyte of pictures more than in "
    "the line above. MB are 10^6 bytes."
)
_SIDE, _CLASSES = 32, 10  # of pictures that are trained on
_PHOTO = (320, 240)  # of pictures that are predicted
# A small network, and an epoch in each phase.
_FIELDS = {
    "model.name": "mlp", "model.widths": "16,16", "epochs": "1", "batch_size": "100",
    "analysis.samples": "32", "objective.name": "cross_entropy",
}  # fmt: skip

# What a process held counts from its start on, when it still is what has started it: so
# a small one does that.
_AROUND = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def measure(
    trained: tuple[int, ...] = (10_000, 60_000), predicted: tuple[int, ...] = (20, 2000)
) -> Iterator[list[table.Row]]:
    """Train on so many pictures, end to end and by stages, and predict so many.

    Args:
        trained: numbers of pictures, of 32 × 32 × 3.
        predicted: numbers of pictures, of 320 × 240.
    """
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        folder = pathlib.Path(name)
        for count in trained:
            _write_set(folder / "sets" / f"of{count}", count)
        for algorithm in ("end_to_end", "sequential"):
            rows: list[table.Row] = []
            for count in trained:
                run = folder / f"{algorithm}-{count}"
                fields = {
                    "dataset.name": f"of{count}",
                    "dataset.data_dir": str(folder / "sets"),
                    "algorithm.name": algorithm,
                    **_FIELDS,
                }
                words = [f"--config.{field}={value}" for field, value in fields.items()]
                config = "--config=configs/digits_cnn.py:quick"
                held = _peak("run", [config, f"--workdir={run}", *words])
                size = count * _SIDE**2 * 3 / 1e6
                rows.append(_row(f"run, {algorithm}", count, size, held, rows))
            yield rows
        rows = []
        for count in predicted:
            photos = folder / f"photos{count}"
            size = _write_photos(photos, count)
            words = [f"--workdir={run}", f"--out={folder / f'out{count}'}", str(photos)]
            rows.append(_row("predict", count, size, _peak("predict", words), rows))
        yield rows


def _row(
    what: str, count: int, size: float, held: float, before: Sequence[table.Row]
) -> table.Row:
    row: table.Row = {
        "command": what,
        "pictures": count,
        "MB of pictures": round(size),
        "peak MB": round(held),
    }
    for last in before[-1:]:
        more = size - last["MB of pictures"]
        row["for each MB more"] = (held - last["peak MB"]) / more
    return row


def _peak(name: str, arguments: Sequence[str]) -> float:
    """Megabytes that a command held at most."""
    return peak([sys.executable, "-m", f"dib_jax.commands.{name}", *arguments])


def peak(words: Sequence[str]) -> float:
    """Megabytes (10⁶ bytes) of memory that a process held at most.

    Args:
        words: its program and arguments.

    Raises:
        RuntimeError: it failed; the message is the last line that it said.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", _AROUND, *words],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = done.stderr.splitlines() or ["nothing said"]
        raise RuntimeError(f"{' '.join(words)}: {lines[-1]}")
    # In bytes on a Mac, else in units of 1024.
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024) / 1e6


def _write_set(folder: pathlib.Path, count: int) -> None:
    """Array files of noise, with a test split of a fixed size."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for split, size in (("train", count), ("test", 1000)):
        images = draw.integers(0, 256, (size, _SIDE, _SIDE, 3), np.uint8)
        labels = np.arange(size) % _CLASSES
        np.savez(folder / f"{split}.npz", images=images, labels=labels)


def _write_photos(folder: pathlib.Path, count: int) -> float:
    """Picture files of noise; how many megabytes their pixels are."""
    folder.mkdir(parents=True)
    width, height = _PHOTO
    draw = np.random.default_rng(0)
    for number in range(count):
        pixels = draw.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return count * width * height * 3 / 1e6


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Peaks over the size of the pictures.

    Args:
        path: of the picture.
        rows: as `measure` gives them.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["command"] for row in rows):
        some = [row for row in rows if row["command"] == name]
        sizes, held = ([row[k] for row in some] for k in ("MB of pictures", "peak MB"))
        axes.plot(sizes, held, marker="o", ms=4, lw=1, label=name.replace("_", " "))
    axes.set(xlabel="MB of pictures", ylabel="peak memory, MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=90)
