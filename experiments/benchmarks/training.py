"""A training step by every schedule: time, temporaries and work against end to end."""

import contextlib
import itertools
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks.timing import compared, paired

# Name → factory and its options; cnnDwW has D stages of width W that are all alike.
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vgg11": ("vgg", {"depth": 11}),
    "resnet18": ("resnet", {"depth": 18}),
    "resnet34": ("resnet", {"depth": 34}),
    "resnet110": ("resnet", {"depth": 110}),
    "mlp": ("mlp", {}),
}
_ALIKE = re.compile(r"cnn([1-9]\d*)w([1-9]\d*)")
_AUGMENTATION = "crop,flip"

SCHEDULES = {
    "end_to_end": "the baseline",
    "end_to_end_recomputed": "each stage recomputed from its input",
    "end_to_end_augmented": "with crops and flips",
    "parallel": "all stages at once",
    "sequential": "a step of every stage, on what the stages before it put out",
    "sequential_augmented": "… with crops and flips, the stages before it forward only",
    "sequential_renewed": "… with crops and flips drawn anew for every second step",
}
_BASELINE = "end_to_end"
_BASELINES = dict.fromkeys(
    ("sequential_augmented", "sequential_renewed"), "end_to_end_augmented"
)
_FIGURES = {"temp_bytes": "temp MiB", "peak_bytes": "peak MiB", "flops": "GFLOP"}
_UNITS = {"temp_bytes": 2**20, "peak_bytes": 2**20, "flops": 10**9}
# What the compiler for a CPU calls the peak leaves the temporaries out.
_NOT_ON_A_CPU = "peak_bytes"


class Program(NamedTuple):
    """A train step: what it is lowered from, and where its input comes from.

    Attributes:
        blocks: that train at once.
        cached: whether what the stages before them put out is there already.
        steps: that use one output of the stages before them, all in one program.
    """

    blocks: tuple[Any, ...]
    cached: bool = False
    steps: int = 1


_ALL = ",".join(SCHEDULES)


def training(
    networks: str = "vgg11", batch_sizes: str = "128", schedules: str = _ALL
) -> Iterator[list[dict[str, Any]]]:
    """Steps of all schedules on pictures of 32 × 32 × 3 and ten classes.

    Args:
        networks: their names, with commas.
        batch_sizes: samples of a step, with commas.
        schedules: their names, with commas; end_to_end is always among them.

    Raises:
        ValueError: an unknown network or schedule, a size that is none.
    """
    return _rows(networks, batch_sizes, schedules, timed=True)


def memory(
    networks: str = "vgg11,resnet18,resnet34,resnet110",
    batch_sizes: str = "128",
    schedules: str = "end_to_end,end_to_end_recomputed,parallel,sequential",
) -> Iterator[list[dict[str, Any]]]:
    """The compiler's figures of the same steps with plain convolutions, none run.

    Args:
        networks: as for `training`.
        batch_sizes: as for `training`.
        schedules: as for `training`.

    Raises:
        ValueError: as `training`.
    """
    return _rows(networks, batch_sizes, schedules, timed=False)


def _rows(
    networks: str, batch_sizes: str, schedules: str, *, timed: bool
) -> Iterator[list[dict[str, Any]]]:
    names, sizes = networks.split(","), sizes_of(batch_sizes)
    for name in names:
        network(name)
    wanted = schedules.split(",")
    if unknown := [name for name in wanted if name not in SCHEDULES]:
        raise ValueError(
            f"--schedules: got {unknown[0]!r}; must be some of {', '.join(SCHEDULES)}"
        )
    # In this order, and the one that the others are compared with in any case.
    wanted = [name for name in SCHEDULES if name in wanted or name == _BASELINE]
    runs = itertools.product(names, sizes)
    return (compare(name, size, wanted, timed=timed) for name, size in runs)


def sizes_of(text: str) -> list[int]:
    """Batch sizes from a flag."""
    sizes = text.split(",")
    if bad := [size for size in sizes if not (size.isdecimal() and int(size) > 0)]:
        raise ValueError(f"--batch_sizes: got {bad[0]!r}; must be integers from 1")
    return [int(size) for size in sizes]


