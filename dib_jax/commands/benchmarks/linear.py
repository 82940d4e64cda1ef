"""Deep linear networks, a layer at a time: what width, depth and the rate do.

All in float64. An excess is a loss less the least one, as a share of the excess at the
start; "enough" is an excess of 10⁻⁴. Work is counted in updates of one layer, and in
the compiler's FLOPs of a sweep; for one layer alone 4 × outputs × inputs × columns,
without the residual that a loop could carry.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dib_jax import linear
from dib_jax.commands.benchmarks import table

NOTE = (
    "Excess: loss less the least one, as a share of that at the start. Updates: of one "
    "layer, until the excess is 1e-4, median of the seeds; × updates, × FLOPs: how "
    "many times what one layer needs; excess at equal FLOPs: where one layer has 1e-4. "
    "All in float64."
)
_ENOUGH = 1e-4
_INPUTS, _CONDITION = 32, 30.0
# Powers of the input's singular values that the target's coefficients follow.
_POWERS = (-2.0, 0.0)
_SEEDS = 3
_DEPTHS = (2, 5)
_OUTPUTS = (1, 4, 32)
_MOST = 2000
# Of plain gradient descent, which is shown with the best of them.
_RATES = (1.9, 1.0, 0.5, 0.25)


def measure(quick: bool = False) -> Iterator[list[table.Row]]:
    """The claims, the map of depth, and the digits of scikit-learn.

    Args:
        quick: with fewer sizes, for a look of a minute.
    """
    yield _in_float64(_widths, (64, 128) if quick else (64, 128, 256, 512))
    yield _in_float64(_one_sweep)
    yield _in_float64(_rates)
    for outputs in (1,) if quick else _OUTPUTS:
        yield _in_float64(_map, outputs, (2,) if quick else _DEPTHS)
    for name in _DATA[1:] if quick else _DATA:
        yield _in_float64(_data, name, (2,) if quick else _DEPTHS)


def _in_float64(function: Callable[..., Any], *arguments: Any) -> Any:
    with jax.enable_x64(True):
        return function(*arguments)


def _widths(widths: Sequence[int]) -> list[table.Row]:
    """The losses of 10 sweeps over 5 layers on the digits, by width."""
    x, y = _columns("digits, classes")
    curves = {}
    for width in widths:
        sizes = (len(x), *[width] * 4, len(y))
        weights = linear.orthogonal_like(jax.random.key(0), sizes)
        curves[width] = np.ravel(linear.train(weights, x, y, sweeps=10)[1])
    first = curves[widths[0]]
    return [
        {
            "what": "digits, classes, 5 layers, 10 sweeps",
            "width": width,
            "last loss": f"{curve[-1]:.12f}",
            f"largest difference to {widths[0]}": float(np.abs(curve - first).max()),
        }
        for width, curve in curves.items()
    ]


def _one_sweep() -> list[table.Row]:
    """The loss above the least one after one sweep of 1 to 20 layers."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (64, 600)) / 600**0.5
    target = jax.random.normal(keys[1], (10, 64))
    y = target @ x + 0.1 * jax.random.normal(keys[2], (10, 600))
    problems = {
        "Gaussian, 600 samples": (x, y),
        "Gaussian, 600 samples, first output alone": (x, y[:1]),
        "digits, classes": _columns("digits, classes"),
    }
    rows = []
    for name, (x, y) in problems.items():
        least = linear.loss((linear.solve(x, y),), x, y)
        for start in linear.STARTS:
            excess = []
            for depth in (1, 2, 5, 10, 20):
                sizes = _sizes(len(x), len(y), depth)
                weights = linear.orthogonal_like(jax.random.key(1), sizes)
                last = linear.sweep(weights, x, y, start=start)[1][-1]
                excess.append(float(last - least))
            rows.append(
                {
                    "what": f"one sweep, {name}",
                    "inputs": len(x),
                    "outputs": len(y),
                    "from": start,
                    "least loss": float(least),
                    "above it, 1 layer": excess[0],
                    "5 layers": excess[2],
                    "20 layers": excess[-1],
                    "falls with depth": str(excess == sorted(excess, reverse=True)),
                }
            )
    return rows


