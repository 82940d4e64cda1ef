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
from typing import Any, NamedTuple

from experiments.run import keep_programs

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
# Random pictures stand in for a data set: its name → their shape, classes, and boxes
# in a picture (None: the task has none). Digits are embedded.
_PICTURES: dict[str, tuple[tuple[int, int, int], int, int | None]] = {
    "mnist": ((28, 28, 1), 10, None),
    "cifar10": ((32, 32, 3), 10, None),
    "cifar100": ((32, 32, 3), 100, None),
    "gtsrb": ((32, 32, 3), 43, 1),
    "roadsign": ((64, 64, 3), 4, 2),
}
_SAMPLES = 1000
# Networks by every schedule, on one chip: name → config and what differs from it.
# Without augmentation, so that a stage's input is what was cached.
_NETWORKS = {
    "vgg11": ("cifar10_vgg", {"model.depth": "11"}),
    "resnet18": ("cifar10_resnet", {"model.depth": "18"}),
    "resnet34": ("cifar10_resnet", {"model.depth": "34"}),
}
_SCHEDULES = {
    "end to end": {"schedule.name": "end_to_end"},
    "end to end, recomputed": {
        "schedule.name": "end_to_end",
        "schedule.remat": "True",
    },
    "parallel": {"schedule.name": "parallel"},
    "sequential, cached": {"schedule.name": "sequential"},
}
# Of the information measures: samples and features of each side, orders.
_N, _FEATURES, _ALPHAS = 128, 256, (1.01, 2.0)


class _Program(NamedTuple):
    """A function and the shapes that it is compiled for.

    Attributes:
        function: (states, whole, batch) → anything.
        states: shapes of what is updated in place.
        whole: shapes of what lies whole on every chip.
        batch: shapes of arrays whose samples are split over the chips.
    """

    function: Callable[[Any, Any, Any], Any]
    states: Any
    whole: Any
    batch: Any


def compile_ahead(
    topology: str = "v5e:2x2", only: str = ""
) -> Iterator[list[dict[str, Any]]]:
    """Train steps of all configs, the networks' by each schedule, and the measures.

    Args:
        topology: of the TPU, as JAX names it.
        only: names of configs and networks, or "information", with commas; "" for all.

    Raises:
        ValueError: libtpu is not installed, or does not know the topology; or a name
            is unknown.
    """
    names = [path.stem for path in sorted(_CONFIGS.glob("*.py"))]
    known = [*names, "information", *_NETWORKS]
    wanted = only.split(",") if only else known
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(
            f"--only: got {unknown[0]!r}; must be some of {', '.join(known)}"
        )
    chips = _chips(topology)
    keep_programs()
    return _rows([name for name in known if name in wanted], chips)


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


def _rows(names: list[str], chips: Sequence[Any]) -> Iterator[list[dict[str, Any]]]:
    from dib_jax.training.devices import mesh_of

    meshes = [mesh_of(chips[:count]) for count in dict.fromkeys((1, len(chips)))]
    with tempfile.TemporaryDirectory() as folder:
        _write_pictures(pathlib.Path(folder))
        for name, mesh in itertools.product(names, meshes):
            if name == "information":
                for what, program in _measures().items():
                    yield [_row(name, what, [program], mesh)]
            elif name in _NETWORKS:
                if mesh.size == 1:
                    yield from _compared(name, mesh, folder)
            else:
                config = _config(name, {}, folder)
                about = f"{config.schedule.name}, batch {config.batch_size}"
                yield [_row(name, about, _steps(config, mesh), mesh)]


def _compared(name: str, mesh: Any, folder: str) -> Iterator[list[dict[str, Any]]]:
    """A network by every schedule, against end to end, which comes first."""
    config, options = _NETWORKS[name]
    base = None
    for schedule, more in _SCHEDULES.items():
        changes = {**options, **more, "dataset.augment": ""}
        steps = _steps(_config(config, changes, folder), mesh)
        row = _row(name, schedule, steps, mesh)
        base = base or row["peak MiB"]
        row["× end to end"] = row["peak MiB"] / base
        yield [row]


