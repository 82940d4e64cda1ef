"""A training step end to end beside the same step in another library."""

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

from dib_jax.commands import registry
from dib_jax.commands.benchmarks import table, torch_step
from dib_jax.commands.benchmarks.steps import (
    Step,
    compile_step,
    each_size,
    experiment_of,
    run_steps,
)
from dib_jax.commands.benchmarks.timing import compared, in_turn
from dib_jax.commands.config import FACTORIES
from dib_jax.training.experiment import Experiment

_PEERS = ("torch",)
_DTYPES = ("float32", "bfloat16")
NOTE = (
    f"{table.TIMES} A step is forward, backward and SGD with Nesterov momentum, on the "
    "CPU, on as many threads as cores may be used; the parameters are counted, and the "
    "products and convolutions of a forward pass, and they are the same. PyTorch runs "
    "without compilation in a process of its own, in the layout that is faster for it. "
    "Processor ms are those that processors worked for the step: other work beside it "
    "does not add to them, so they are the fairer ones on a busy machine."
)
Timed = tuple[float, float]  # milliseconds, and milliseconds of processors
# What flax gives every module.
_FLAX = ("parent", "name")


def measure(
    networks: tuple[str, ...] = ("vgg11", "resnet18"),
    batch_sizes: tuple[int, ...] = (128,),
    dtypes: tuple[str, ...] = ("float32",),
    *,
    peer: str,
) -> Iterator[list[table.Row]]:
    """Steps on pictures of 32 × 32 × 3 and ten classes, ours and the peer's.

    Args:
        networks: their names.
        batch_sizes: samples of a step.
        dtypes: of activations, and of weights as they are applied.
        peer: the other library.

    Raises:
        ValueError: an unknown peer, dtype or network, or one that the peer has no form
            of; the peer is not installed; jax does not run on the CPU; the two steps
            are not the same work.
    """
    if peer not in _PEERS:
        raise ValueError(f"--peer: got {peer!r}; must be {' or '.join(_PEERS)}")
    if unknown := [name for name in dtypes if name not in _DTYPES]:
        raise ValueError(
            f"--dtypes: got {unknown[0]!r}; must be some of {', '.join(_DTYPES)}"
        )
    sizes = each_size(networks, batch_sizes)
    if jax.default_backend() != "cpu":
        raise ValueError(
            f"--peer compares on the CPU, and jax runs on {jax.default_backend()!r} "
            "here; set JAX_PLATFORMS=cpu"
        )
    if importlib.util.find_spec("torch") is None:
        raise ValueError(
            "--peer=torch needs the package torch, which is not installed: pip install "
            "torch"
        )
    for dtype in dtypes:
        for network, size in sizes:
            yield compare(network, size, dtype)


def compare(network: str, batch_size: int, dtype: str) -> list[table.Row]:
    """Our row and PyTorch's.

    Args:
        network: its name.
        batch_size: samples of a step.
        dtype: of activations, and of weights as they are applied.

    Raises:
        ValueError: PyTorch's step is not the same work, or there is no form of it.
    """
    fields = {"algorithm.name": "end_to_end", "precision.compute": dtype}
    experiment = experiment_of(network, batch_size, fields)
    own, work = size_of(experiment), described(network, experiment)
    step = Step(experiment, 0)
    program, _ = compile_step(step, {})
    run = run_steps([program], [step])
    with started(work) as (theirs, their_step):
        check_same_work(network, own, theirs)
        times = in_turn(
            {"ours": lambda: torch_step.timed(run), "PyTorch": their_step},
            seconds=30.0,
        )
    about = {"network": network, "batch": batch_size, "dtype": dtype}
    about |= {"cores": work["threads"], "parameters": own["parameters"]}
    about["forward GFLOP"] = own["flops"] / 1e9
    form = f"{theirs['version']}, {theirs['layout']}"
    rows = rows_of(times, about)
    return [{**row, "form": form if row["what"] == "PyTorch" else ""} for row in rows]


def rows_of(times: Mapping[str, list[Timed]], about: dict[str, Any]) -> list[table.Row]:
    """A row for each of the two: times, and ratios within a round.

    Args:
        times: milliseconds, and those of processors, of each round.
        about: columns that all rows have in front.
    """
    wall, worked = (
        compared(
            {name: [one[kind] for one in each] for name, each in times.items()},
            "PyTorch",
            about,
        )
        for kind in (0, 1)
    )
    return [
        {
            **row,
            "processor ms": processors["ms"],
            "× PyTorch, processor": processors["× PyTorch"],
        }
        for row, processors in zip(wall, worked, strict=True)
    ]