def network(name: str) -> tuple[str, dict[str, Any]]:
    """Factory and options of a network by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if alike := _ALIKE.fullmatch(name):
        depth, width = map(int, alike.groups())
        return "cnn", {"widths": (width,) * depth, "pools": 0}
    if name not in _NETWORKS:
        raise ValueError(
            f"--networks: got {name!r}; must be some of {', '.join(_NETWORKS)}, "
            "or cnn8w32 for 8 stages of width 32"
        )
    return _NETWORKS[name]


def compare(
    name: str, batch_size: int, schedules: Sequence[str], *, timed: bool
) -> list[dict[str, Any]]:
    """The rows of one network and batch size.

    Args:
        name: of the network.
        batch_size: samples of a step.
        schedules: some of `SCHEDULES`, end_to_end among them.
        timed: whether steps are run; if not, convolutions are plain ones.
    """
    import jax

    from dib_jax.models.convolution import direct_convolutions

    names = dict(_FIGURES)
    if jax.default_backend() == "cpu":
        del names[_NOT_ON_A_CPU]
    programs = {
        schedule: steps_of(schedule, name, batch_size) for schedule in schedules
    }
    seen: dict[str, Any] = {}
    with contextlib.nullcontext() if timed else direct_convolutions():
        compiled = {
            schedule: [compile_step(program, seen) for program in own]
            for schedule, own in programs.items()
        }
    of_one_call = {schedule: own[0].steps for schedule, own in programs.items()}
    figures = {
        schedule: {
            # Stages in turn: never more than the largest is held, all of it is done.
            key: _over(sum if key == "flops" else max, [own[key] for _, own in steps])
            for key in names
        }
        for schedule, steps in compiled.items()
    }
    for schedule, own in figures.items():
        if own["flops"] is not None:
            own["flops"] /= of_one_call[schedule]
    rows = []
    for schedule, own in figures.items():
        row = {"network": name, "batch": batch_size, "schedule": schedule}
        row["steps"] = len(compiled[schedule])
        for key, column in names.items():
            base = figures[_BASELINE][key]
            known = own[key] is not None and base
            row[column] = own[key] / _UNITS[key] if known else None
            row[f"× {column}"] = own[key] / base if known else None
        rows.append(row)
    if timed:
        runs = {
            schedule: run_steps([step for step, _ in steps], programs[schedule])
            for schedule, steps in compiled.items()
        }
        times = {
            schedule: [own / of_one_call[schedule] for own in milliseconds]
            for schedule, milliseconds in paired(runs, seconds=30.0).items()
        }
        for row in rows:
            base = _BASELINES.get(row["schedule"], _BASELINE)
            base = base if base in times else _BASELINE
            own = {one["what"]: one for one in compared(times, base, {})}
            for column, value in own[row["schedule"]].items():
                if column != "what":
                    row["× time" if column == f"× {base}" else column] = value
    return rows


def _over(reduce: Callable[[list[Any]], Any], values: list[Any]) -> Any:
    return None if None in values else reduce(values)


def steps_of(
    schedule: str, name: str, batch_size: int, **changes: Any
) -> list[Program]:
    """The train steps of a network by a schedule.

    Args:
        schedule: one of `SCHEDULES`.
        name: of the network.
        batch_size: samples of a step.
        **changes: of the blocks' fields.
    """
    import jax.numpy as jnp
    import optax

    from dib_jax.data.augment import augment
    from dib_jax.tasks.classification import classification
    from dib_jax.training.build import find
    from dib_jax.training.steps import Block

    factory, options = network(name)
    stages = tuple(find("models", factory)(**options))
    augmented = schedule.endswith(("_augmented", "_renewed"))

    def block(first: int, last: int, **own: Any) -> Block:
        fields = {
            "trunk": stages[:first],
            "stages": stages[first:last],
            "head": find("models.heads", "linear")(num_outputs=10),
            "stage": last - 1,
            "task": classification(num_classes=10),
            "objective": find("objectives", "dib")(),
            "optimizer": optax.sgd(0.1, momentum=0.9),
            "prepare": lambda images: images.astype(jnp.float32) / 255,
            "augment": augment(_AUGMENTATION) if augmented else None,
            "compute_dtype": jnp.float32,
            "batch_size": batch_size,
        }
        return Block(**{**fields, **own, **changes})

    count = len(stages)
    if schedule.startswith("end_to_end"):
        whole = block(
            0,
            count,
            objective=lambda signals: (signals.task_loss, {}),
            remat=schedule.endswith("_recomputed"),
        )
        return [Program((whole,))]
    each = [block(index, index + 1) for index in range(count)]
    if schedule == "parallel":
        return [Program(tuple(each))]
    if schedule == "sequential_renewed":
        # The first stage has no others before it: new augmentation at every step.
        return [Program((own,), steps=2) for own in each]
    return [Program((own,), cached=not augmented) for own in each]


def arguments_of(program: Program, make: Callable[..., Any]) -> tuple[Any, ...]:
    """States, trunk, batch and keys; `make` builds arrays, or only their shapes."""
    import jax
    import jax.numpy as jnp

    from dib_jax.training.steps import (
        TRUNK_OUTPUT,
        apply_frozen,
        frozen,
        initial_state,
    )

    first = program.blocks[0]

    def build(key: jax.Array) -> tuple[Any, ...]:
        shape = (first.batch_size, 32, 32, 3)
        images = jax.random.randint(key, shape, 0, 256).astype(jnp.uint8)
        batch = {"images": images, "labels": jnp.arange(first.batch_size) % 10}
        states = tuple(initial_state(b, key, images) for b in program.blocks)
        # Of the trunk only shapes matter: the same initial weights do.
        before = first._replace(trunk=(), stages=first.trunk, head=first.head)
        trunk: tuple[Any, ...] = ()
        if first.trunk:
            trunk = frozen(initial_state(before, key, images))[0]
            if program.cached:
                x = first.prepare(images)
                x = apply_frozen(
                    first.trunk, trunk, x, compute_dtype=first.compute_dtype
                )[-1]
                batch[TRUNK_OUTPUT] = x
                trunk = ()
        return states, trunk, batch

    keys = tuple(jax.random.key(block.stage) for block in program.blocks)
    return *make(build, jax.random.key(0)), keys


def compile_step(
    program: Program, seen: dict[str, Any], *, steps: int = 0
) -> tuple[Any, dict[str, Any]]:
    """The compiled step and the compiler's figures; equal programs only once.

    Args:
        program: the step.
        seen: programs that were compiled before; this one is added.
        steps: so many of them in one program, on the same batch; 0 for a plain step.
    """
    import jax

    from dib_jax.training.compilation import compiler_figures
    from dib_jax.training.steps import TRUNK_OUTPUT, apply_frozen, train_step

    first = program.blocks[0]

    def step(states: Any, trunk: Any, batch: Any, keys: Any) -> Any:
        if program.steps > 1 and first.trunk:
            # As the engine passes a kept copy through.
            batch = {**batch, **first.augment(keys[0], batch)}
            x = apply_frozen(
                first.trunk,
                trunk,
                first.prepare(batch["images"]),
                compute_dtype=first.compute_dtype,
            )[-1]
            batch[TRUNK_OUTPUT], trunk = x, ()
        for _ in range(program.steps):
            states, terms = train_step(program.blocks, states, trunk, batch, keys=keys)
        return states, terms

    def several(states: Any, trunk: Any, batch: Any, keys: Any) -> Any:
        def body(states: Any, _: None) -> Any:
            return step(states, trunk, batch, keys)

        return jax.lax.scan(body, states, length=steps)

    arguments = arguments_of(program, jax.eval_shape)
    function = several if steps else step
    lowered = jax.jit(function, donate_argnums=0).lower(*arguments)
    text = lowered.as_text()
    if text not in seen:
        compiled = lowered.compile()
        seen[text] = compiled, compiler_figures(compiled)
    return seen[text]


def run_steps(
    steps: Sequence[Any], programs: Sequence[Program], *, times: int = 1
) -> Callable[[], None]:
    """A function that runs each program so many times, on arrays on the device."""
    import jax

    def make(build: Callable[..., Any], key: Any) -> Any:
        return jax.jit(build)(key)

    now = [list(arguments_of(program, make)) for program in programs]

    def run() -> None:
        for step, arguments in zip(steps, now, strict=True):
            for _ in range(times):
                arguments[0], _ = step(*arguments)
        jax.block_until_ready([arguments[0] for arguments in now])

    return run


def plot_ratios(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Temporaries, and times where there are any, of each schedule × end to end.

    Args:
        path: of the picture.
        rows: as `training` gives them.
    """
    from matplotlib.figure import Figure

    columns = {"× temp MiB": "temporaries", "× time": "time of a step"}
    columns = {name: what for name, what in columns.items() if name in rows[0]}
    runs = list(dict.fromkeys((row["network"], row["batch"]) for row in rows))
    schedules = list(dict.fromkeys(row["schedule"] for row in rows))
    figure = Figure(
        figsize=(1.8 * len(runs) + 3.4, 2.8 * len(columns)), layout="constrained"
    )
    panels = figure.subplots(len(columns), 1, squeeze=False)[:, 0]
    width = 0.8 / len(schedules)
    for axes, (column, what) in zip(panels, columns.items(), strict=True):
        for index, schedule in enumerate(schedules):
            own = [row for row in rows if row["schedule"] == schedule]
            bars = axes.bar(
                [
                    runs.index((row["network"], row["batch"]))
                    + (index - (len(schedules) - 1) / 2) * width
                    for row in own
                ],
                [row[column] or 0 for row in own],
                width,
                color=f"C{index}",
                label=schedule.replace("_", " "),
            )
            axes.bar_label(bars, fmt="%.2f", fontsize=6, padding=1)
        names = [f"{network}, batch {size}" for network, size in runs]
        axes.set_xticks(range(len(runs)), names)
        axes.axhline(1, color="grey", lw=0.8)
        axes.set_ylabel(f"{what}, × end to end")
        axes.margins(y=0.1)
    legend(figure, panels[0])
    figure.savefig(path, dpi=90)


def draw(axes: Any, rows: list[dict[str, Any]], across: str, column: str) -> None:
    """A line for each schedule: a column of the rows over another one."""
    for index, name in enumerate(SCHEDULES):
        points = [
            (row[across], row[column])
            for row in rows
            if row["schedule"] == name and row[column] is not None
        ]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color=f"C{index}",
                marker="o",
                ms=3,
                label=name.replace("_", " "),
            )
    axes.grid(alpha=0.3)


def legend(figure: Any, axes: Any) -> None:
    """Beside the panels, what the lines of one of them are."""
    labelled = axes.get_legend_handles_labels()
    if labelled[0]:
        figure.legend(*labelled, loc="outside right center")
