"""A training step by every schedule: time, temporaries and work against end to end."""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from experiments.benchmarks.timing import compared, paired

# Name → factory and its options. Of `cnn` all stages are alike: what depth alone does.
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn4": ("cnn", {"widths": (32,) * 4, "pools": 0}),
    "cnn8": ("cnn", {"widths": (32,) * 8, "pools": 0}),
    "cnn16": ("cnn", {"widths": (32,) * 16, "pools": 0}),
    "cnn32": ("cnn", {"widths": (32,) * 32, "pools": 0}),
    "vgg11": ("vgg", {"depth": 11}),
    "resnet18": ("resnet", {"depth": 18}),
    "resnet34": ("resnet", {"depth": 34}),
    "resnet110": ("resnet", {"depth": 110}),
    "mlp": ("mlp", {}),
}
_BASELINE = "end to end"
_FIGURES = {"temp_bytes": "temp MiB", "flops": "GFLOP"}
_UNITS = {"temp_bytes": 2**20, "flops": 10**9}


class _Program(NamedTuple):
    """One train step: what it is lowered from, and which schedule it belongs to."""

    blocks: tuple[Any, ...]
    cached: bool


def training(
    networks: str = "cnn4,cnn8,cnn16,cnn32,vgg11,resnet18,resnet34",
    batch_sizes: str = "32,128,512",
    compile_only: str = "False",
) -> Iterator[list[dict[str, Any]]]:
    """Steps of all schedules on pictures of 32 × 32 × 3 and ten classes.

    Args:
        networks: their names, with commas.
        batch_sizes: samples of a step, with commas.
        compile_only: True for the compiler's figures alone.

    Raises:
        ValueError: an unknown network, a size that is none, neither True nor False.
    """
    names = networks.split(",")
    if unknown := [name for name in names if name not in _NETWORKS]:
        raise ValueError(
            f"--networks: got {unknown[0]!r}; must be some of {', '.join(_NETWORKS)}"
        )
    sizes = batch_sizes.split(",")
    if bad := [size for size in sizes if not (size.isdecimal() and int(size) > 0)]:
        raise ValueError(f"--batch_sizes: got {bad[0]!r}; must be integers from 1")
    if compile_only not in ("True", "False"):
        raise ValueError(f"--compile_only: got {compile_only!r}; must be True or False")
    return (
        _compare(name, int(size), timed=compile_only == "False")
        for name in names
        for size in sizes
    )


def _compare(name: str, batch_size: int, *, timed: bool) -> list[dict[str, Any]]:
    """The rows of one network and batch size."""
    schedules = _programs(name, batch_size)
    seen: dict[str, Any] = {}
    compiled = {
        schedule: [_compile(program, seen) for program in programs]
        for schedule, programs in schedules.items()
    }
    figures = {
        schedule: {
            # Stages in turn: never more than the largest is held, all of it is done.
            "temp_bytes": _over(max, [own["temp_bytes"] for _, own in steps]),
            "flops": _over(sum, [own["flops"] for _, own in steps]),
        }
        for schedule, steps in compiled.items()
    }
    times = None
    if timed:
        runs = {
            schedule: _run([step for step, _ in steps], schedules[schedule])
            for schedule, steps in compiled.items()
        }
        times = paired(runs, seconds=30.0)
    rows = []
    for schedule, own in figures.items():
        row = {"network": name, "batch": batch_size, "schedule": schedule}
        row["steps"] = len(compiled[schedule])
        for key, column in _FIGURES.items():
            base = figures[_BASELINE][key]
            known = own[key] is not None and base
            row[column] = own[key] / _UNITS[key] if known else None
            row[f"× {column}"] = own[key] / base if known else None
        rows.append(row)
    if times is not None:
        for row, more in zip(rows, compared(times, _BASELINE, {}), strict=True):
            row |= {name: value for name, value in more.items() if name != "what"}
    return rows


def _over(reduce: Callable[[list[Any]], Any], values: list[Any]) -> Any:
    return None if None in values else reduce(values)


