"""Time what the library computes, and write the table.

python -m experiments.benchmark NAME [--out=results] [--data_dir=DIR]

NAME is `information` (measures against what else there is, one thread) or `estimation`
(estimated entropies of large Gram matrices against exact ones).
"""

import json
import os
import pathlib
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments import command_line

_ALPHAS = (1.01, 2.0)
_SIZES = (64, 128, 256, 512, 1024, 2048)
_FEATURES = 256


def main(arguments: list[str]) -> None:
    """The command."""
    given = command_line.split_arguments(
        arguments, ("out", "data_dir"), rest="the name of a benchmark"
    )
    if given.help:
        print(__doc__.strip())
        return
    if len(given.rest) != 1 or given.rest[0] not in _BENCHMARKS:
        raise ValueError(
            f"give one benchmark of {', '.join(_BENCHMARKS)}, got "
            f"{' '.join(given.rest) or 'none'}"
        )
    name = given.rest[0]
    out = pathlib.Path(given.flags.get("out", "results")).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    # Before jax is imported: one thread, so that figures can be compared.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = (
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command = shlex.join(["python", "-m", "experiments.benchmark", *arguments])
    rows: list[dict[str, Any]] = []
    for more in _BENCHMARKS[name](given.flags.get("data_dir", "")):
        rows += more
        write(out, name, rows, command)  # each time, for the last sizes take minutes
        print("\n".join(map(_line, more)), flush=True)


def write(
    out: pathlib.Path, name: str, rows: list[dict[str, Any]], command: str
) -> None:
    """Write benchmark_NAME.json, .md and .png.

    Args:
        out: a folder that is there.
        name: of the benchmark.
        rows: one dict a line of the table, with a number or text a column.
        command: that makes it.
    """
    import jax
    import jaxlib

    hardware = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "load": [round(value, 1) for value in os.getloadavg()],
    }
    versions = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
    }
    if "torch" in sys.modules:
        versions["torch"] = sys.modules["torch"].__version__
    record = {
        "hardware": hardware,
        "versions": versions,
        "command": command,
        "rows": rows,
    }
    path = out / f"benchmark_{name}"
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    columns = list(rows[0])
    lines = [
        f"`{command}`",
        "",
        f"{hardware['processor']}, one thread; load {hardware['load'][0]} at its end. "
        + ", ".join(f"{key} {value}" for key, value in versions.items())
        + ". Times are medians, ratios medians of paired runs.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
    ]
    lines += map(_line, rows)
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _plot(path.with_suffix(".png"), rows)


def _line(row: Mapping[str, Any]) -> str:
    return "| " + " | ".join(map(_cell, row.values())) + " |"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.processor() or "unknown processor"