def _rates() -> list[table.Row]:
    """What a step of the best rate does to the loss of 1,000 random problems."""
    ratios = []
    for sizes in ((3, 2), (4, 6, 3), (2, 5, 3, 4), (6, 4, 2, 5, 1), (5, 5, 5, 5, 5, 5)):
        keys = jax.random.split(jax.random.key(len(sizes)), 200)
        ratios.append(np.asarray(jax.jit(jax.vmap(_ratios(sizes)))(keys)))
    worst = max(float(each.max()) for each in ratios)
    steps = sum(each.size for each in ratios)
    return [
        {
            "what": f"{steps} steps of the best rate, 1000 random problems",
            "raised the loss": sum(int((each > 1).sum()) for each in ratios),
            "largest loss after ÷ before": worst,
        }
    ]


def _ratios(sizes: Sequence[int]) -> Callable[[jax.Array], jax.Array]:
    """A key → the loss after ÷ before of each layer's step, in a problem of its own."""

    def of(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(sizes) + 2)
        spread = 10 ** jax.random.uniform(keys[0], (2,), minval=-2, maxval=2)
        x = spread[0] * jax.random.normal(keys[1], (sizes[0], 8))
        y = jax.random.normal(keys[2], (sizes[-1], 8))
        weights = tuple(
            spread[1] * jax.random.normal(key, (after, before))
            for key, before, after in zip(keys[3:], sizes, sizes[1:], strict=False)
        )
        before = linear.loss(weights, x, y)
        after = [
            linear.loss(linear.step(weights, layer, x, y), x, y)
            for layer in range(len(weights))
        ]
        return jnp.stack(after) / before

    return of


def _map(outputs: int, depths: Sequence[int]) -> list[table.Row]:
    """Work until enough, by depth, on inputs of singular values from 1 to 1/30."""
    seeds = jax.random.split(jax.random.key(outputs), _SEEDS)
    found: dict[float, list[table.Row]] = {power: [] for power in _POWERS}
    for depth, start in _networks(depths):
        way = functools.partial(_sweep, start=start)

        def drawn(
            key: jax.Array, power: jax.Array, depth: int = depth, way: Any = way
        ) -> jax.Array:
            first, second = jax.random.split(key)
            return _curve(second, *_drawn(first, outputs, power), depth, way)

        both = jax.vmap(jax.vmap(drawn, (0, None)), (None, 0))
        curves = np.asarray(jax.jit(both)(seeds, jnp.asarray(_POWERS)))
        flops = _flops((_INPUTS, outputs, _INPUTS), depth, way)
        for power, some in zip(_POWERS, curves, strict=True):
            row = {"what": "map", "power": power, "inputs": _INPUTS, "outputs": outputs}
            row |= {"depth": depth, "from": start, "flops": flops, "curves": some}
            found[power].append(row)
    return [row for rows in found.values() for row in _beside_the_first(rows)]