def _programs(name: str, batch_size: int) -> dict[str, list[_Program]]:
    """Schedule → its train steps."""
    import jax.numpy as jnp
    import optax

    from dib_jax.tasks.classification import classification
    from dib_jax.training.build import find
    from dib_jax.training.steps import Block

    factory, options = _NETWORKS[name]
    stages = tuple(find("models", factory)(**options))
    local = find("objectives", "dib")()

    def block(first: int, last: int, **changes: Any) -> Block:
        fields = {
            "trunk": stages[:first],
            "stages": stages[first:last],
            "head": find("models.heads", "linear")(num_outputs=10),
            "stage": last - 1,
            "task": classification(num_classes=10),
            "objective": local,
            "optimizer": optax.sgd(0.1, momentum=0.9),
            "prepare": lambda images: images.astype(jnp.float32) / 255,
            "augment": None,
            "compute_dtype": jnp.float32,
            "batch_size": batch_size,
        }
        return Block(**{**fields, **changes})

    count = len(stages)
    whole = functools.partial(
        block, 0, count, objective=lambda signals: (signals.task_loss, {})
    )
    each = [block(index, index + 1) for index in range(count)]
    return {
        _BASELINE: [_Program((whole(),), cached=False)],
        "end to end, recomputed": [_Program((whole(remat=True),), cached=False)],
        "parallel": [_Program(tuple(each), cached=False)],
        "sequential, cached": [_Program((own,), cached=True) for own in each],
        "sequential, forward pass": [_Program((own,), cached=False) for own in each],
    }


def _arguments(program: _Program, make: Callable[..., Any]) -> tuple[Any, ...]:
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
                batch[TRUNK_OUTPUT] = apply_frozen(first.trunk, trunk, x)[-1]
                trunk = ()
        return states, trunk, batch

    keys = tuple(jax.random.key(block.stage) for block in program.blocks)
    return *make(build, jax.random.key(0)), keys


def _compile(program: _Program, seen: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The compiled step and the compiler's figures; equal programs only once."""
    import jax

    from dib_jax.training.steps import train_step
    from dib_jax.training.train import compiler_figures

    def step(states: Any, trunk: Any, batch: Any, keys: Any) -> Any:
        return train_step(program.blocks, states, trunk, batch, keys=keys)

    arguments = _arguments(program, jax.eval_shape)
    lowered = jax.jit(step, donate_argnums=0).lower(*arguments)
    text = lowered.as_text()
    if text not in seen:
        compiled = lowered.compile()
        seen[text] = compiled, compiler_figures(compiled)
    return seen[text]


def _run(steps: list[Any], programs: list[_Program]) -> Callable[[], None]:
    """One step of each program, on arrays that stay on the device."""
    import jax

    now = [
        list(_arguments(program, lambda build, key: jax.jit(build)(key)))
        for program in programs
    ]

    def run() -> None:
        for step, arguments in zip(steps, now, strict=True):
            arguments[0], _ = step(*arguments)
        jax.block_until_ready([arguments[0] for arguments in now])

    return run


def plot_ratios(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Temporaries, and times where there are any, of each schedule over the networks.

    Args:
        path: of the picture.
        rows: as `training` gives them.
    """
    from matplotlib.figure import Figure

    columns = [name for name in ("temp MiB", "ms") if name in rows[0]]
    sizes = list(dict.fromkeys(row["batch"] for row in rows))
    figure = Figure(
        figsize=(3.6 * len(sizes) + 2.4, 3.2 * len(columns)), layout="constrained"
    )
    panels = figure.subplots(len(columns), len(sizes), sharey="row", squeeze=False)
    for across, column in zip(panels, columns, strict=True):
        for axes, size in zip(across, sizes, strict=True):
            for name in dict.fromkeys(row["schedule"] for row in rows):
                points = [
                    (row["network"], row[column])
                    for row in rows
                    if (row["schedule"], row["batch"]) == (name, size)
                    and row[column] is not None
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), marker="o", ms=3, label=name)
            axes.set(title=f"batch {size}", yscale="log")
            axes.tick_params("x", rotation=60)
            axes.grid(alpha=0.3)
        across[0].set_ylabel(column)
    labelled = panels[0][0].get_legend_handles_labels()
    if labelled[0]:
        figure.legend(*labelled, loc="outside right center")
    figure.savefig(path, dpi=90)
