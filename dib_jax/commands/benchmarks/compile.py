"""What the compiler for a described TPU makes of the train steps; no TPU is needed."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from dib_jax import information as info
from dib_jax.commands.assemble import assemble
from dib_jax.commands.benchmarks import steps, table
from dib_jax.commands.benchmarks.training import ALGORITHMS
from dib_jax.commands.command_line import config_files, load_config, override
from dib_jax.commands.config import complete
from dib_jax.commands.run import keep_programs
from dib_jax.training.compilation import compiler_figures
from dib_jax.training.devices import by_sample, mesh_of, replicated
from dib_jax.training.workdir import write_json

NOTE = (
    "The compiler's own figures for a chip: peak memory with weights and optimizer, of "
    "the programs in turn the largest (of program: which one, from 0), and the work of "
    "all of them, in which it counts nothing for an eigendecomposition. Configs by "
    "their own algorithm; networks without augmentation. Measures: value and gradient, "
    "128 samples of 256 features."
)
# Random pictures stand in for a data set. Digits are embedded.
_PICTURES: dict[str, steps.Pictures] = {
    "mnist": ((28, 28, 1), 10, None),
    "fashion_mnist": ((28, 28, 1), 10, None),
    "cifar10": ((32, 32, 3), 10, None),
    "cifar100": ((32, 32, 3), 100, None),
    "gtsrb": ((32, 32, 3), 43, 1),
    "roadsign": ((64, 64, 3), 4, 2),
}
_SAMPLES = 1000
# Networks by every algorithm, on one chip: name → config and what differs from it.
# Without augmentation, so that a stage's input is what was cached.
_NETWORKS = {
    "vgg11": ("cifar10_vgg", {"model.depth": "11"}),
    "resnet18": ("cifar10_resnet", {"model.depth": "18"}),
    "resnet34": ("cifar10_resnet", {"model.depth": "34"}),
}
_ALGORITHMS = {
    "end to end": "end_to_end",
    "end to end, recomputed": "end_to_end_recomputed",
    "parallel": "parallel",
    "sequential, cached": "sequential",
}
# Of the information measures: samples and features of each side, orders.
_N, _FEATURES, _ALPHAS = 128, 256, (1.01, 2.0)
# A measure of features x and t and labels.
Measure = Callable[[Any, Any, Any], Any]
Program = Callable[[], jax.stages.Lowered]


def measure(
    topology: str = "v5e:2x2", only: tuple[str, ...] = ()
) -> Iterator[list[table.Row]]:
    """Training steps of configs, of networks by each algorithm, and the measures.

    The configs are those on pictures: a graph has no stand-in.

    Args:
        topology: of the TPU, as JAX names it.
        only: names of configs and networks, or "information"; empty for all.

    Raises:
        ValueError: libtpu is not installed, or does not know the topology; or a name
            is unknown.
    """
    known = [*_on_pictures(), "information", *_NETWORKS]
    if unknown := [name for name in only if name not in known]:
        raise ValueError(
            f"--only: got {unknown[0]!r}; must be some of {', '.join(known)}"
        )
    chips = _chips(topology)
    keep_programs()
    meshes = [mesh_of(chips[:count]) for count in dict.fromkeys((1, len(chips)))]
    names = [name for name in known if name in (only or known)]
    with tempfile.TemporaryDirectory() as folder:
        for name, pictures in _PICTURES.items():
            steps.write_pictures(folder, name, pictures, _SAMPLES)
        for name, mesh in itertools.product(names, meshes):
            if name == "information":
                for what, one in _measures().items():
                    lower = functools.partial(_lowered, one, mesh)
                    yield [_row(name, what, [lower], mesh)]
            elif name not in _NETWORKS:
                config = _config(name, {}, folder)
                about = f"{config.algorithm.name}, batch {config.batch_size}"
                yield [_row(name, about, _steps(config, mesh), mesh)]
            elif mesh.size == 1:
                yield from _compared(name, mesh, folder)


def _on_pictures() -> list[str]:
    """Configs whose data set is embedded, or has a stand-in."""
    names = [path.stem for path in config_files()]
    sets = {*_PICTURES, "digits"}
    return [name for name in names if _loaded(name).dataset.name in sets]


def _loaded(name: str) -> Any:
    return load_config(f"configs/{name}.py").config


def _chips(topology: str) -> Sequence[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "the benchmark compile needs libtpu, which compiles for a TPU on any Linux "
            "machine: pip install -e '.[tpu]'"
        )
    # A TPU is described, not looked for: nobody is asked on the network, and nothing
    # is written to a log.
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_LOG_DIR": "disabled",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:  # libtpu's own types
        raise ValueError(
            f"--topology: libtpu does not describe {topology!r} "
            f"({' '.join(str(error).split())[:150]}); v5e:2x2 is one"
        ) from None
    return described.devices


def _compared(name: str, mesh: Any, folder: str) -> Iterator[list[table.Row]]:
    """A network by every algorithm, against end to end, which comes first."""
    config, options = _NETWORKS[name]
    base = None
    for algorithm, known_as in _ALGORITHMS.items():
        changes = {**options, **ALGORITHMS[known_as], "dataset.augment": ""}
        programs = _steps(_config(config, changes, folder), mesh)
        row = _row(name, algorithm, programs, mesh)
        base = base or row["peak MiB"]
        row["× end to end"] = row["peak MiB"] / base
        yield [row]


def _row(name: str, about: str, programs: list[Program], mesh: Any) -> table.Row:
    """Programs in turn: the largest peak of one chip, the work of all of them."""
    found = []
    for number, lower in enumerate(programs, start=1):
        place = f"{name}, {about}, {mesh.size} chip(s)"
        print(f"{place}: program {number} of {len(programs)}", file=sys.stderr)
        found.append(_figures(lower(), mesh))
    peaks = [figures["peak_bytes"] / 2**20 for _, figures in found]
    return {
        "what": name,
        "how": about,
        "chips": mesh.size,
        "programs": len(found),
        "different": len({digest for digest, _ in found}),
        "peak MiB": max(peaks),
        "× end to end": None,
        "of program": peaks.index(max(peaks)),
        "GFLOP": sum(figures["flops"] for _, figures in found) / 1e9,
    }


def _figures(lowered: jax.stages.Lowered, mesh: Any) -> tuple[str, dict[str, Any]]:
    """A digest of the program, and the compiler's figures for it.

    They are kept beside compiled programs in the user's cache folder: a program takes a
    minute of a core, and JAX does not read programs for a described chip back.
    """
    facts = [
        lowered.as_text(),
        mesh.devices.flat[0].device_kind,
        *(importlib.metadata.version(name) for name in ("jaxlib", "libtpu")),
        *(os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")),
        str(jax.config.read("jax_disable_most_optimizations")),
    ]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    cache = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    folder = pathlib.Path(cache) / "described"
    path = folder / f"{digest}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, compiler_figures(lowered.compile()))
    return digest, json.loads(path.read_text(encoding="utf-8"))


def _config(name: str, changes: dict[str, str], folder: str) -> Any:
    return complete(override(_loaded(name), {**changes, "dataset.data_dir": folder}))


def _steps(config: Any, mesh: Any) -> list[Program]:
    """The training step of every phase of a config, as a run would compile it."""
    every = steps.steps_of(assemble(config, mesh=mesh))
    return [functools.partial(steps.lower_step, step) for step in every]


def _lowered(measure: Measure, mesh: Any) -> jax.stages.Lowered:
    """Value and gradient of a measure, the samples split over the chips."""

    def function(x: Any, t: Any, labels: Any) -> Any:
        return jax.value_and_grad(lambda t: measure(x, t, labels))(t)

    features = jax.ShapeDtypeStruct((_N, _FEATURES), jnp.float32)
    labels = jax.ShapeDtypeStruct((_N,), jnp.int32)
    return jax.jit(
        function, in_shardings=by_sample(mesh, _N), out_shardings=replicated(mesh)
    ).lower(features, features, labels)


def _measures() -> dict[str, Measure]:
    """The measures of two sets of features and labels, by their name."""

    def aligned(x: Any, t: Any, y: Any) -> Any:
        truth, candidates = info.label_gram(y), jnp.arange(1.0, 9.0)
        sigma = info.aligned_bandwidth(t, truth, candidates=candidates)
        return jnp.vdot(info.gaussian_gram(t, sigma=sigma), _gram(x))

    found: dict[str, Measure] = {}
    for alpha in _ALPHAS:
        of_order = _of_order(alpha).items()
        found |= {f"{name}, α = {alpha:g}": measure for name, measure in of_order}
    for name in ("hsic", "normalized_hsic", "cka"):
        found[name] = _of_pair(getattr(info, name))
    for name in ("median", "knn", "quantile", "scott"):
        found[f"{name}_bandwidth"] = _of_width(getattr(info, f"{name}_bandwidth"))
    found["aligned_bandwidth"] = aligned
    found["channel_gram"] = lambda x, t, y: jnp.vdot(
        info.channel_gram(t.reshape(_N, 4, 4, -1), sigma=1.0), _gram(x)
    )
    return found


def _of_pair(measure: Callable[..., Any], **options: float) -> Measure:
    return lambda x, t, y: measure(_gram(t), _gram(x), **options)


def _of_width(width: Callable[[Any], Any]) -> Measure:
    return lambda x, t, y: jnp.vdot(info.gaussian_gram(t, sigma=width(t)), _gram(x))


def _gram(x: Any) -> Any:
    return info.gaussian_gram(x, sigma=info.mean_bandwidth(x))


def _of_order(alpha: float) -> dict[str, Measure]:
    """The measures that have an order."""

    def matrix(x: Any, t: Any, y: Any) -> Any:
        grams = jnp.stack([_gram(t), _gram(x), _gram(t) * _gram(x) * _N])
        return info.mutual_information_matrix(grams, alpha=alpha).sum()

    def labels(x: Any, t: Any, y: Any) -> Any:
        known = {"num_classes": 10, "class_size": 32}
        return info.label_mutual_information(_gram(t), y, alpha=alpha, **known)

    def estimated(x: Any, t: Any, y: Any) -> Any:
        key = jax.random.key(0)
        return info.estimated_renyi_entropy(_gram(t), alpha=alpha, key=key, rank=16)

    return {
        "entropy": lambda x, t, y: info.renyi_entropy(_gram(t), alpha=alpha),
        "joint entropy": _of_pair(info.joint_entropy, alpha=alpha),
        "I(a; b)": _of_pair(info.mutual_information, alpha=alpha),
        "I(a; labels)": labels,
        "matrix of I": matrix,
        "total correlation": _of_pair(info.total_correlation, alpha=alpha),
        "dual total correlation": _of_pair(info.dual_total_correlation, alpha=alpha),
        "estimated entropy": lambda x, t, y: estimated(x, t, y).bits,
    }


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Peak memory of a chip, by what is compiled.

    Args:
        path: of the picture.
        rows: as `measure` gives them.
    """
    rows = [row for row in rows if row["what"] != "information"] or rows
    figure = Figure(figsize=(8, 1.2 + 0.22 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for chips in dict.fromkeys(row["chips"] for row in rows):
        some = [row for row in rows if row["chips"] == chips]
        names = [f"{row['what']}: {row['how']}" for row in some]
        peaks = [row["peak MiB"] for row in some]
        axes.plot(peaks, names, "o", ms=4, label=f"{chips} chip(s), each")
    axes.invert_yaxis()
    axes.set(xlabel="peak MiB", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=90)
