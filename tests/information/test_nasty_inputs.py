"""Inputs on which formulas break × all measures × (value, gradient, tangent)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once

N = 8
WHAT = ("value", "gradient", "tangent")
ORDERS = (
    1e-40,
    0.3,
    0.9,
    1.0,
    1 + 1e-6,
    1.01,
    1.5,
    2.0,
    3.0,
    4.0,
    40.0,
    1e300,
    math.inf,
)
POINTS = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)

INPUTS = {
    "ordinary": POINTS,
    "all samples alike": np.tile(POINTS[:1], (N, 1)),
    "zeros": np.zeros((N, 3)),
    "each sample twice": np.repeat(POINTS[: N // 2], 2, axis=0),
    "two heaps": np.repeat([[0.0, 0, 0], [9e9, 0, 0]], N // 2, axis=0),
    "a constant feature": POINTS * [1, 0, 1] + [0, 7, 0],
    "on a line": POINTS[:, :1] * [1, 2, 3],
    "far from the origin": POINTS + 1e4,
    "one sample far away": POINTS + 1e12 * np.eye(N)[:, :1],
    "almost alike": POINTS[:1] + 1e-6 * POINTS,
    "scale 1e-30": POINTS * 1e-30,
    "scale 1e-20": POINTS * 1e-20,
    "scale 1e-10": POINTS * 1e-10,
    "scale 1e10": POINTS * 1e10,
    "scale 1e20": POINTS * 1e20,
    "scale 1e37": POINTS * 1e37,
}
LABELS = {
    "some classes": np.arange(N) % 3,
    "one class": np.zeros(N, int),
    "every sample its own class": np.arange(N)[::-1].copy(),
}
WIDTHS = {
    "one": lambda x: 1.0,
    "tiny": lambda x: 1e-20,
    "huge": lambda x: 1e20,
    "median": info.median_bandwidth,
    "mean": info.mean_bandwidth,
    "knn": info.knn_bandwidth,
    "quantile": info.quantile_bandwidth,
    "scott": info.scott_bandwidth,
}
MEASURES = {
    "renyi_entropy": lambda a, b, alpha: info.renyi_entropy(a, alpha=alpha),
    "joint_entropy": lambda a, b, alpha: info.joint_entropy(a, b, alpha=alpha),
    "conditional": lambda a, b, alpha: info.conditional_entropy(b, a, alpha=alpha),
    "mutual_information": lambda a, b, alpha: info.mutual_information(
        a, b, alpha=alpha
    ),
    "total_correlation": lambda a, b, alpha: info.total_correlation(
        a, b, a, alpha=alpha
    ),
    "dual_total_correlation": lambda a, b, alpha: info.dual_total_correlation(
        a, b, alpha=alpha
    ),
    "hsic": lambda a, b, alpha: info.hsic(a, b),
    "normalized_hsic": lambda a, b, alpha: info.normalized_hsic(a, b),
    "cka": lambda a, b, alpha: info.cka(a, b),
}


@functools.cache
def compiled_width(rule):
    return jax.jit(lambda x: jnp.asarray(WIDTHS[rule](x), x.dtype))


@pytest.fixture(scope="module")
def compiled():
    """Value, gradient and tangent of a measure at all orders, compiled once each."""
    made = {}

    def get(name, width):
        def values(x, labels, sigma):
            gram = info.gaussian_gram(x, sigma=sigma)
            target = info.label_gram(labels)
            orders = ORDERS if name == "renyi_entropy" else (0.9, 1.0, 1.01, 2.0)
            if name in ("hsic", "normalized_hsic", "cka"):
                orders = (1.0,)
            return jnp.stack([MEASURES[name](gram, target, a) for a in orders])

        def both(x, labels, sigma):
            def loss(x):
                return values(x, labels, sigma)

            value, pull = jax.vjp(loss, x)
            _, tangent = jax.jvp(loss, (x,), (jnp.ones_like(x),))
            return value, pull(jnp.ones_like(value))[0], tangent

        if name not in made:
            made[name] = jax.jit(both)
        # The width is an argument, so that one program serves all rules.
        return lambda x, labels: made[name](
            x, labels, compiled_width(width)(jnp.asarray(x))
        )

    return get


@pytest.mark.parametrize("name", MEASURES)
def test_values_and_gradients_are_finite(name, compiled):
    bad = []
    for width in WIDTHS:
        for case, x in INPUTS.items():
            for classes, labels in LABELS.items():
                if name == "renyi_entropy" and classes != "some classes":
                    continue
                results = compiled(name, width)(jnp.asarray(x, jnp.float32), labels)
                for what, result in zip(WHAT, results, strict=True):
                    if not np.all(np.isfinite(result)):
                        bad.append((case, classes, f"sigma {width}", what, result))
    assert bad == []


@pytest.mark.parametrize(
    ("case", "width", "bits"),
    [
        ("all samples alike", "one", 0),
        ("all samples alike", "median", 0),
        ("zeros", "knn", 0),
        ("two heaps", "one", 1),
        ("each sample twice", "tiny", 2),
        ("ordinary", "tiny", 3),
        ("ordinary", "huge", 0),
        ("far from the origin", "huge", 0),
        ("scale 1e-20", "one", 0),
        ("scale 1e10", "one", 3),
        ("scale 1e20", "one", 3),
        ("scale 1e37", "one", 3),
    ],
)
def test_entropy_has_its_limit_at_every_order(case, width, bits, compiled):
    x = jnp.asarray(INPUTS[case], jnp.float32)
    value, gradient, _ = compiled("renyi_entropy", width)(x, LABELS["one class"])
    np.testing.assert_allclose(value, bits, atol=2e-5)
    if bits == 3:
        assert np.all(gradient == 0)


@pytest.mark.parametrize("width", ["median", "mean", "knn", "quantile"])
@pytest.mark.parametrize("scale", [1e-20, 1e-10, 1e10, 1e20])
def test_a_width_in_units_of_the_features_makes_entropy_scale_free(
    width, scale, compiled
):
    plain = compiled("renyi_entropy", width)(POINTS, LABELS["one class"])
    x = (POINTS.astype(np.float64) * scale).astype(np.float32)
    scaled = compiled("renyi_entropy", width)(x, LABELS["one class"])
    np.testing.assert_allclose(scaled[0], plain[0], rtol=2e-5, atol=2e-5)
    gradient = np.asarray(scaled[1], np.float64) * scale
    largest = np.max(np.abs(plain[1]))
    np.testing.assert_allclose(gradient, plain[1], atol=2e-4 * largest)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.01, 3.0])
def test_one_sample_holds_nothing(alpha):
    x = np.float32([[3.0, -1.0]])

    def loss(x):
        gram = info.gaussian_gram(x, sigma=info.knn_bandwidth(x))
        target = info.label_gram(jnp.array([5]))
        values = [measure(gram, target, alpha) for measure in MEASURES.values()]
        return jnp.sum(jnp.stack(values) * jnp.arange(1.0, 1 + len(values)))

    value, gradient = jax.jit(jax.value_and_grad(loss))(x)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_no_features_at_all_make_all_samples_alike():
    nothing = np.zeros((N, 0), np.float32)
    gram = jax.jit(info.gaussian_gram)(nothing, sigma=1.0)
    np.testing.assert_array_equal(gram, np.full((N, N), 1 / N))
    assert jax.jit(info.median_bandwidth)(nothing) == 1


def test_one_sample_has_a_width():
    assert 0 < jax.jit(info.quantile_bandwidth)(np.float32([[3.0, -1.0]])) < math.inf


@pytest.mark.parametrize("case", ["all samples alike", "zeros", "scale 1e37"])
@pytest.mark.parametrize("rule", ["median", "mean", "knn", "quantile", "scott"])
def test_a_width_is_a_number_above_zero_whatever_the_features(case, rule):
    assert 0 < compiled_width(rule)(np.float32(INPUTS[case])) < math.inf


@functools.cache
def dependences():
    measures = (info.hsic, info.cka, info.normalized_hsic)

    def all_of_it(constant, other):
        return [jax.value_and_grad(measure)(constant, other) for measure in measures]

    return jax.jit(all_of_it)


@pytest.mark.parametrize("pair", ["constant", "both"])
def test_nothing_over_nothing_is_nothing(pair):
    constant, ordinary = (
        jax.jit(info.gaussian_gram)(np.float32(x), sigma=1.0)
        for x in (np.zeros((N, 3)), POINTS)
    )
    for value, slopes in dependences()(
        constant, constant if pair == "both" else ordinary
    ):
        assert value == pytest.approx(0, abs=1e-6)
        assert np.all(np.isfinite(slopes))


def test_a_sample_of_no_kernel_is_alike_to_itself_only():
    kernel = np.diag(np.float32([4.0, 0.0, 0.0, 1e-30]))

    @jax.jit
    def gram_and_slopes(kernel):
        def entropy(kernel):
            return info.renyi_entropy(info.normalize_gram(kernel), alpha=1.01)

        return info.normalize_gram(kernel), jax.grad(entropy)(kernel)

    gram, slopes = gram_and_slopes(kernel)
    np.testing.assert_allclose(gram, np.eye(4) / 4)
    assert np.all(np.isfinite(slopes))
