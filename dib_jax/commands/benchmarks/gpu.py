"""On a GPU: pictures a second by each algorithm, and the time to 94 % on CIFAR-10."""

import contextlib
import functools
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from dib_jax.analysis.runs import read_metrics
from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.steps import compile_step, each_size, run_steps
from dib_jax.commands.benchmarks.training import algorithm_steps
from dib_jax.commands.command_line import load_config, override
from dib_jax.commands.run import train_run

NOTE = (
    "Pictures a second: of sequential ones, through a step of every stage in turn. "
    "Busy: as the driver tells it. Seconds: of training, compilation left out; to 94 % "
    "on the validation split."
)
_ALGORITHMS = ("end_to_end", "parallel", "sequential")
_TARGET = 0.94
_STEPS = 20  # in one program
_RATE = "pictures a second"
plot = functools.partial(table.plot_bars, columns={_RATE: f"{_RATE}, bfloat16"})
# What the runs differ in from configs/cifar10_resnet.py.
_RUN = {
    "precision.compute": "bfloat16",
    "batch_size": "512",
    "optimizer.learning_rate": "0.4",
    "optimizer.warmup_epochs": "4",
}


def measure(
    networks: tuple[str, ...] = ("vgg11", "resnet18"),
    batch_sizes: tuple[int, ...] = (512,),
    data_dir: str = "",
    epochs: int = 24,
) -> Iterator[list[table.Row]]:
    """Algorithms in bfloat16 on a GPU; then runs to 94 % where CIFAR-10 is given.

    Args:
        networks: their names.
        batch_sizes: pictures of a step.
        data_dir: holds cifar10; "" leaves the runs out.
        epochs: of each run.

    Raises:
        ValueError: there is no GPU, or an unknown network.
    """
    pairs = each_size(networks, batch_sizes)
    if jax.default_backend() != "gpu":
        raise ValueError(
            f"the benchmark gpu needs a GPU, and jax runs on {jax.default_backend()!r} "
            "here; install '.[gpu]' on a machine that has one"
        )
    for network, size in pairs:
        yield throughput(network, size)
    for algorithm in ("end_to_end", "parallel") if data_dir else ():
        yield [time_to_target(algorithm, data_dir, epochs)]


def throughput(
    network: str, batch_size: int, *, seconds: float = 5.0
) -> list[table.Row]:
    """Pictures a second of one network, a row for each algorithm.

    Of the sequential one: how many pass through a step of every stage in turn.

    Args:
        network: its name.
        batch_size: pictures of a step.
        seconds: that each algorithm's programs run, but three rounds in any case.
    """
    rows: list[table.Row] = []
    precision = {"precision.compute": "bfloat16"}
    for algorithm in _ALGORITHMS:
        steps = algorithm_steps(algorithm, network, batch_size, **precision)
        seen: dict[str, Any] = {}
        # FLOPs of one step: of a loop the compiler counts the body once.
        flops = [compile_step(step, seen)[1]["flops"] for step in steps]
        programs = [compile_step(step, seen, repeat=_STEPS)[0] for step in steps]
        run = run_steps(programs, steps)
        run()
        with utilisation() as busy:
            begin, rounds = time.perf_counter(), 0
            while rounds < 3 or time.perf_counter() - begin < seconds:
                run()
                rounds += 1
            per_step = (time.perf_counter() - begin) / rounds / _STEPS
        rate = batch_size / per_step
        rows.append(
            {
                "network": network,
                "batch": batch_size,
                "algorithm": algorithm,
                _RATE: rate,
                "× end_to_end": rate / (rows[0][_RATE] if rows else rate),
                "TFLOP a second": sum(flops) / per_step / 1e12,
                "busy in %": statistics.mean(busy) if busy else None,
            }
        )
    return rows


@contextlib.contextmanager
def utilisation() -> Iterator[list[float]]:
    """Samples of how busy the GPU is, in per cent, taken by its driver meanwhile.

    The list fills up while the `with` block runs; it stays empty where no driver tells.
    """
    samples: list[float] = []
    done = threading.Event()
    command = "nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits"

    def watch() -> None:
        while shutil.which("nvidia-smi") and not done.wait(0.5):
            told = subprocess.getoutput(f"{command} --id=0").strip()
            if not told.isdecimal():
                return
            samples.append(float(told))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield samples
    finally:
        done.set()
        watching.join()


def time_to_target(algorithm: str, data_dir: str, epochs: int) -> dict[str, Any]:
    """A run of ResNet-18 in bfloat16 on CIFAR-10, and when it first was at 94 %."""
    fields = {"dataset.data_dir": data_dir, "algorithm.name": algorithm, **_RUN}
    file = load_config("configs/cifar10_resnet.py")
    config = override(file.config, {**fields, "epochs": str(epochs)})
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder, "run")
        with utilisation() as busy:
            trained = train_run(config, workdir, config_name="cifar10")
        lines = read_metrics(workdir / "metrics.jsonl")
    last = max(line["stage"] for line in lines)
    whole, reached = seconds_to(lines, last, _TARGET)
    return {
        "network": f"{config.model.name}{config.model.depth}",
        "batch": config.batch_size,
        "algorithm": algorithm,
        "busy in %": statistics.mean(busy) if busy else None,
        "epochs": epochs,
        "accuracy": trained.results["test"]["accuracy"],
        "seconds": whole,
        "seconds to 94 %": reached,
    }


def seconds_to(
    lines: Iterable[dict[str, Any]], stage: int, target: float
) -> tuple[float, float | None]:
    """Seconds of all epochs of a stage, and until one validated as well as wanted.

    Args:
        lines: of metrics.jsonl.
        stage: whose head is asked.
        target: accuracy.

    Returns:
        Both, without compilation; the latter is None where the target was missed.
    """
    whole, reached = 0.0, None
    for line in lines:
        if line["stage"] == stage and line["split"] == "validation":
            whole += line["seconds"]
            if reached is None and line["accuracy"] >= target:
                reached = whole
    return whole, reached
