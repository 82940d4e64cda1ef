"""On a GPU: pictures a second by each schedule, and the time to 94 % on CIFAR-10."""

import contextlib
import itertools
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from experiments.benchmarks.training import (
    compile_step,
    network,
    run_steps,
    sizes_of,
    steps_of,
)

_SCHEDULES = ("end_to_end", "parallel", "sequential")
_TARGET = 0.94
_STEPS = 20  # in one program
_SECONDS = 5.0  # that each schedule's programs run


def gpu(
    networks: str = "vgg11,resnet18",
    batch_sizes: str = "512",
    data_dir: str = "",
    epochs: str = "24",
) -> Iterator[list[dict[str, Any]]]:
    """Schedules in bfloat16 on a GPU; then runs to 94 % where CIFAR-10 is given.

    Args:
        networks: their names, with commas.
        batch_sizes: pictures of a step, with commas.
        data_dir: holds cifar10; "" leaves the runs out.
        epochs: of each run.

    Raises:
        ValueError: there is no GPU, an unknown network, a number that is none.
    """
    import jax

    names, sizes = networks.split(","), sizes_of(batch_sizes)
    for name in names:
        network(name)
    if not (epochs.isdecimal() and int(epochs) > 0):
        raise ValueError(f"--epochs: got {epochs!r}; must be an integer from 1")
    if jax.default_backend() != "gpu":
        raise ValueError(
            f"the benchmark gpu needs a GPU, and jax runs on {jax.default_backend()!r} "
            "here; install '.[gpu]' on a machine that has one"
        )
    rates = (throughput(name, size) for name in names for size in sizes)
    runs = (
        [time_to_target(schedule, data_dir, int(epochs))]
        for schedule in (("end_to_end", "parallel") if data_dir else ())
    )
    return itertools.chain(rates, runs)


def throughput(
    name: str, batch_size: int, *, seconds: float = _SECONDS
) -> list[dict[str, Any]]:
    """Pictures a second of one network, a row for each schedule.

    Of the sequential schedule: how many pass through a step of every stage in turn.
    """
    import jax.numpy as jnp

    rows: list[dict[str, Any]] = []
    for schedule in _SCHEDULES:
        programs = steps_of(
            schedule, name, batch_size, compute_dtype=jnp.dtype("bfloat16")
        )
        seen: dict[str, Any] = {}
        # FLOPs of one step: of a loop the compiler counts the body once.
        flops = [compile_step(program, seen)[1]["flops"] for program in programs]
        steps = [compile_step(program, seen, steps=_STEPS)[0] for program in programs]
        run = run_steps(steps, programs)
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
                "network": name,
                "batch": batch_size,
                "schedule": schedule,
                "pictures a second": rate,
                "× end_to_end": rate / (rows[0]["pictures a second"] if rows else rate),
                "TFLOP a second": sum(flops) / per_step / 1e12,
                "busy in %": statistics.mean(busy) if busy else None,
                "epochs": None,
                "accuracy": None,
                "seconds": None,
                "seconds to 94 %": None,
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
    tool = shutil.which("nvidia-smi")

    def watch() -> None:
        query = "--query-gpu=utilization.gpu"
        while tool and not done.wait(0.5):
            told = subprocess.run(
                [tool, query, "--format=csv,noheader,nounits", "--id=0"],
                capture_output=True,
                check=False,
                text=True,
            ).stdout.strip()
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


def time_to_target(schedule: str, data_dir: str, epochs: int) -> dict[str, Any]:
    """A run of ResNet-18 in bfloat16 on CIFAR-10, and when it first was at 94 %."""
    from dib_jax.training import train
    from dib_jax.training.config import complete
    from experiments.command_line import load_config

    configs = pathlib.Path(__file__).parents[2] / "configs"
    config = load_config(str(configs / "cifar10_resnet.py")).config
    config.dataset.data_dir = data_dir
    config.schedule.name = schedule
    config.precision.compute = "bfloat16"
    config.batch_size = 512
    config.epochs = epochs
    config.optimizer.learning_rate = 0.4
    config.optimizer.warmup_epochs = 4.0
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder, "run")
        with utilisation() as busy:
            trained = train.train(complete(config), workdir, config_name="cifar10")
        text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    last = max(line["stage"] for line in lines)
    whole, reached = seconds_to(lines, last, _TARGET)
    return {
        "network": config.model.name + str(config.model.depth),
        "batch": config.batch_size,
        "schedule": schedule,
        "pictures a second": None,
        "× end_to_end": None,
        "TFLOP a second": None,
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


def plot_rates(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Pictures a second of each schedule, a group of bars for each network.

    Args:
        path: of the picture.
        rows: as `gpu` gives them.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["pictures a second"]]
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    groups = list(dict.fromkeys((row["network"], row["batch"]) for row in rows))
    for index, schedule in enumerate(_SCHEDULES):
        own = [row for row in rows if row["schedule"] == schedule]
        places = [groups.index((r["network"], r["batch"])) + index / 4 for r in own]
        rates = [row["pictures a second"] for row in own]
        axes.bar(places, rates, width=0.22, label=schedule.replace("_", " "))
    names = [f"{name}, batch {size}" for name, size in groups]
    axes.set_xticks([i + 0.25 for i in range(len(groups))], names)
    axes.set_ylabel("pictures a second, bfloat16")
    axes.legend()
    figure.savefig(path, dpi=90)
