"""Measure what the library computes, and write the table.

python -m experiments.benchmark NAME [--out=results] [--FLAG=VALUE …]

NAME is one of
information  the measures against what else there is, on one thread
estimation   estimated entropies of large Grams against exact ones, on one thread;
             --data_dir=DIR holds cifar10, shifted digits without it
training     time, temporaries and work of a step by every algorithm against end to
             end; --networks=vgg11,cnn8w32 --batch_sizes=32,128 for some of them
             (cnn8w32: 8 equal stages of width 32), --algorithms=parallel,sequential
memory       the same by the compiler's figures alone, with plain convolutions on every
             platform and no step run; the same flags
scaling      temporaries of a step as depth (4 to 32 stages), batch (32 to 1024) and
             width grow, by the compiler's figures alone; --quick=True for the smallest
overhead     what the information term and the engine add to the steps of all stages;
             --networks=vgg11 --batch_sizes=128 --seconds=2 for each stage
gpu          pictures a second by each algorithm in bfloat16 and how busy the GPU is;
             with --data_dir=DIR, which holds cifar10, the time to 94 % (--epochs=24)
compile      that train steps and measures compile for a TPU, on one chip and on all of
             a described topology, with peak memory and work; needs libtpu, no TPU;
             --topology=v5e:2x2, --only=cifar10_vgg,vgg11,information for some of them
"""

import inspect
import os
import pathlib
import shlex
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dib_jax.commands import command_line
from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.compile import compile_ahead, plot_peaks
from dib_jax.commands.benchmarks.estimation import estimation
from dib_jax.commands.benchmarks.gpu import gpu, plot_rates
from dib_jax.commands.benchmarks.information import information
from dib_jax.commands.benchmarks.overhead import overhead, plot_terms
from dib_jax.commands.benchmarks.scaling import plot_growth, scaling
from dib_jax.commands.benchmarks.training import memory, plot_ratios, training

_NOTE = (
    "ms: median over rounds, in which all that is compared runs in turn; ×: how many "
    "times what it is compared with."
)
_FIGURES = (
    "Temporaries, the peak (not on a CPU) and work of a step are the compiler's own "
    "figures; of stages in turn the largest over the stages, and the sum of them."
)
_PLAIN = f"×: how many times end to end. {_FIGURES} Convolutions are plain ones."


class _Benchmark(NamedTuple):
    """A benchmark: its rows, a table's worth at a time, from the flags it takes."""

    rows: Callable[..., Iterator[list[dict[str, Any]]]]
    note: str = _NOTE
    plot: Callable[[pathlib.Path, list[dict[str, Any]]], None] = table.plot_times
    one_thread: bool = False

    @property
    def flags(self) -> dict[str, Any]:
        """The type of each one's values."""
        parameters = inspect.signature(self.rows).parameters.values()
        return {parameter.name: parameter.annotation for parameter in parameters}


_BENCHMARKS = {
    "information": _Benchmark(information, one_thread=True),
    "estimation": _Benchmark(estimation, one_thread=True),
    "training": _Benchmark(
        training,
        f"{_NOTE} {_FIGURES} Augmented steps are timed against end to end with the "
        "same augmentation.",
        plot_ratios,
    ),
    "memory": _Benchmark(memory, _PLAIN, plot_ratios),
    "scaling": _Benchmark(scaling, _PLAIN, plot_growth),
    "overhead": _Benchmark(
        overhead,
        f"{_NOTE} ms of one step; × over all stages: ratio of the sums; dispatch: "
        "against the quickest stage's step.",
        plot_terms,
    ),
    "gpu": _Benchmark(
        gpu,
        "Pictures a second: of sequential ones, through a step of every stage in "
        "turn. Busy: as the driver tells it. Seconds: of training, compilation left "
        "out; to 94 % on the validation split.",
        plot_rates,
    ),
    "compile": _Benchmark(
        compile_ahead,
        "The compiler's own figures for a chip: peak memory with weights and "
        "optimizer, of the programs in turn the largest (of program: which one, from "
        "0), and the work of all of them, in which it counts nothing for an "
        "eigendecomposition. Configs by their own algorithm; networks without "
        "augmentation. Measures: value and gradient, 128 samples of 256 features.",
        plot_peaks,
    ),
}


def main(arguments: list[str]) -> None:
    """The command."""
    flags = dict.fromkeys(flag for each in _BENCHMARKS.values() for flag in each.flags)
    given = command_line.split_arguments(
        arguments, ("out", *flags), rest="the name of a benchmark"
    )
    if given.help:
        print(command_line.documented("benchmark", __doc__))
        return
    if len(given.rest) != 1 or given.rest[0] not in _BENCHMARKS:
        raise ValueError(
            f"give one benchmark of {', '.join(_BENCHMARKS)}, got "
            f"{' '.join(given.rest) or 'none'}"
        )
    name = given.rest[0]
    chosen = _BENCHMARKS[name]
    out = pathlib.Path(given.flags.pop("out", "results")).expanduser()
    for flag in given.flags:
        if flag not in chosen.flags:
            raise ValueError(f"--{flag} means nothing to the benchmark {name}")
    options = command_line.parse_flags(given.flags, chosen.flags)
    if chosen.one_thread:
        # Before jax is imported: one thread, so that figures can be compared.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.environ["XLA_FLAGS"] = (
            "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        )
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    called = command_line.called("benchmark")
    command = shlex.join(["python", "-m", called, *arguments])
    rows: list[dict[str, Any]] = []
    for more in chosen.rows(**options):
        rows += more
        out.mkdir(parents=True, exist_ok=True)
        # Each time, for the last sizes take minutes.
        table.write(out, name, rows, command, note=chosen.note, plot=chosen.plot)
        print("\n".join(table.line(row, row) for row in more), flush=True)


if __name__ == "__main__":
    command_line.start("benchmark")