def _drawn(
    key: jax.Array, outputs: int, power: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """X and Y = W X; W's coefficients follow a power of X's singular values."""
    left, right, target = jax.random.split(key, 3)
    size = (_INPUTS, _INPUTS)
    u, v = (jnp.linalg.qr(jax.random.normal(key, size))[0] for key in (left, right))
    spectrum = jnp.geomspace(1, 1 / _CONDITION, _INPUTS)
    x = (u * spectrum) @ v
    solution = (jax.random.normal(target, (outputs, _INPUTS)) * spectrum**power) @ u.T
    # Rows of norm 1 in the mean, as those of the start.
    return x, (solution * outputs**0.5 / jnp.linalg.norm(solution)) @ x


def _data(name: str, depths: Sequence[int]) -> list[table.Row]:
    """Work until enough on a data set, by depth, and by other ways to train."""
    x, y = _columns(name)
    keys = jax.random.split(jax.random.key(0), _SEEDS)

    def row(depth: int, way: Any, rates: Any = (1.0,), **about: Any) -> table.Row:
        def drawn(key: jax.Array, rate: jax.Array) -> jax.Array:
            return _curve(key, x, y, depth, functools.partial(way, rate=rate))

        both = jax.jit(jax.vmap(jax.vmap(drawn, (0, None)), (None, 0)))
        curves = np.asarray(both(keys, jnp.asarray(rates)))
        # The rate with the lowest end, which is not NaN as those that diverge are.
        best = np.nanargmin(np.median(curves[:, :, -1], axis=1))
        one = functools.partial(way, rate=1.0)
        flops = _flops((len(x), len(y), x.shape[1]), depth, one)
        sizes = {"inputs": len(x), "outputs": len(y), "depth": depth}
        return {"what": name, **sizes, **about, "flops": flops, "curves": curves[best]}

    rows = [
        row(depth, functools.partial(_sweep, start=start), **{"from": start})
        for depth, start in _networks(depths)
    ]
    rows.append(row(1, _relaxed, (0.9,), how="0.9 of the rate"))
    rows += [row(depth, _descend, _RATES, how="descent") for depth in (1, depths[0])]
    return _beside_the_first(rows)


def _networks(depths: Sequence[int]) -> list[tuple[int, str]]:
    """One layer first: what all others are compared with."""
    return [(1, "top"), *((depth, end) for depth in depths for end in linear.STARTS)]


# (weights, x, y) → the weights after one update or several, and the loss after each.
Way = Callable[[Any, jax.Array, jax.Array], tuple[Any, jax.Array]]


def _sweep(
    weights: Any, x: jax.Array, y: jax.Array, *, start: str, rate: Any = 1.0
) -> tuple[Any, jax.Array]:
    del rate  # each step has its own
    return linear.sweep(weights, x, y, start=start)


def _relaxed(
    weights: Any, x: jax.Array, y: jax.Array, *, rate: Any
) -> tuple[Any, jax.Array]:
    """An update of the first layer by a share of the best rate."""
    rate = rate * linear.optimal_rate(weights, 0, x, y)
    weights = linear.step(weights, 0, x, y, rate=rate)
    return weights, linear.loss(weights, x, y)[None]


def _descend(
    weights: Any, x: jax.Array, y: jax.Array, *, rate: Any
) -> tuple[Any, jax.Array]:
    """An update of all layers at once, which counts as one."""
    weights = linear.descend(weights, x, y, rate=rate)
    return weights, linear.loss(weights, x, y)[None]


def _sizes(inputs: int, outputs: int, depth: int) -> tuple[int, ...]:
    return (inputs, *[max(inputs, outputs)] * (depth - 1), outputs)


def _curve(
    key: jax.Array, x: jax.Array, y: jax.Array, depth: int, way: Way
) -> jax.Array:
    """The excess after each update, where the least loss is 0, for X is invertible."""
    weights = linear.orthogonal_like(key, _sizes(len(x), len(y), depth))
    count = _MOST // len(jax.eval_shape(way, weights, x, y)[1])
    losses = jax.lax.scan(lambda now, _: way(now, x, y), weights, length=count)[1]
    return losses.ravel() / linear.loss(weights, x, y)


def _flops(sizes: tuple[int, int, int], depth: int, way: Way) -> float:
    """Of an update, in the mean over those that a way makes at once."""
    inputs, outputs, columns = sizes
    if depth == 1:
        return 4.0 * outputs * inputs * columns
    rows = _sizes(inputs, outputs, depth)
    made = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float64)
    weights = tuple(made((b, a)) for a, b in itertools.pairwise(rows))
    arguments = (weights, made((inputs, columns)), made((outputs, columns)))
    compiled = jax.jit(lambda *all: way(*all)[0]).lower(*arguments).compile()
    analysis = compiled.cost_analysis() or {}
    return analysis["flops"] / len(jax.eval_shape(way, *arguments)[1])


