"""NaN and infinity stay visible; numbers at the ends of the range are numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once

N = 8
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
SIGNS = np.sign(X)
LABELS = np.arange(N) % 3
GRAM = (np.exp(-np.sum((X[:, None] - X) ** 2, axis=-1)) / N).astype(np.float32)
CONSTANT = np.full((N, N), 1 / N, np.float32)
ORDERS = (0.5, 1.0, 1.01, 2.0, 3.0, 5.0, math.inf)

# Each gives scalars or arrays of which no entry may be a number.
OF_FEATURES = {
    "squared_distances": info.squared_distances,
    "gaussian_gram": lambda x: info.gaussian_gram(x, sigma=1.0),
    "channel_gram": lambda x: info.channel_gram(x[:, None, None], sigma=1.0),
    "linear_gram": info.linear_gram,
    "unit_scale": info.unit_scale,
    "mean_bandwidth": info.mean_bandwidth,
    "median_bandwidth": info.median_bandwidth,
    "quantile_bandwidth": info.quantile_bandwidth,
    "knn_bandwidth": info.knn_bandwidth,
    "named_bandwidth": lambda x: info.named_bandwidth(x, "median"),
    "aligned_bandwidth": lambda x: info.aligned_bandwidth(
        x, GRAM, candidates=[0.1, 1.0]
    ),
    "linear_cka": lambda x: jnp.stack(
        [info.linear_cka(x, X), info.linear_cka(x, x), info.linear_cka(x, 0 * X)]
    ),
    "layer_grams": lambda x: info.layer_grams([X, x])[1],
    "information_plane": lambda x: jnp.stack(info.information_plane(X, [x], LABELS)),
}


def at_orders(function):
    return lambda gram: [function(gram, alpha=alpha) for alpha in ORDERS]


def estimates(gram, *, alpha):
    options = {"alpha": alpha, "key": jax.random.key(0), "rank": 2, "probes": 2}
    return (
        info.estimated_renyi_entropy(gram, **options).bits,
        info.estimated_mutual_information(GRAM, gram, **options).bits,
    )


OF_GRAMS = {
    "renyi_entropy": at_orders(info.renyi_entropy),
    "effective_rank": info.effective_rank,
    "joint_entropy": at_orders(functools.partial(info.joint_entropy, GRAM)),
    "conditional_entropy": at_orders(functools.partial(info.conditional_entropy, GRAM)),
    "mutual_information": at_orders(functools.partial(info.mutual_information, GRAM)),
    "total_correlation": at_orders(functools.partial(info.total_correlation, GRAM)),
    "dual_total_correlation": at_orders(
        functools.partial(info.dual_total_correlation, GRAM)
    ),
    "mutual_information_matrix": lambda gram: info.mutual_information_matrix(
        gram[None], alpha=2.0
    ),
    "label_joint_entropy": at_orders(
        functools.partial(info.label_joint_entropy, labels=LABELS)
    ),
    "label_mutual_information": at_orders(
        functools.partial(info.label_mutual_information, labels=LABELS)
    ),
    "estimated": lambda gram: [estimates(gram, alpha=a) for a in (1.01, 5.0)],
    "hsic": lambda gram: [
        info.hsic(gram, GRAM),
        info.hsic(gram, GRAM, unbiased=True),
        info.normalized_hsic(gram, GRAM),
    ],
    "cka": lambda gram: [
        info.cka(gram, GRAM),
        info.cka(gram, GRAM, unbiased=True),
        info.cka(gram, CONSTANT),
        info.cka(CONSTANT, gram),
        info.minibatch_cka(jnp.stack([gram, gram]), jnp.stack([GRAM, GRAM])),
        info.cka_matrix(jnp.stack([gram, GRAM]))[0],
    ],
    "normalize_gram": lambda gram: info.normalize_gram(gram)[2, 5],
}


@functools.cache
def compiled(name):
    return jax.jit({**OF_FEATURES, **OF_GRAMS}[name])


@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_feature_that_is_no_number_leaves_none(name, value):
    for sample in (0, 2):
        bad = X.copy()
        bad[sample, 1] = value
        assert np.all(np.isnan(compiled(name)(bad)))


@pytest.mark.parametrize("name", OF_GRAMS)
def test_a_gram_with_nan_leaves_no_number(name):
    for place in ((2, 2), (2, 5), (5, 2)):
        bad = GRAM.copy()
        bad[place] = bad[place[::-1]] = math.nan
        if name == "normalize_gram" and place == (5, 2):
            continue
        for result in jax.tree.leaves(compiled(name)(bad)):
            assert np.all(np.isnan(result))


def test_every_measure_of_the_library_is_asked():
    rules = {"check_bandwidth", "scott_bandwidth"}  # they look at no value
    others = {"Estimate", "label_gram", "estimated_renyi_entropy"}
    others |= {"estimated_mutual_information", "normalized_hsic", "cka_matrix"}
    others |= {"minibatch_cka"}
    assert set(info.__all__) - rules - others == {*OF_FEATURES, *OF_GRAMS} - {
        "estimated"
    }


@functools.cache
def measures_of_features():
    def all_of_it(x, width):
        gram = info.gaussian_gram(x, sigma=width)
        scaled = info.gaussian_gram(info.unit_scale(x), sigma=1.0)
        return {
            "gaussian": gram,
            "channels": info.channel_gram(x[:, None, None], sigma=width),
            "unit scale": scaled,
            "linear": info.linear_gram(x),
            "alignment": info.linear_cka(x, X),
        }

    return jax.jit(all_of_it)


@pytest.mark.parametrize("scale", [3e38, 1e20, 1e-20])
def test_features_at_the_ends_of_the_range_have_the_values_of_their_signs(scale):
    got = measures_of_features()(np.float32(scale) * SIGNS, np.float32(scale))
    want = measures_of_features()(SIGNS, np.float32(1))
    for name in want:
        if name == "unit scale" and scale > 1e38:
            continue  # it adds up the features, which overflows and says so
        np.testing.assert_allclose(got[name], want[name], atol=2e-6, err_msg=name)


@pytest.mark.parametrize("scale", [1e20, 3e38])
def test_squared_distances_beyond_the_range_are_infinite_but_to_oneself(scale):
    twice = np.float32(scale) * np.repeat(SIGNS[:2], 2, axis=0)
    distances = jax.jit(info.squared_distances)(twice)
    same = np.kron(np.eye(2), np.ones((2, 2))) > 0
    np.testing.assert_array_equal(distances, np.where(same, 0, np.inf))


def test_a_width_that_is_infinite_makes_no_samples_alike():
    assert np.all(np.isnan(jax.jit(info.gaussian_gram)(X, sigma=jnp.inf)))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint64, ">f8"])
def test_times_keep_their_differences(dtype):
    times = 1.7e9 + np.arange(0, 64, 8.0)[:, None]
    got = info.gaussian_gram(times.astype(dtype), sigma=10.0)
    np.testing.assert_allclose(
        got, info.gaussian_gram(times - times[0], sigma=10.0), rtol=1e-6
    )
    got = info.channel_gram(times.astype(dtype)[:, :, None, None], sigma=10.0)
    near = info.gaussian_gram(times - times[0], sigma=10.0)
    np.testing.assert_allclose(got, near, rtol=1e-6)
    found = info.aligned_bandwidth(
        times.astype(dtype), near, candidates=[0.01, 10.0, 1000.0]
    )
    assert found == 10
    nanoseconds = (np.arange(4) * 10**9 + 17 * 10**17)[:, None]
    np.testing.assert_allclose(
        info.squared_distances(nanoseconds)[0], [0, 1e18, 4e18, 9e18], rtol=1e-6
    )


def test_what_is_no_number_is_refused_by_name():
    with pytest.raises(ValueError, match="features must be real"):
        info.channel_gram(np.zeros((2, 1, 1, 3), complex), sigma=1.0)
    with pytest.raises(ValueError, match="n ≥ 1"):
        info.channel_gram(np.zeros((0, 1, 1, 3)), sigma=1.0)
    with pytest.raises(ValueError, match="one layer at least"):
        info.information_plane(np.zeros((2, 3)), [], np.arange(2))
    with pytest.raises(ValueError, match="features must be numbers, got an array of"):
        info.linear_gram([["a"], ["b"]])


@pytest.mark.parametrize(
    "measure",
    [
        info.renyi_entropy,
        info.effective_rank,
        info.joint_entropy,
        lambda gram: info.mutual_information(GRAM, gram),
        lambda gram: info.conditional_entropy(GRAM, gram),
        lambda gram: info.total_correlation(GRAM, gram),
        lambda gram: info.dual_total_correlation(GRAM, gram),
        lambda gram: info.label_mutual_information(gram, LABELS),
        lambda gram: info.mutual_information_matrix(gram[None]),
        lambda gram: info.hsic(GRAM, gram),
        lambda gram: info.normalized_hsic(GRAM, gram),
        lambda gram: info.estimated_renyi_entropy(gram, key=jax.random.key(0)),
    ],
)
def test_a_kernel_matrix_in_place_of_a_gram_is_refused(measure):
    with pytest.raises(ValueError, match="a Gram must have trace 1, got 8; normalize_"):
        measure(jnp.asarray(GRAM * N))


def test_a_gram_that_a_traced_function_closes_over_is_asked_too():
    good, bad = jnp.asarray(GRAM), jnp.asarray(GRAM * N)
    bits = jax.jit(lambda: info.hsic(good, good))()
    assert bits > 0
    with pytest.raises(ValueError, match="must have trace 1, got 8"):
        jax.lax.map(lambda x: info.hsic(bad, x), good[None])


@functools.cache
def all_measures():
    def of(x, labels, key):
        a = info.gaussian_gram(x, sigma=info.mean_bandwidth(x))
        b = info.linear_gram(info.unit_scale(x))
        sizes = {"num_classes": 3, "class_size": 4}
        options = {"key": key, "rank": 2, "probes": 2}
        return [
            info.squared_distances(x),
            info.channel_gram(x[:, None, None], sigma=info.knn_bandwidth(x)),
            info.normalize_gram(b),
            info.aligned_bandwidth(x, a, candidates=[0.5, 1.0]),
            info.effective_rank(a),
            info.dual_total_correlation(a, b, alpha=1.5),
            info.label_mutual_information(a, labels),
            info.label_mutual_information(a, labels, **sizes),
            info.label_mutual_information(a, LABELS),
            info.mutual_information_matrix(jnp.stack([a, b]), alpha=2.0),
            *info.estimated_mutual_information(a, b, **options),
            info.normalized_hsic(a, b),
            info.hsic(a, b, unbiased=True),
            info.cka_matrix(info.layer_grams([x, x[:, :1]])),
            *info.information_plane(x, [x], labels),
        ]

    return of


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_with_float64_switched_on_everything_keeps_the_type_of_its_features(dtype):
    with jax.enable_x64(True):
        arguments = X.astype(dtype), LABELS, jax.random.key(0)
        found = jax.eval_shape(all_measures(), *arguments)
        assert {leaf.dtype for leaf in found} == {np.dtype(dtype)}
