"""A convolution with both its gradients inside a loop: ours against other forms."""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.timing import compared, paired
from dib_jax.models.convolution import convolve, patches
from dib_jax.training.compilation import compiler_figures

NOTE = (
    "ms and GFLOP/s of forward and both gradients in a loop of two steps, one thread; "
    "temporaries are the compiler's own figures."
)
Layer = tuple[int, int, int, int, int]
Form = Callable[[jax.Array, jax.Array], jax.Array]

# Side, channels in and out, size of the kernel, stride.
_LAYERS = (
    (32, 3, 64, 3, 1),
    (32, 64, 64, 3, 1),
    (16, 128, 128, 3, 1),
    (8, 256, 256, 3, 1),
    (4, 512, 512, 3, 1),
    (32, 64, 128, 3, 2),
    (8, 256, 512, 3, 2),
    (16, 128, 128, 1, 1),
    (32, 64, 128, 1, 2),
    (28, 1, 32, 5, 1),
    (14, 32, 64, 5, 1),
)
_STEPS = 2  # A loop of one is none to the compiler.
# What JAX derives is 20 times slower on a CPU: larger batches would take minutes.
_DERIVED_UP_TO = 8


def measure(
    batch_sizes: tuple[int, ...] = (128, 100, 37, 1),
    dtypes: tuple[str, ...] = ("float32",),
) -> Iterator[list[table.Row]]:
    """Rates of the library's form, of patches alone, and of what JAX derives.

    Args:
        batch_sizes: pictures of a step.
        dtypes: of arrays and kernels.
    """
    return (
        _compare(layer, batch, dtype)
        for dtype in dtypes
        for batch in batch_sizes
        for layer in _LAYERS
    )


def _compare(layer: Layer, batch: int, dtype: str) -> list[table.Row]:
    side, inputs, outputs, size, stride = layer
    name = f"{side}×{side}×{inputs}→{outputs}, {size}×{size}/{stride}"
    forms = _forms(stride)
    if batch > _DERIVED_UP_TO:
        del forms["derived"]
    compiled = {
        what: _compiled(form, layer, batch, dtype) for what, form in forms.items()
    }
    arguments = _arguments(layer, batch, dtype, jax.random.normal)
    runs = {
        what: lambda step=step: jax.block_until_ready(step(*arguments))
        for what, step in compiled.items()
    }
    pixels = batch * (-(-side // stride)) ** 2
    flops = 3 * 2 * _STEPS * pixels * size**2 * inputs * outputs
    rows = compared(
        paired(runs, seconds=0.5),
        "patches",
        {"layer": name, "batch": batch, "dtype": dtype},
    )
    for row in rows:
        row["GFLOP/s"] = flops / row["ms"] / 1e6
        temporaries = compiler_figures(compiled[row["what"]])["temp_bytes"]
        row["temp MiB"] = (temporaries or 0) / 2**20
    return rows


def _forms(stride: int) -> dict[str, Form]:
    """Functions of (x, kernel) by name."""

    # Patches are cut again for the gradients, as a network of many layers needs it.
    @jax.checkpoint
    def by_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
        columns = patches(x, size=kernel.shape[0], stride=stride)
        return columns @ kernel.reshape(-1, kernel.shape[-1])

    def derived(x: jax.Array, kernel: jax.Array) -> jax.Array:
        margin = kernel.shape[0] // 2
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(margin, margin)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return {
        "ours": functools.partial(convolve, stride=stride),
        "patches": by_patches,
        "derived": derived,
    }


def _arguments(
    layer: Layer, batch: int, dtype: str, make: Callable[..., Any]
) -> tuple[Any, ...]:
    """Kernel, and for each step pictures and the cotangent of what comes of them."""
    side, inputs, outputs, size, stride = layer
    small = -(-side // stride)
    shapes = (
        (size, size, inputs, outputs),
        (_STEPS, batch, side, side, inputs),
        (_STEPS, batch, small, small, outputs),
    )
    return tuple(make(jax.random.key(0), shape, dtype) for shape in shapes)


def _compiled(form: Form, layer: Layer, batch: int, dtype: str) -> jax.stages.Compiled:
    def loop(kernel: Any, pictures: Any, cotangents: Any) -> Any:
        def step(kernel: Any, both: Any) -> Any:
            x, cotangent = both
            y, pull = jax.vjp(form, x, kernel)
            # The cotangent is made of y, so that no form may leave y out.
            of_x, of_kernel = pull(cotangent + y)
            return kernel + 1e-6 * of_kernel, of_x

        return jax.lax.scan(step, kernel, (pictures, cotangents))

    def shape(_: Any, shape: Any, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    return jax.jit(loop).lower(*_arguments(layer, batch, dtype, shape)).compile()


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Rates of each form, a group of bars for each layer at the largest batch.

    Args:
        path: of the picture.
        rows: as `measure` gives them.
    """
    largest = max(row["batch"] for row in rows)
    bars = [
        {**row, "network": row["layer"].replace(", ", "\n"), "algorithm": row["what"]}
        for row in rows
        if row["batch"] == largest and row["dtype"] == rows[0]["dtype"]
    ]
    table.plot_bars(path, bars, {"GFLOP/s": "GFLOP/s"})
