"""Value and gradient of the information measures against what else there is."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax import information as info
from dib_jax.commands.benchmarks import table
from dib_jax.commands.benchmarks.timing import compared, paired

NOTE, plot = table.TIMES, table.plot_times

_ALPHAS = (1.01, 2.0)
_SIZES = (64, 128, 256, 512, 1024, 2048)
_FEATURES = 256
Call = Callable[[], Any]


def measure() -> Iterator[list[table.Row]]:
    """Value and gradient of the measures against other ways to get them."""
    yield _labels()
    for n in _SIZES:
        x, t = _features(n, 2)
        for alpha in _ALPHAS:
            times = paired(_contenders(x, t, alpha))
            yield compared(times, "bare eigh", {"n": n, "alpha": alpha})


def _features(n: int, sets: int) -> Any:
    draw = np.random.default_rng(0).normal
    return jnp.asarray(draw(size=(sets, n, _FEATURES)), jnp.float32)


def _ready(function: Callable[..., Any], *values: Any) -> Call:
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*values))


def _contenders(x: Any, t: Any, alpha: float) -> dict[str, Call]:
    sigma = float(info.mean_bandwidth(x))
    gram = functools.partial(info.gaussian_gram, sigma=sigma)
    source = gram(x)

    def entropy(t: Any) -> Any:
        return info.renyi_entropy(gram(t), alpha=alpha)

    def shared(t: Any, x: Any) -> Any:
        return info.mutual_information(gram(x), gram(t), alpha=alpha)

    def naive(t: Any, x: Any) -> Any:
        joint = gram(x) * gram(t)
        total: Any = 0.0
        for sign, one in ((1, gram(x)), (1, gram(t)), (-1, joint / jnp.trace(joint))):
            values = jnp.abs(jnp.linalg.eigvalsh(one))
            total += sign * jnp.log2(jnp.sum(values**alpha)) / (1 - alpha)
        return total

    def product(t: Any, a: Any) -> Any:
        return jnp.vdot(gram(t), a)

    value_and_grad = jax.value_and_grad
    return {
        "bare eigh": _ready(jnp.linalg.eigh, source),
        "Gram, forward and backward": _ready(value_and_grad(product), t, source),
        "entropy, value and gradient": _ready(value_and_grad(entropy), t),
        "I(X;T), value and gradient": _ready(value_and_grad(shared), t, x),
        "I(X;T), gradient alone": _ready(jax.grad(shared), t, x),
        "naive I(X;T), value and gradient": _ready(value_and_grad(naive), t, x),
        **_torch(np.asarray(x), np.asarray(t), sigma, alpha),
    }


def _labels() -> list[table.Row]:
    n, classes, alpha = 512, 43, 1.01
    (x,) = _features(n, 1)
    gram = info.gaussian_gram(x, sigma=info.mean_bandwidth(x))
    labels: Any = np.arange(n, dtype=np.int32) % classes
    joint = functools.partial(info.label_joint_entropy, alpha=alpha)
    dense = "dense joint entropy with labels"
    ways: dict[str, Callable[[Any, Any], Any]] = {
        dense: lambda a, y: info.joint_entropy(a, info.label_gram(y), alpha=alpha),
        "label_joint_entropy, concrete": lambda a, y: joint(a, labels),
        "label_joint_entropy, traced": functools.partial(
            joint, num_classes=classes, class_size=12
        ),
    }
    grads = {name: jax.value_and_grad(way) for name, way in ways.items()}
    times = paired({name: _ready(one, gram, labels) for name, one in grads.items()})
    rows = compared(times, dense, {"n": n, "alpha": alpha})
    for row in rows:
        row["what"] += " (ratio to dense)"
        row["× bare eigh"] = row.pop(f"× {dense}")
    return rows


def _torch(x: Any, t: Any, sigma: float, alpha: float) -> dict[str, Call]:
    """The PyTorch algorithm, with distances by broadcasting and by products."""
    try:
        import torch  # late: nothing else here needs it
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

    def run(distances: Callable[[Any], Any]) -> Call:
        def step() -> Any:
            source = torch.from_numpy(x)
            features = torch.from_numpy(t).requires_grad_()
            a, b = (
                torch.exp(-distances(one) / (2 * sigma**2)) / len(one)
                for one in (source, features)
            )
            joint = a * b
            loss = entropy(a) + entropy(b) - entropy(joint / torch.trace(joint))
            return torch.autograd.grad(loss, features)[0]

        return step

    found = {"PyTorch I(X;T), fast distances": run(by_products)}
    if len(x) <= 512:  # it holds n² d numbers
        found["PyTorch I(X;T), as shipped"] = run(by_broadcasting)
    return found