def _row(name: str, about: str, programs: list[_Program], mesh: Any) -> dict[str, Any]:
    """Programs in turn: the largest peak of one chip, the work of all of them."""
    compiled = []
    for number, program in enumerate(programs, start=1):
        place = f"{name}, {about}, {mesh.size} chip(s)"
        print(f"{place}: program {number} of {len(programs)}", file=sys.stderr)
        compiled.append(_figures(program, mesh))
    peaks = [figures["peak_bytes"] / 2**20 for _, figures in compiled]
    return {
        "what": name,
        "how": about,
        "chips": mesh.size,
        "programs": len(compiled),
        "different": len({digest for digest, _ in compiled}),
        "peak MiB": max(peaks),
        "× end to end": None,
        "of program": peaks.index(max(peaks)),
        "GFLOP": sum(figures["flops"] for _, figures in compiled) / 1e9,
    }


def _figures(program: _Program, mesh: Any) -> tuple[str, dict[str, Any]]:
    """A digest of the program, and the compiler's figures for it.

    They are kept beside compiled programs in the user's cache folder: a program takes a
    minute of a core, and JAX does not read programs for a described chip back.
    """
    import jax

    from dib_jax.training.compilation import compiler_figures
    from dib_jax.training.devices import by_sample, replicated
    from dib_jax.training.workdir import write_json

    lowered = jax.jit(
        program.function,
        in_shardings=(replicated(mesh), replicated(mesh), by_sample(mesh)),
        out_shardings=replicated(mesh),
        donate_argnums=0,
    ).lower(program.states, program.whole, program.batch)
    facts = [
        lowered.as_text(),
        mesh.devices.flat[0].device_kind,
        *(importlib.metadata.version(name) for name in ("jaxlib", "libtpu")),
        *(os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")),
        str(jax.config.read("jax_disable_most_optimizations")),
    ]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    folder = pathlib.Path(jax.config.jax_compilation_cache_dir) / "described"
    path = folder / f"{digest}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, compiler_figures(lowered.compile()))
    return digest, json.loads(path.read_text(encoding="utf-8"))


def _config(name: str, changes: dict[str, str], folder: str) -> Any:
    from dib_jax.training.config import complete
    from experiments.command_line import load_config, override

    config = load_config(str(_CONFIGS / f"{name}.py")).config
    return complete(override(config, {**changes, "dataset.data_dir": folder}))


def _write_pictures(folder: pathlib.Path) -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    for name, (shape, classes, boxes) in _PICTURES.items():
        labels = np.arange(_SAMPLES) % classes
        arrays = {
            "images": draw.integers(0, 256, (_SAMPLES, *shape), np.uint8),
            "labels": labels,
        }
        if boxes is not None:
            box = np.tile(np.float32([2, 3, 20, 25]), (_SAMPLES, 1))
            arrays["boxes"] = box
            if boxes > 1:
                arrays["boxes"] = np.stack([box] * boxes, axis=1)
                arrays["box_labels"] = np.stack([labels] * boxes, axis=1)
        (folder / name).mkdir()
        for split in ("train", "test"):
            np.savez(folder / name / f"{split}.npz", **arrays)


def _steps(config: Any, mesh: Any) -> list[_Program]:
    """The train step of every phase of a config, as a run would compile it."""
    import jax

    from dib_jax.training.experiment import assemble
    from dib_jax.training.steps import (
        TRUNK_OUTPUT,
        apply_frozen,
        frozen,
        initial_state,
        train_step,
    )

    experiment = assemble(config, mesh=mesh)
    size = config.batch_size
    taken = {
        name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype)
        for name, array in experiment.dataset.train.items()
    }
    trunk: tuple[Any, ...] = ()
    programs = []
    for blocks in experiment.phases:
        first, batch, passed = blocks[0], taken, trunk
        states = tuple(
            jax.eval_shape(
                functools.partial(initial_state, block),
                jax.random.key(0),
                batch["images"],
            )
            for block in blocks
        )
        kept = config.schedule.cache != "none"
        if first.trunk and kept and (not first.augment or config.schedule.copies):

            def output(trunk: Any, images: Any, first: Any = first) -> Any:
                x = first.prepare(images)
                return apply_frozen(
                    first.trunk, trunk, x, compute_dtype=first.compute_dtype
                )[-1]

            cached = jax.eval_shape(output, trunk, batch["images"])
            batch, passed = {**batch, TRUNK_OUTPUT: cached}, ()
        keys = jax.eval_shape(
            functools.partial(jax.random.split, num=len(blocks)), jax.random.key(0)
        )

        def step(states: Any, whole: Any, batch: Any, blocks: Any = blocks) -> Any:
            trunk, keys = whole
            own_keys = [keys[index] for index in range(len(blocks))]
            return train_step(blocks, states, trunk, batch, keys=own_keys)

        programs.append(_Program(step, states, (passed, keys), batch))
        trunk += tuple(
            stage for state in states for stage in jax.eval_shape(frozen, state)[0]
        )
    return programs


