"""Estimated entropies of large Gram matrices against exact ones."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any


def estimation(data_dir: str = "") -> Iterator[list[dict[str, Any]]]:
    """Estimated entropies against exact ones on pixels.

    Args:
        data_dir: holds cifar10; "" for shifted digits, which are embedded.
    """
    import jax

    from dib_jax import information as info

    keys = jax.random.split(jax.random.key(0), 3)

    def guess(gram: Any, key: Any) -> Any:
        return info.estimated_renyi_entropy(gram, alpha=1.01, key=key)

    def bits(gram: Any, key: Any) -> Any:
        return guess(gram, key).bits

    for n in (1024, 2048, 4096, 8192):
        x = _pixels(data_dir, n)
        gram = jax.jit(info.gaussian_gram)(x, sigma=info.mean_bandwidth(x))
        jitted = jax.jit(lambda a: info.renyi_entropy(a, alpha=1.01))
        exact = jitted.lower(gram).compile()
        ways = {
            "estimated value": jax.jit(guess),
            "estimated value and gradient": jax.jit(jax.value_and_grad(bits)),
        }
        compiled = {
            name: way.lower(gram, keys[0]).compile() for name, way in ways.items()
        }
        times: dict[str, list[float]] = {"exact value": [], **{w: [] for w in ways}}
        truth, estimates = 0.0, []
        for key in keys:
            # The exact value of 8192 samples takes a minute: once is enough.
            if n <= 4096 or not times["exact value"]:
                ms, value = _timed(exact, gram)
                times["exact value"].append(ms)
                truth = float(value)
            for name, way in compiled.items():
                ms, value = _timed(way, gram, key)
                times[name].append(ms)
                if name == "estimated value":
                    estimates.append(value)
        errors = [abs(float(e.bits) / truth - 1) for e in estimates]
        stated = [float(e.error / e.bits) for e in estimates]
        base = statistics.median(times["exact value"])
        yield [
            {
                "n": n,
                "what": name,
                "ms": statistics.median(own),
                "× exact": statistics.median(own) / base,
                "bits": truth,
                "largest error in %": 0.0 if index == 0 else 100 * max(errors),
                "mean stated error in %": 0.0
                if index == 0
                else 100 * statistics.mean(stated),
                "rounds": len(own),
            }
            for index, (name, own) in enumerate(times.items())
        ]


def _timed(function: Callable[..., Any], *values: Any) -> tuple[float, Any]:
    import jax

    start = time.perf_counter()
    result = jax.block_until_ready(function(*values))
    return 1e3 * (time.perf_counter() - start), result


def _pixels(data_dir: str, n: int) -> Any:
    import numpy as np

    if data_dir:
        from dib_jax import data

        images = data.load("cifar10", data_dir=data_dir).train["images"][:n]
        return images.reshape(n, -1).astype(np.float32) / 255
    from sklearn.datasets import load_digits

    images = load_digits().images.astype(np.float32) / 16
    shifts = [(i, j) for i in (0, 1, -1) for j in (0, 1, -1)]
    moved = [np.roll(images, shift, axis=(1, 2)) for shift in shifts]
    return np.concatenate(moved)[:n].reshape(n, -1)
