"""Unbiased HSIC and CKA, of minibatches too, and what is said of layers at once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once


def grams(n, seed=0, linked=0.0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 3))
    y = linked * x + random.normal(size=(n, 3))
    return [
        np.exp(-np.sum((v[:, None] - v) ** 2, axis=-1) / 4).astype(np.float32) / n
        for v in (x, y)
    ]


def by_formula(a, b):
    """Song et al., eq. 5, as it stands there."""
    n = len(a)
    k, m = (n * g.astype(float) * (1 - np.eye(n)) for g in (a, b))
    one = np.ones(n)
    between = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2))
    sides = 2 / (n - 2) * (one @ k @ m @ one)
    return (np.trace(k @ m) + between - sides) / (n * (n - 3))


@pytest.mark.parametrize("n", [4, 7])
def test_unbiased_hsic_is_its_formula(n):
    a, b = grams(n, linked=1.0)
    measures = (info.hsic, info.cka)
    hsic, cka = jax.jit(lambda a, b: [m(a, b, unbiased=True) for m in measures])(a, b)
    np.testing.assert_allclose(hsic, by_formula(a, b), rtol=1e-4, atol=1e-7)
    square = by_formula(a, a) * by_formula(b, b)
    np.testing.assert_allclose(cka, by_formula(a, b) / square**0.5, rtol=1e-4)


def test_over_all_small_samples_its_mean_is_that_of_the_whole():
    n, size = 7, 4
    a, b = grams(n, linked=1.0)
    some = [np.array(rows) for rows in itertools.combinations(range(n), size)]
    parts = [
        by_formula(*(g[np.ix_(rows, rows)] * n / size for g in (a, b))) for rows in some
    ]
    whole = jax.jit(lambda a, b: info.hsic(a, b, unbiased=True))(a, b)
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-4)


def test_of_independent_samples_only_the_unbiased_one_is_zero_in_the_mean():
    pairs = [grams(32, seed) for seed in range(40)]
    a, b = (np.stack(each) for each in zip(*pairs, strict=True))
    biased = jax.jit(jax.vmap(info.cka))(a, b)
    free = jax.jit(jax.vmap(lambda a, b: info.cka(a, b, unbiased=True)))(a, b)
    assert np.mean(biased) > 0.1
    assert abs(np.mean(free)) < 4 * np.std(free) / np.sqrt(len(free)) < 0.05


def test_minibatch_cka_is_a_quotient_of_means():
    pairs = [grams(8, seed, linked=0.5) for seed in range(5)]
    a, b = (np.stack(each) for each in zip(*pairs, strict=True))
    hsics = [
        np.mean([by_formula(*each) for each in zip(one, other, strict=True)])
        for one, other in ((a, b), (a, a), (b, b))
    ]
    got = jax.jit(info.minibatch_cka)(a, b)
    np.testing.assert_allclose(got, hsics[0] / (hsics[1] * hsics[2]) ** 0.5, rtol=1e-4)
    single = jax.jit(info.minibatch_cka)(a[:1], b[:1])
    want = info.cka(a[0], b[0], unbiased=True)
    np.testing.assert_allclose(single, want, atol=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_matrix_has_the_alignment_of_each_pair(unbiased):
    a, b = grams(8, linked=1.0)
    constant = np.full((8, 8), 1 / 8, np.float32)
    matrix = info.cka_matrix(jnp.stack([a, b, constant]), unbiased=unbiased)
    pair = info.cka(a, b, unbiased=unbiased)
    want = [[1, pair, 0], [pair, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(matrix, want, atol=1e-5)


def test_unbiased_linear_cka_needs_no_centring_of_its_own():
    x, y = np.random.default_rng(0).normal(size=(2, 9, 3))
    raw = [v @ v.T for v in (x, y)]
    raw = [np.float32(k / np.trace(k)) for k in raw]
    np.testing.assert_allclose(
        info.linear_cka(x, y, unbiased=True), info.cka(*raw, unbiased=True), rtol=1e-3
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: info.hsic(a, a, unbiased=True), "at least 4 samples, got 3"),
        (lambda a: info.minibatch_cka(a[None], a[None]), "at least 4 samples, got 3"),
        (
            lambda a: info.minibatch_cka(a[None], np.stack([a, a])),
            "got shapes (1, 3, 3)",
        ),
        (
            lambda a: info.layer_grams([]),
            "must be one or more arrays (n, …) of the same",
        ),
        (lambda a: info.layer_grams([a, a[:2]]), "got [3, 2] samples"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=".") as caught:
        call(grams(3)[0])
    assert message in str(caught.value)


def test_layers_of_different_shapes_have_a_gram_and_a_place_each():
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 5)).astype(np.float32)
    layers = [x[:, :2], np.tanh(x).reshape(12, 5, 1, 1)]
    labels = np.arange(12) % 3
    stacked = jax.jit(info.layer_grams)(layers)
    for gram, layer in zip(stacked, layers, strict=True):
        own = info.gaussian_gram(layer, sigma=info.mean_bandwidth(layer))
        np.testing.assert_allclose(gram, own, rtol=1e-5)

    @jax.jit
    def information(x, labels):
        source = info.gaussian_gram(x, sigma=info.mean_bandwidth(x))
        of_labels = [info.label_mutual_information(g, labels) for g in stacked]
        return [info.mutual_information(source, g) for g in stacked], of_labels

    plane = jax.jit(info.information_plane)(x, layers, labels)
    np.testing.assert_allclose(plane, information(x, labels), atol=1e-4)
    # Layers of one width may be one array.
    alike = jnp.stack([x, 2 * x])
    wanted = info.information_plane(x, [x, 2 * x], labels)
    np.testing.assert_allclose(info.information_plane(x, alike, labels), wanted)