def size_of(experiment: Experiment) -> dict[str, int]:
    """How large the network of an experiment end to end is.

    Args:
        experiment: of one phase that trains one block.

    Returns:
        `parameters`: how many numbers are trained. `flops` of a forward pass: products
        of matrices and convolutions, a multiplication and an addition are two.
    """
    (phase,) = experiment.phases
    algorithm, train = experiment.algorithm, experiment.dataset.train
    samples = {name: array[: experiment.batch_size] for name, array in train.items()}

    def trained(samples: Any) -> tuple[Any, Any]:
        batch = experiment.data(samples).batch()
        states = phase.init(experiment.key, algorithm.network, batch)
        weights = [(state.params, state.head["params"]) for state in states]
        return weights, phase.read(states, algorithm.network)

    def predict(network: Any, samples: Any) -> Any:
        return algorithm.predict(network, experiment.data(samples).batch())

    parameters, network = jax.eval_shape(trained, samples)
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(parameters)),
        "flops": contractions(jax.make_jaxpr(predict)(network, samples).jaxpr),
    }


def contractions(program: core.Jaxpr) -> int:
    """FLOPs of a program's products of matrices and convolutions, borders included.

    The compiler's own figure leaves out what is multiplied by a border's zeros, and has
    all that is done a number at a time. No other library counts like that.

    Args:
        program: of which loops count once.
    """
    total = 0
    for equation in program.eqns:
        kind, options = equation.primitive.name, equation.params
        made, *read = (
            typing.cast(Any, one.aval)
            for one in (equation.outvars[0], *equation.invars)
        )
        if kind == "dot_general":
            (axes, _), _ = options["dimension_numbers"]
            summed = math.prod(read[0].shape[axis] for axis in axes)
            total += 2 * made.size * summed
        elif kind == "conv_general_dilated":
            features = read[1].shape[options["dimension_numbers"].rhs_spec[0]]
            total += 2 * made.size * read[1].size // features
        inner = [*map(contractions, core.jaxprs_in_params(options))]
        # Of branches one is run.
        total += max(inner, default=0) if kind == "cond" else sum(inner)
    return total


def described(name: str, experiment: Experiment) -> dict[str, Any]:
    """What `torch_step` is to build and train, as plain data.

    Args:
        name: of the network.
        experiment: end to end, on pictures.

    Raises:
        ValueError: there is no form of one of the stages.
    """
    config = experiment.config
    stages = registry.build(FACTORIES["model"], config["model"])
    described = [{"kind": type(each).__name__, **_fields(each)} for each in stages]
    if unknown := {each["kind"] for each in described} - {*torch_step.KINDS}:
        raise ValueError(
            f"--networks: {name} cannot be compared with --peer, which has no "
            f"{unknown.pop()}; must be made of {', '.join(torch_step.KINDS)}, as vgg11 "
            "and resnet18 are"
        )
    images = experiment.dataset.train["images"]
    optimizer = config["optimizer"]
    return {
        "stages": described,
        "pool": config["head"]["pool"],
        "classes": experiment.task.num_outputs,
        "side": images.shape[1],
        "channels": images.shape[3],
        "batch": experiment.batch_size,
        "dtype": config["precision"]["compute"],
        "threads": _cores(),
        **{
            name: optimizer[name]
            for name in ("learning_rate", "momentum", "weight_decay")
        },
    }


def _fields(module: Any) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(module) if field.init)
    return {name: getattr(module, name) for name in names if name not in _FLAX}


def _cores() -> int:
    """Cores that this process may use, as XLA counts them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def started(
    work: Mapping[str, Any],
) -> Iterator[tuple[dict[str, Any], Callable[[], Timed]]]:
    """PyTorch's process: what its step is of, and a function that makes a step.

    Args:
        work: from `described`.

    Raises:
        RuntimeError: the process ended; what it said is on standard error.
    """
    words = [sys.executable, "-m", torch_step.__name__]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, text=True, stdin=pipe, stdout=pipe) as process:

        def ask(line: Any) -> Any:
            answer = ""
            if process.stdin and process.stdout:
                with contextlib.suppress(BrokenPipeError):
                    print(json.dumps(line), file=process.stdin, flush=True)
                    answer = process.stdout.readline()
            if not answer:
                raise RuntimeError(f"PyTorch's process ended: {' '.join(words)}")
            return json.loads(answer)

        yield ask(work), lambda: tuple(ask("step"))


def check_same_work(
    network: str, own: Mapping[str, int], theirs: Mapping[str, int]
) -> None:
    """Refuse to compare what is not the same work.

    Args:
        network: its name.
        own: `parameters` and `flops` of ours.
        theirs: the same of the peer's.

    Raises:
        ValueError: the numbers of parameters differ, or the work of a forward pass by
            more than 1 %.
    """
    for what in ("parameters", "flops"):
        slack = 0.01 if what == "flops" else 0
        if not math.isclose(own[what], theirs[what], rel_tol=slack):
            raise ValueError(
                f"the two networks {network} are not the same work: ours has "
                f"{own[what]} {what} and PyTorch's {theirs[what]}"
            )


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Processor time of a step, two bars for each network and batch size.

    Args:
        path: of the picture.
        rows: as `measure` gives them.
    """
    dtypes = {row["dtype"] for row in rows}
    bars = [
        {
            **row,
            "network": f"{row['network']}, {row['dtype']}" * (len(dtypes) > 1)
            or row["network"],
            "algorithm": row["what"],
        }
        for row in rows
    ]
    table.plot_bars(path, bars, {"processor ms": "processor ms of a step"})
