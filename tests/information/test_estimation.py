"""Estimated entropies against exact ones, on the pixels of real digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from dib_jax import information as info

pytestmark = pytest.mark.once

N = 400
X = (load_digits().data[:N] / 16).astype(np.float32)
KEY = jax.random.key(0)


def gram(x, sigma=1.0):
    return info.gaussian_gram(x, sigma=sigma)


compiled_gram = jax.jit(gram)


@functools.cache
def exact(alpha, sigma):
    def entropy(x):
        return info.renyi_entropy(gram(x, sigma), alpha=alpha)

    return jax.jit(jax.value_and_grad(entropy))(X)


@functools.cache
def estimator(alpha, rank):
    def entropy(x, sigma, key):
        estimate = info.estimated_renyi_entropy(
            gram(x, sigma), alpha=alpha, key=key, rank=rank
        )
        return estimate.bits, estimate.error

    return jax.jit(jax.value_and_grad(entropy, has_aux=True))


@pytest.mark.parametrize(
    ("alpha", "sigma", "slack", "slope_slack"),
    [(1.01, 1.0, 2e-3, 0.08), (1.01, 3.0, 2e-3, 0.08), (1.5, 2.0, 1e-3, 0.02)],
)
def test_value_and_gradient_are_near_the_exact_ones(alpha, sigma, slack, slope_slack):
    want, slope = exact(alpha, sigma)
    for seed in range(3):
        (bits, error), got = estimator(alpha, 64)(X, sigma, jax.random.key(seed))
        assert abs(bits - want) <= slack * want
        assert abs(bits - want) <= 3 * error + 1e-4
        assert error <= 0.01 * want
        assert np.linalg.norm(got - slope) <= slope_slack * np.linalg.norm(slope)


def test_a_larger_rank_comes_nearer():
    want, slope = exact(1.01, 1.0)
    distances = []
    for rank in (8, 150):
        (bits, _), got = estimator(1.01, rank)(X, 1.0, KEY)
        distances.append((abs(bits - want), np.linalg.norm(got - slope)))
    assert np.all(np.array(distances[1]) < np.array(distances[0]) / 2)


def test_the_same_key_gives_the_same_estimate_and_another_another():
    first, again, other = (
        estimator(1.01, 64)(X, 1.0, key)[0][0] for key in (KEY, KEY, jax.random.key(1))
    )
    assert first == again != other


@pytest.mark.parametrize("case", ["duplicates", "all alike", "all distinct"])
def test_poor_spectra_have_their_limits(case):
    x = {
        "duplicates": np.tile(100 * np.eye(8, 64), (N // 8, 1)),
        "all alike": np.ones((N, 64)),
        "all distinct": X * 1e6,
    }[case].astype(np.float32)
    (bits, error), slope = estimator(1.01, 64)(x, 1.0, KEY)
    wanted = {"duplicates": 3, "all alike": 0, "all distinct": np.log2(N)}[case]
    assert bits == pytest.approx(wanted, abs=5e-3)
    assert np.isfinite(error)
    assert np.all(np.isfinite(slope))


def test_mutual_information_is_near_the_exact_one():
    a, b = compiled_gram(X[:150]), compiled_gram(X[:150, ::2], 2.0)

    @jax.jit
    def both(a, b):
        want = info.mutual_information(a, b, alpha=1.01)
        return want, info.estimated_mutual_information(
            a, b, alpha=1.01, rank=50, key=KEY
        )

    want, got = both(a, b)
    assert 0 < abs(got.bits - want) <= min(0.01 * want, 3 * got.error)


def test_small_ones_and_order_two_are_exact():
    for x, options in ((X[:50], {"alpha": 1.01}), (X, {"alpha": 2, "rank": 4})):

        @jax.jit
        def both(x, options=options):
            a = gram(x)
            exactly = info.renyi_entropy(a, alpha=options["alpha"])
            return exactly, info.estimated_renyi_entropy(a, key=KEY, **options)

        want, got = both(x)
        assert got == (want, 0)


def test_no_second_derivative_and_no_impossible_sizes():
    def entropy(x):
        return info.estimated_renyi_entropy(gram(x), alpha=1.01, key=KEY, rank=4).bits

    with pytest.raises(ValueError, match="second derivatives of an estimated"):
        jax.eval_shape(jax.hessian(entropy), jnp.asarray(X[:20, :2]))
    for sizes in ({"rank": 0}, {"probes": 1}, {"rank": 2.5}):
        with pytest.raises(ValueError, match=f"{next(iter(sizes))} must be an integer"):
            info.estimated_renyi_entropy(compiled_gram(X), alpha=1.01, key=KEY, **sizes)
