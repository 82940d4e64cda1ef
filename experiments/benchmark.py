"""Measure what the library computes, and write the table.

python -m experiments.benchmark NAME [--out=results] [--FLAG=VALUE …]

NAME is one of
information  the measures against what else there is, on one thread
estimation   estimated entropies of large Grams against exact ones, on one thread;
             --data_dir=DIR holds cifar10, shifted digits without it
training     time, temporaries and work of a step by every schedule against end to
             end; --networks=vgg11,resnet34 --batch_sizes=32,128 for some of them,
             --compile_only=True for the compiler's figures without running a step
compile      that train steps and measures compile for a TPU, on one chip and on all of
             a described topology, with peak memory and work; needs libtpu, no TPU;
             --topology=v5e:2x2, --only=cifar10_vgg,vgg11,information for some of them
"""

import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from experiments import command_line
from experiments.benchmarks import table
from experiments.benchmarks.compile import compile_ahead, plot_peaks
from experiments.benchmarks.estimation import estimation
from experiments.benchmarks.information import information
from experiments.benchmarks.training import plot_ratios, training

_NOTE = (
    "ms: median over rounds, in which all that is compared runs in turn; ×: how many "
    "times what it is compared with."
)


class _Benchmark(NamedTuple):
    """A benchmark: its rows, a table's worth at a time, from the flags it takes."""

    rows: Callable[..., Iterator[list[dict[str, Any]]]]
    flags: tuple[str, ...] = ()
    one_thread: bool = True
    note: str = _NOTE
    plot: Callable[[pathlib.Path, list[dict[str, Any]]], None] = table.plot_times


_BENCHMARKS = {
    "information": _Benchmark(information),
    "estimation": _Benchmark(estimation, ("data_dir",)),
    "training": _Benchmark(
        training,
        ("networks", "batch_sizes", "compile_only"),
        one_thread=False,
        note=f"{_NOTE} Temporaries and work of a step are the compiler's own figures; "
        "of the sequential schedule the largest over its stages, and the sum of them.",
        plot=plot_ratios,
    ),
    "compile": _Benchmark(
        compile_ahead,
        ("topology", "only"),
        one_thread=False,
        note="The compiler's own figures for a chip: peak memory with weights and "
        "optimizer, of the programs in turn the largest (of program: which one, from "
        "0), and the work of all of them, in which it counts nothing for an "
        "eigendecomposition. Configs by their own schedule; networks without "
        "augmentation. Measures: value and gradient, 128 samples of 256 features.",
        plot=plot_peaks,
    ),
}


def main(arguments: list[str]) -> None:
    """The command."""
    flags = dict.fromkeys(f for each in _BENCHMARKS.values() for f in each.flags)
    given = command_line.split_arguments(
        arguments, ("out", *flags), rest="the name of a benchmark"
    )
    if given.help:
        print(__doc__.strip())
        return
    if len(given.rest) != 1 or given.rest[0] not in _BENCHMARKS:
        raise ValueError(
            f"give one benchmark of {', '.join(_BENCHMARKS)}, got "
            f"{' '.join(given.rest) or 'none'}"
        )
    name = given.rest[0]
    chosen = _BENCHMARKS[name]
    options = {flag: value for flag, value in given.flags.items() if flag != "out"}
    for flag in options:
        if flag not in chosen.flags:
            raise ValueError(f"--{flag} means nothing to the benchmark {name}")
    if chosen.one_thread:
        # Before jax is imported: one thread, so that figures can be compared.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.environ["XLA_FLAGS"] = (
            "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        )
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    out = pathlib.Path(given.flags.get("out", "results")).expanduser()
    command = shlex.join(["python", "-m", "experiments.benchmark", *arguments])
    rows: list[dict[str, Any]] = []
    for more in chosen.rows(**options):
        rows += more
        out.mkdir(parents=True, exist_ok=True)
        # Each time, for the last sizes take minutes.
        table.write(out, name, rows, command, note=chosen.note, plot=chosen.plot)
        print("\n".join(map(table.line, more)), flush=True)


if __name__ == "__main__":
    sys.exit(command_line.main(main, command="experiments.benchmark"))