def _measures() -> dict[str, _Program]:
    """Value and gradient of the measures on two sets of features."""
    import jax
    import jax.numpy as jnp

    from dib_jax import information as info

    def gram(x: Any) -> Any:
        return info.gaussian_gram(x, sigma=info.mean_bandwidth(x))

    ways: dict[str, Callable[..., Any]] = {}
    for alpha in _ALPHAS:
        at = f", α = {alpha:g}"

        def by(measure: Callable[..., Any], alpha: float = alpha) -> Callable[..., Any]:
            return functools.partial(measure, alpha=alpha)

        measures = {
            "entropy": lambda a, b, y, m: m(info.renyi_entropy)(a),
            "joint entropy": lambda a, b, y, m: m(info.joint_entropy)(a, b),
            "I(a; b)": lambda a, b, y, m: m(info.mutual_information)(a, b),
            "I(a; labels)": lambda a, b, y, m: m(info.label_mutual_information)(
                a, y, num_classes=10, class_size=32
            ),
            "matrix of I": lambda a, b, y, m: m(info.mutual_information_matrix)(
                jnp.stack([a, b, a * b * len(a)])
            ).sum(),
            "total correlation": lambda a, b, y, m: m(info.total_correlation)(a, b),
            "dual total correlation": lambda a, b, y, m: m(info.dual_total_correlation)(
                a, b
            ),
            "estimated entropy": lambda a, b, y, m: (
                m(info.estimated_renyi_entropy)(a, key=jax.random.key(0), rank=16).bits
            ),
        }
        ways |= {
            f"{name}{at}": functools.partial(
                lambda x, t, y, measure, by: measure(gram(t), gram(x), y, by),
                measure=measure,
                by=by,
            )
            for name, measure in measures.items()
        }
    for measure in (info.hsic, info.normalized_hsic, info.cka):
        ways[measure.__name__] = functools.partial(
            lambda x, t, y, measure: measure(gram(t), gram(x)), measure=measure
        )
    for rule in (
        info.median_bandwidth,
        info.knn_bandwidth,
        info.quantile_bandwidth,
        info.scott_bandwidth,
    ):
        ways[rule.__name__] = functools.partial(
            lambda x, t, y, rule: jnp.vdot(
                info.gaussian_gram(t, sigma=rule(t)), gram(x)
            ),
            rule=rule,
        )
    ways["aligned_bandwidth"] = lambda x, t, y: jnp.vdot(
        gram(t),
        info.gaussian_gram(
            t,
            sigma=info.aligned_bandwidth(
                t, info.label_gram(y), candidates=jnp.arange(1.0, 9.0)
            ),
        ),
    )
    ways["channel_gram"] = lambda x, t, y: jnp.vdot(
        info.channel_gram(t.reshape(_N, 4, 4, -1), sigma=1.0), gram(x)
    )
    features = jax.ShapeDtypeStruct((_N, _FEATURES), jnp.float32)
    batch = (features, features, jax.ShapeDtypeStruct((_N,), jnp.int32))

    def differentiated(way: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
        def function(states: Any, whole: Any, batch: Any) -> Any:
            del states, whole
            x, t, labels = batch
            return jax.value_and_grad(lambda t: way(x, t, labels))(t)

        return function

    return {
        name: _Program(differentiated(way), (), (), batch) for name, way in ways.items()
    }


def plot_peaks(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Peak memory of a chip, by what is compiled.

    Args:
        path: of the picture.
        rows: as `compile_ahead` gives them.
    """
    from matplotlib.figure import Figure

    labels = list(
        dict.fromkeys(
            f"{row['what']}: {row['how']}"
            for row in rows
            if row["what"] != "information"
        )
    )
    shown = labels or list(dict.fromkeys(row["how"] for row in rows))
    figure = Figure(figsize=(8, 1.2 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for chips in dict.fromkeys(row["chips"] for row in rows):
        points = [
            (row["peak MiB"], label)
            for row in rows
            for label in (f"{row['what']}: {row['how']}", row["how"])
            if row["chips"] == chips and label in shown
        ]
        axes.plot(*zip(*points, strict=True), "o", ms=4, label=f"{chips} chip(s), each")
    axes.invert_yaxis()
    axes.set(xlabel="peak MiB", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=90)
