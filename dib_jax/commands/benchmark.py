"""Measure what the library computes, and write the table.

python -m experiments.benchmark NAME [--out=results] [--FLAG=VALUE …]

NAME is one of
information  the measures against what else there is, on one thread
estimation   estimated entropies of large Grams against exact ones, on one thread;
             --data_dir=DIR holds cifar10, shifted digits without it
training     time, temporaries and work of a step by every algorithm against end to
             end; --networks=vgg11,cnn8w32 --batch_sizes=32,128 for some of them
             (cnn8w32: 8 equal stages of width 32), --algorithms=parallel,sequential;
             with --peer=torch the step end to end beside PyTorch's on a CPU, in a table
             of its own; --networks=vgg11,resnet18 --dtypes=float32,bfloat16
memory       the same by the compiler's figures alone, with plain convolutions on every
             platform and no step run; the same flags
scaling      temporaries of a step as depth (4 to 32 stages), batch (32 to 1024) and
             width grow, by the compiler's figures alone; --quick=True for the smallest
linear       deep linear networks a layer at a time: what width, depth and the best rate
             do, in float64, on one thread; --quick=True for a look of a minute
convolution  a convolution with both gradients in a loop, ours against patches and what
             JAX derives, on one thread; --batch_sizes=128,37 --dtypes=float32,bfloat16
overhead     what the information term and the engine add to the steps of all stages;
             --networks=vgg11 --batch_sizes=128 --seconds=2 for each stage
gpu          pictures a second by each algorithm in bfloat16 and how busy the GPU is;
             with --data_dir=DIR, which holds cifar10, the time to 94 % (--epochs=24)
graphs       graph networks by layers and end to end on Facebook's pages in
             --data_dir=DIR: time to equal accuracy and temporaries; --seeds=3
graph_sizes  the same on generated graphs of up to a million nodes: time, temporaries
             and memory; --nodes=10000,100000 --features=64 of each node
depth        2 to 16 graph layers on Cora in --data_dir=DIR: accuracy and how alike
             nodes become; --depths=2,4 --seeds=3
compile      that train steps and measures compile for a TPU, on one chip and on all of
             a described topology, with peak memory and work; needs libtpu, no TPU;
             --topology=v5e:2x2, --only=cifar10_vgg,vgg11,information for some of them
pictures     peak memory of a run and of predict against the number of pictures;
             --trained=10000,60000 --predicted=20,2000
faults       what becomes of runs that are killed, damaged, given bad input, short of a
             disk, or two in one folder; --kills=200 --damages=200 --inputs=300
             --disks=20 --pairs=50 --seed=0, --minutes=8 for each of them at most
"""

import importlib
import os
import pathlib
import shlex
from typing import Any

from dib_jax.commands import command_line

_SIZES = {"networks": tuple[str, ...], "batch_sizes": tuple[int, ...]}
# The flags that each benchmark takes, and the type of their values. It is a module of
# that name in `benchmarks`, imported once the command line is read, with `NOTE`,
# `measure(**flags)`, which gives the rows of the table some at a time, and
# `plot(path, rows)`.
_FLAGS: dict[str, dict[str, Any]] = {
    "information": {},
    "estimation": {"data_dir": str},
    "training": {**_SIZES, "algorithms": tuple[str, ...]},
    "memory": {**_SIZES, "algorithms": tuple[str, ...]},
    "scaling": {"quick": bool},
    "linear": {"quick": bool},
    "convolution": {"batch_sizes": tuple[int, ...], "dtypes": tuple[str, ...]},
    "overhead": {**_SIZES, "seconds": float},
    "gpu": {**_SIZES, "data_dir": str, "epochs": int},
    "faults": {
        **dict.fromkeys(("kills", "damages", "inputs", "disks", "pairs", "seed"), int),
        "minutes": float,
    },
    "pictures": {"trained": tuple[int, ...], "predicted": tuple[int, ...]},
    "graphs": {"data_dir": str, "seeds": int},
    "graph_sizes": {"nodes": tuple[int, ...], "features": int},
    "depth": {"data_dir": str, "seeds": int, "depths": tuple[int, ...]},
    "compile": {"topology": str, "only": tuple[str, ...]},
}
# Those of `training --peer=NAME`, which is a table, and a module, of its own.
_PEER = {**_SIZES, "dtypes": tuple[str, ...], "peer": str}
_ONE_THREAD = ("information", "estimation", "convolution", "linear")


def main(arguments: list[str]) -> None:
    """The command."""
    flags = dict.fromkeys(
        f"--{flag}=VALUE" for each in (*_FLAGS.values(), _PEER) for flag in each
    )
    given = command_line.split_arguments(
        arguments,
        ("--out=FOLDER", *flags),
        rest="the name of a benchmark",
        help=command_line.documented("benchmark", __doc__),
    )
    if len(given.rest) != 1 or given.rest[0] not in _FLAGS:
        raise ValueError(
            f"give one benchmark of {', '.join(_FLAGS)}, got "
            f"{' '.join(given.rest) or 'none'}"
        )
    name = given.rest[0]
    out = pathlib.Path(given.flags.pop("out", "results")).expanduser()
    known, words = _FLAGS[name], name
    if name == "training" and "peer" in given.flags:
        known, words, name = _PEER, "training with --peer", "training_peer"
    for flag in given.flags:
        if flag not in known:
            raise ValueError(f"--{flag} means nothing to the benchmark {words}")
    options = command_line.parse_flags(given.flags, known)
    if name in _ONE_THREAD:
        # Before jax is imported: one thread, so that figures can be compared.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.environ["XLA_FLAGS"] = (
            "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        )
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    benchmark = importlib.import_module(f"dib_jax.commands.benchmarks.{name}")
    table = importlib.import_module("dib_jax.commands.benchmarks.table")
    if name not in ("faults", "pictures"):  # whose processes need the device
        importlib.import_module("dib_jax.training.devices").own_devices()
    called = command_line.called("benchmark")
    command = shlex.join(["python", "-m", called, *arguments])
    rows: list[dict[str, Any]] = []
    for more in benchmark.measure(**options):
        rows += more
        out.mkdir(parents=True, exist_ok=True)
        # Each time, for the last sizes take minutes.
        table.write(out, name, rows, command, note=benchmark.NOTE, plot=benchmark.plot)
        print("\n".join(table.line(row, row) for row in more), flush=True)


if __name__ == "__main__":
    command_line.start("benchmark")
