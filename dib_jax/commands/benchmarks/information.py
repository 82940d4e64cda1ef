"""Value and gradient of the information measures against what else there is."""

from collections.abc import Callable, Iterator
from typing import Any

from dib_jax.commands.benchmarks.timing import compared, paired

_ALPHAS = (1.01, 2.0)
_SIZES = (64, 128, 256, 512, 1024, 2048)
_FEATURES = 256


def information() -> Iterator[list[dict[str, Any]]]:
    """Value and gradient of the measures against other ways to get them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from dib_jax import information as info

    yield _labels()
    for n in _SIZES:
        draw = np.random.default_rng(0).normal
        x, t = (jnp.asarray(draw(size=(n, _FEATURES)), jnp.float32) for _ in "xt")
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
                total: Any = 0.0
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
            functions |= _torch(np.asarray(x), np.asarray(t), sigma, alpha)
            times = paired(functions)
            yield compared(times, "bare eigh", {"n": n, "alpha": alpha})


def _labels() -> list[dict[str, Any]]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from dib_jax import information as info

    n, classes = 512, 43
    x = jnp.asarray(np.random.default_rng(0).normal(size=(n, _FEATURES)), jnp.float32)
    gram = info.gaussian_gram(x, sigma=info.mean_bandwidth(x))
    labels: Any = np.arange(n, dtype=np.int32) % classes
    ways = {
        "dense joint entropy with labels": lambda a, y: info.joint_entropy(
            a, info.label_gram(y), alpha=1.01
        ),
        "label_joint_entropy, concrete": lambda a, y: info.label_joint_entropy(
            a, labels, alpha=1.01
        ),
        "label_joint_entropy, traced": lambda a, y: info.label_joint_entropy(
            a, y, alpha=1.01, num_classes=classes, class_size=12
        ),
    }

    def ready(way: Callable[..., Any]) -> Callable[[], Any]:
        compiled = jax.jit(jax.value_and_grad(way))
        return lambda: jax.block_until_ready(compiled(gram, labels))

    dense = next(iter(ways))
    rows = compared(
        paired({name: ready(way) for name, way in ways.items()}),
        dense,
        {"n": n, "alpha": 1.01},
    )
    for row in rows:
        row["what"] += " (ratio to dense)"
        row["× bare eigh"] = row.pop(f"× {dense}")
    return rows


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
