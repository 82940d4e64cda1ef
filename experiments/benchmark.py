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
        + ". ms: median over rounds, in which all that is compared runs in turn; "
        "×: how many times what it is compared with.",
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

    # A panel for each order, and one colour for each contender in all of them.
    orders = list(dict.fromkeys(row.get("alpha") for row in rows))
    names = [
        name
        for name in dict.fromkeys(row["what"] for row in rows)
        if len({row["n"] for row in rows if row["what"] == name}) > 1
    ]
    figure = Figure(figsize=(3.6 * len(orders) + 2.8, 4), layout="constrained")
    panels = figure.subplots(1, len(orders), sharey=True, squeeze=False)[0]
    for axes, order in zip(panels, orders, strict=True):
        own = [row for row in rows if row.get("alpha") == order]
        for index, name in enumerate(names):
            points = [(row["n"], row["ms"]) for row in own if row["what"] == name]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=f"C{index}",
                    marker="o",
                    ms=3,
                    lw=1,
                    label=name,
                )
        sizes = sorted({row["n"] for row in own})
        axes.set(xscale="log", yscale="log", xlabel="samples n")
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if order is not None:
            axes.set_title(f"α = {order:g}")
    panels[0].set_ylabel("milliseconds, one thread")
    if panels[0].lines:
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside right center"
        )
    figure.savefig(path, dpi=90)


def paired(
    functions: Mapping[str, Callable[[], Any]], *, seconds: float = 4.0
) -> dict[str, list[float]]:
    """Run times in milliseconds, all functions in turn, after a run to compile each.

    Args:
        functions: by name; each returns when its result is there.
        seconds: for all of them, but at least three rounds.
    """
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    while len(times[next(iter(times))]) < 3 or time.perf_counter() < end:
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
            "rounds": len(own),
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
            "rounds": row["rounds"],
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


_BENCHMARKS: dict[str, Callable[[str], Iterator[list[dict[str, Any]]]]] = {
    "information": information,
    "estimation": estimation,
}

if __name__ == "__main__":
    sys.exit(command_line.main(main, command="experiments.benchmark"))
