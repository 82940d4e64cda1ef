"""Estimated entropies of large Gram matrices against exact ones."""

import functools
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from dib_jax import data
from dib_jax import information as info
from dib_jax.commands.benchmarks import table

_ALPHA = 1.01
NOTE, plot = table.TIMES, table.plot_times


def measure(data_dir: str = "") -> Iterator[list[table.Row]]:
    """Estimated entropies against exact ones on pixels.

    Args:
        data_dir: holds cifar10; "" for shifted digits, which are embedded.
    """
    keys = jax.random.split(jax.random.key(0), 3)

    def guess(gram: Any, key: Any) -> Any:
        return info.estimated_renyi_entropy(gram, alpha=_ALPHA, key=key)

    def bits(gram: Any, key: Any) -> Any:
        return guess(gram, key).bits

    exact = jax.jit(functools.partial(info.renyi_entropy, alpha=_ALPHA))
    ways = {
        "estimated value": jax.jit(guess),
        "estimated value and gradient": jax.jit(jax.value_and_grad(bits)),
    }
    for n in (1024, 2048, 4096, 8192):
        x = _pixels(data_dir, n)
        gram = jax.jit(info.gaussian_gram)(x, sigma=info.mean_bandwidth(x))
        # The exact value of 8192 samples takes a minute: once is enough.
        times, (truth, *_) = _timed(exact, [(gram,)] * (3 if n <= 4096 else 1))
        base = statistics.median(times)
        about = {"bits": float(truth)}
        yield [_row(n, "exact value", times, base, about)]
        for name, way in ways.items():
            times, values = _timed(way, [(gram, key) for key in keys])
            if name == "estimated value":
                errors = [abs(float(value.bits / truth) - 1) for value in values]
                stated = [float(value.error / value.bits) for value in values]
                about["largest error in %"] = 100 * max(errors)
                about["mean stated error in %"] = 100 * statistics.mean(stated)
            yield [_row(n, name, times, base, about)]


def _row(
    n: int, what: str, times: list[float], base: float, about: table.Row
) -> table.Row:
    ms = statistics.median(times)
    row = {"n": n, "what": what, "ms": ms, "× exact": ms / base}
    return {**row, **about, "rounds": len(times)}


def _timed(
    function: Any, calls: Sequence[tuple[Any, ...]]
) -> tuple[list[float], list[Any]]:
    """Milliseconds and result of each call of a jitted function, once compiled."""
    compiled = function.lower(*calls[0]).compile()
    times, results = [], []
    for arguments in calls:
        start = time.perf_counter()
        results.append(jax.block_until_ready(compiled(*arguments)))
        times.append(1e3 * (time.perf_counter() - start))
    return times, results


def _pixels(data_dir: str, n: int) -> Any:
    if data_dir:
        images = data.load("cifar10", data_dir=data_dir).train["images"][:n]
        return images.reshape(n, -1).astype(np.float32) / 255
    from sklearn.datasets import load_digits  # a slow import

    images = load_digits().images.astype(np.float32) / 16
    shifts = [(i, j) for i in (0, 1, -1) for j in (0, 1, -1)]
    moved = [np.roll(images, shift, axis=(1, 2)) for shift in shifts]
    return np.concatenate(moved)[:n].reshape(n, -1)