def _plot(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    series: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        label = f"{row['what']}" + (f", α = {row['alpha']}" if "alpha" in row else "")
        series.setdefault(label, []).append((row["n"], row["ms"]))
    for label, points in series.items():
        if len(points) > 1:
            axes.plot(*zip(*points, strict=True), marker="o", ms=3, lw=1, label=label)
    axes.set(xscale="log", yscale="log", xlabel="samples n", ylabel="milliseconds")
    if axes.lines:
        axes.legend(fontsize=5, loc="upper left")
    figure.savefig(path, dpi=110)


def paired(
    functions: Mapping[str, Callable[[], Any]], *, seconds: float = 4.0
) -> dict[str, list[float]]:
    """Run times in milliseconds, all functions in turn, after a run to compile each.

    Args:
        functions: by name; each returns when its result is there.
        seconds: for all of them, but at least one round.
    """
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    while not times[next(iter(times))] or time.perf_counter() < end:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def _rows(
    times: dict[str, list[float]], reference: str, fixed: dict[str, Any]
) -> list[dict[str, Any]]:
    return [
        {
            **fixed,
            "what": name,
            "ms": statistics.median(own),
            "least ms": min(own),
            f"× {reference}": statistics.median(
                a / b for a, b in zip(own, times[reference], strict=True)
            ),
        }
        for name, own in times.items()
    ]


def information(data_dir: str) -> Iterator[list[dict[str, Any]]]:
    """Value and gradient of the measures against other ways to get them.

    Args:
        data_dir: not used; the features are random.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from dib_jax import information as info

    yield _labels()
    for n in _SIZES:
        draw = np.random.default_rng(0).normal
        x, t = (draw(size=(n, _FEATURES)).astype(np.float32) for _ in range(2))
        sigma = float(info.mean_bandwidth(x))
        source = info.gaussian_gram(x, sigma=sigma)

        def ready(function: Callable[..., Any], *values: Any) -> Callable[[], Any]:
            compiled, values = jax.jit(function), tuple(map(jnp.asarray, values))
            return lambda: jax.block_until_ready(compiled(*values))

        def gram(t: Any, sigma: float = sigma) -> Any:
            return info.gaussian_gram(t, sigma=sigma)

        for alpha in _ALPHAS:

            def entropy(t: Any, alpha: float = alpha) -> Any:
                return info.renyi_entropy(gram(t), alpha=alpha)

            def shared(t: Any, x: Any, alpha: float = alpha) -> Any:
                return info.mutual_information(gram(x), gram(t), alpha=alpha)

            def naive(t: Any, x: Any, alpha: float = alpha) -> Any:
                source, features = gram(x), gram(t)
                joint = source * features
                joint = joint / jnp.trace(joint)
                total = 0.0
                for sign, one in ((1, source), (1, features), (-1, joint)):
                    values = jnp.abs(jnp.linalg.eigvalsh(one))
                    total += sign * jnp.log2(jnp.sum(values**alpha)) / (1 - alpha)
                return total

            functions = {
                "bare eigh": ready(jnp.linalg.eigh, source),
                "Gram, forward and backward": ready(
                    jax.value_and_grad(lambda t, a: jnp.vdot(gram(t), a)), t, source
                ),
                "entropy, value and gradient": ready(jax.value_and_grad(entropy), t),
                "I(X;T), value and gradient": ready(jax.value_and_grad(shared), t, x),
                "I(X;T), gradient alone": ready(jax.grad(shared), t, x),
                "naive I(X;T), value and gradient": ready(
                    jax.value_and_grad(naive), t, x
                ),
            }
            functions |= _torch(x, t, sigma, alpha)
            times = paired(functions)
            yield _rows(times, "bare eigh", {"n": n, "alpha": alpha})


def _labels() -> list[dict[str, Any]]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from dib_jax import information as info

    n, classes = 512, 43
    x = np.random.default_rng(0).normal(size=(n, _FEATURES)).astype(np.float32)
    gram = info.gaussian_gram(x, sigma=info.mean_bandwidth(x))
    labels = jnp.arange(n) % classes
    ways = {
        "dense joint entropy with labels": lambda a, y: info.joint_entropy(
            a, info.label_gram(y), alpha=1.01
        ),
        "label_joint_entropy, concrete": lambda a, y: info.label_joint_entropy(
            a, np.asarray(labels), alpha=1.01
        ),
        "label_joint_entropy, traced": lambda a, y: info.label_joint_entropy(
            a, y, alpha=1.01, num_classes=classes, class_size=12
        ),
    }

    def ready(way: Callable[..., Any]) -> Callable[[], Any]:
        compiled = jax.jit(jax.value_and_grad(way))
        return lambda: jax.block_until_ready(compiled(gram, labels))

    dense = next(iter(ways))
    times = paired({name: ready(way) for name, way in ways.items()})
    rows = _rows(times, dense, {"n": n, "alpha": 1.01})
    return [
        {
            "n": n,
            "alpha": 1.01,
            "what": f"{row['what']} (ratio to dense)",
            "ms": row["ms"],
            "least ms": row["least ms"],
            "× bare eigh": row[f"× {dense}"],
        }
        for row in rows
    ]


def _torch(x: Any, t: Any, sigma: float, alpha: float) -> dict[str, Callable[[], Any]]:
    """The PyTorch algorithm, with distances by broadcasting and by products."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)

    def entropy(gram: Any) -> Any:
        values = torch.linalg.eigvalsh(gram).clamp(min=0)
        return torch.log2(torch.sum(values**alpha)) / (1 - alpha)

    def by_broadcasting(a: Any) -> Any:
        return ((a[:, None] - a[None]) ** 2).sum(-1)

    def by_products(a: Any) -> Any:
        squares = (a * a).sum(1)
        return (squares[:, None] + squares[None] - 2 * a @ a.T).clamp(min=0)

    def run(distances: Callable[[Any], Any], *, value: bool) -> Callable[[], Any]:
        def step() -> Any:
            source = torch.from_numpy(x)
            features = torch.from_numpy(t).requires_grad_()
            grams = [
                torch.exp(-distances(a) / (2 * sigma**2)) / len(a)
                for a in (source, features)
            ]
            joint = grams[0] * grams[1]
            terms = entropy(grams[1]) - entropy(joint / torch.trace(joint))
            loss = terms + entropy(grams[0]) if value else terms
            return torch.autograd.grad(loss, features)[0]

        return step

    found = {"PyTorch I(X;T), fast distances": run(by_products, value=True)}
    if len(x) <= 512:  # it holds n² d numbers
        found["PyTorch I(X;T), as shipped"] = run(by_broadcasting, value=True)
    return found


def estimation(data_dir: str) -> Iterator[list[dict[str, Any]]]:
    """Estimated entropies against exact ones on pixels.

    Args:
        data_dir: holds cifar10; "" for shifted digits, which are embedded.
    """
    import jax

    from dib_jax import information as info

    key = jax.random.key(0)

    def bits(gram: Any) -> Any:
        return info.estimated_renyi_entropy(gram, alpha=1.01, key=key).bits

    for n in (1024, 2048, 4096, 8192):
        x = _pixels(data_dir, n)
        sigma = info.mean_bandwidth(x)
        gram = jax.block_until_ready(info.gaussian_gram(x, sigma=sigma))
        exact = jax.jit(lambda a: info.renyi_entropy(a, alpha=1.01))
        guess = jax.jit(lambda a: info.estimated_renyi_entropy(a, alpha=1.01, key=key))

        runs = {
            "exact value": exact,
            "estimated value": guess,
            "estimated value and gradient": jax.jit(jax.value_and_grad(bits)),
        }
        compiled = {name: f.lower(gram).compile() for name, f in runs.items()}
        results, times = {}, {}
        for name, function in compiled.items():
            start = time.perf_counter()
            results[name] = jax.block_until_ready(function(gram))
            times[name] = 1e3 * (time.perf_counter() - start)
        truth = float(results["exact value"])
        estimate = results["estimated value"]
        rows = []
        for name, ms in times.items():
            value = truth if name == "exact value" else float(estimate.bits)
            rows.append(
                {
                    "n": n,
                    "what": name,
                    "ms": ms,
                    "× exact": ms / times["exact value"],
                    "bits": value,
                    "error in %": 100 * abs(value / truth - 1),
                    "stated error in %": 0.0
                    if name == "exact value"
                    else 100 * float(estimate.error) / float(estimate.bits),
                }
            )
        yield rows


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


_BENCHMARKS: dict[str, Callable[[str], Iterator[list[dict[str, Any]]]]] = {
    "information": information,
    "estimation": estimation,
}

if __name__ == "__main__":
    sys.exit(command_line.main(main, command="experiments.benchmark"))