def _beside_the_first(rows: list[table.Row]) -> list[table.Row]:
    """Rows of curves as rows of the table, with the first row's work as the unit."""
    for row in rows:
        reached = row["curves"] <= _ENOUGH
        row["needed"] = np.where(reached.any(1), reached.argmax(1) + 1, np.inf)
    one = rows[0]
    made = []
    for row in rows:
        price = row["flops"] / one["flops"]
        with np.errstate(invalid="ignore"):  # neither is there in time
            ratios = row["needed"] / one["needed"]
        # After as many updates as cost what the first's did; none: as at the start.
        counts = np.minimum(one["needed"] / price, row["curves"].shape[1])
        there = [
            curve[int(count) - 1] if count >= 1 else 1.0
            for count, curve in zip(counts, row["curves"], strict=True)
        ]
        hidden = ("needed", "curves", "flops")
        made.append(
            {
                **{name: row[name] for name in row if name not in hidden},
                "kFLOP an update": row["flops"] / 1e3,
                "updates": _shown(row["needed"]),
                "× updates": _shown(ratios),
                "× FLOPs": _shown(ratios * price),
                "least × FLOPs": _shown(ratios.min() * price),
                "most × FLOPs": _shown(ratios.max() * price),
                "excess at equal FLOPs": _shown(np.asarray(there)),
            }
        )
    return made


def _shown(values: np.ndarray) -> float | None:
    """The median; None where it is not reached."""
    middle = float(np.median(values))
    return middle if np.isfinite(middle) else None


_DATA = ("digits, classes", "digits, even or odd")


def _columns(name: str) -> tuple[jax.Array, jax.Array]:
    """X and Y of a data set, standardised, X invertible with largest singular value 1.

    With X = U S Vᵀ the loss is that of (S, Y V) and a number that no network changes,
    the first layer turned by U. So the steps are the same.
    """
    from sklearn import datasets  # a slow import

    source, _, target = name.partition(", ")
    bunch = getattr(datasets, f"load_{source}")()
    features, targets = np.asarray(bunch.data, float), np.asarray(bunch.target)
    if target == "classes":
        targets = np.eye(int(targets.max()) + 1)[targets]
    elif target:
        targets = targets % 2
    x, y = (_standard(each.reshape(len(each), -1)).T for each in (features, targets))
    _, s, vt = np.linalg.svd(x, full_matrices=False)
    kept = s > 1e-10 * s[0]
    return jnp.diag(s[kept] / s[0]), jnp.asarray(y @ vt[kept].T / s[0])


def _standard(columns: np.ndarray) -> np.ndarray:
    deviation = columns.std(axis=0)
    return (columns - columns.mean(axis=0)) / np.where(deviation > 0, deviation, 1)


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """The map: how many times the work of one layer, above by updates, below by FLOPs.

    Args:
        path: of the picture.
        rows: of `measure`; those of other kinds are left out.
    """
    rows = [row for row in rows if row["what"] == "map" and row["depth"] > 1]
    if not rows:
        return
    outputs = sorted({row["outputs"] for row in rows})
    names = list(dict.fromkeys((row["depth"], row["from"]) for row in rows))
    columns = ("× updates", "× FLOPs")
    figure = Figure(figsize=(3.1 * len(_POWERS) + 1, 6.4), layout="constrained")
    panels = figure.subplots(2, len(_POWERS), sharex=True, sharey=True, squeeze=False)
    for column, line in zip(columns, panels, strict=True):
        for power, axes in zip(_POWERS, line, strict=True):
            grid = np.full((len(names), len(outputs)), np.nan)
            for row in rows:
                if row["power"] == power:
                    place = names.index((row["depth"], row["from"]))
                    grid[place, outputs.index(row["outputs"])] = row[column] or np.inf
            shade = np.clip(np.log2(grid), -4, 4)
            image = axes.imshow(shade, cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto")
            for (y, x), value in np.ndenumerate(grid):
                if not np.isnan(value):
                    text = f"{value:.2g}" if np.isfinite(value) else "–"
                    color = "white" if abs(shade[y, x]) > 2.5 else "black"
                    axes.text(x, y, text, ha="center", va="center", size=7, color=color)
            axes.set_xticks(range(len(outputs)), list(map(str, outputs)))
            axes.set_yticks(range(len(names)), [f"{n} from the {s}" for n, s in names])
            axes.set_title(f"{column}, W* ~ s^{power:g}", size=9)
    for axes in panels[1]:
        axes.set_xlabel("outputs of 32 inputs")
    bar = figure.colorbar(image, ax=panels, label="times the work of one layer")
    bar.set_ticks([-4, -2, 0, 2, 4], labels=["1/16", "1/4", "1", "4", "16"])
    figure.savefig(path, dpi=90)
