"""Closed forms, bounds, invariances and mistakes of the entropies."""

import functools
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from dib_jax import information as info

pytestmark = pytest.mark.once

N = 9


@functools.cache
def compiled(name, alpha):
    return jax.jit(functools.partial(getattr(info, name), alpha=alpha))


def entropy(gram, alpha):
    return float(compiled("renyi_entropy", alpha)(gram))


gaussian_gram = jax.jit(info.gaussian_gram)


def random_gram(seed, width):
    x = np.random.default_rng(seed).normal(size=(N, 3)).astype(np.float32)
    return np.asarray(gaussian_gram(x, sigma=width))


SEEDS = st.integers(0, 2**31)
WIDTHS = st.floats(-3, 3).map(lambda power: 10**power)
ORDERS = st.sampled_from([0.5, 1.0, 1.01, 2.0, 3.0, 20.0, math.inf])
quick = settings(max_examples=25, deadline=None, derandomize=True)


@quick
@given(SEEDS, WIDTHS, ORDERS)
def test_an_entropy_is_from_0_to_log2_n(seed, width, alpha):
    assert -1e-5 <= entropy(random_gram(seed, width), alpha) <= math.log2(N) + 1e-5


@quick
@given(SEEDS, WIDTHS, ORDERS)
def test_the_order_of_the_samples_changes_nothing(seed, width, alpha):
    gram = random_gram(seed, width)
    order = np.random.default_rng(seed).permutation(N)
    got = entropy(gram[order][:, order], alpha)
    slack = 2e-3 if alpha < 1 else 1e-5
    assert got == pytest.approx(entropy(gram, alpha), abs=slack)


@quick
@given(SEEDS, WIDTHS, WIDTHS, ORDERS)
def test_two_variables_hold_no_less_than_each(seed, width, other, alpha):
    a, b = random_gram(seed, width), random_gram(seed + 1, other)
    joint = float(compiled("joint_entropy", alpha)(a, b))
    slack = 2e-3 if alpha < 1 else 2e-5
    assert joint >= max(entropy(a, alpha), entropy(b, alpha)) - slack


@quick
@given(SEEDS, WIDTHS)
def test_an_entropy_never_rises_with_its_order(seed, width):
    gram = random_gram(seed, width)
    orders = [0.5, 0.9, 1.0, 1.01, 1.3, 2.0, 3.0, 4.0, 20.0, math.inf]
    assert np.all(np.diff([entropy(gram, alpha) for alpha in orders]) <= 1e-4)


@pytest.mark.parametrize("middle", [1.0, 0.75, 1.25, 2.0, 3.0, 4.0])
def test_an_entropy_is_continuous_where_its_form_changes(middle):
    gram = random_gram(0, 1.0)
    for step in (1e-6, 1e-4):
        for alpha in (middle - step, middle + step):
            assert entropy(gram, alpha) == pytest.approx(
                entropy(gram, middle), abs=3e-5 + 3 * step
            )


def test_near_order_one_the_textbook_formula_loses_its_digits():
    gram, alpha = random_gram(1, 1.0), 1 + 1e-6
    spectrum = np.clip(np.linalg.eigvalsh(gram), 0, None)  # in float32
    textbook = np.log2(np.sum(spectrum ** np.float32(alpha))) / (1 - alpha)
    assert abs(textbook - entropy(gram, 1.0)) > 0.05
    assert entropy(gram, alpha) == pytest.approx(entropy(gram, 1.0), abs=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.01, 2.0, 3.0, 7.0, math.inf])
def test_known_spectra(alpha):
    shares = np.array([0.5, 0.25, 0.125, 0.125], np.float32)
    want = {1.0: 1.75, math.inf: 1.0}.get(alpha)
    if want is None:
        want = np.log2(np.sum(shares.astype(float) ** alpha)) / (1 - alpha)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    gram = ((turn * shares) @ turn.T).astype(np.float32)
    assert entropy(gram, alpha) == pytest.approx(want, abs=1e-5)
    independent = np.kron(gram, gram)
    assert entropy(independent, alpha) == pytest.approx(2 * want, abs=2e-5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.01, 1.5, 5.0])
def test_an_eigenvalue_that_rounding_made_negative_counts_as_zero(alpha):
    rounded, clean = (np.diag(np.float32([0.6, 0.4, last])) for last in (-0.01, 0))
    assert entropy(rounded, alpha) == pytest.approx(entropy(clean, alpha), abs=1e-5)


def test_classes_hold_the_entropy_of_their_shares():
    labels = jnp.array([0, 0, 0, 0, 1, 1, 2, 3])
    gram = info.label_gram(labels)
    assert entropy(gram, 1.0) == pytest.approx(1.75, abs=1e-5)
    shared = compiled("mutual_information", 1.0)(gram, gram)
    assert shared == pytest.approx(1.75, abs=1e-5)
    left = compiled("conditional_entropy", 1.0)(gram, gram)
    assert left == pytest.approx(0, abs=1e-5)


def test_one_gram_has_no_correlation_and_two_have_their_information():
    a, b = random_gram(0, 1.0), random_gram(1, 1.0)
    want = float(compiled("mutual_information", 1.5)(a, b))
    for name in ("total_correlation", "dual_total_correlation"):
        assert compiled(name, 1.5)(a) == 0
        assert float(compiled(name, 1.5)(a, b)) == pytest.approx(want, abs=1e-5)
    matrix = np.asarray(compiled("mutual_information_matrix", 1.5)(np.stack([a, b])))
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("alpha", [1.01, 2.0])
def test_the_estimate_rises_with_the_true_information_of_gaussian_data(alpha):
    correlations = np.linspace(0, 0.995, 15)
    draw = np.random.default_rng(0).normal(size=(2, 150, 1)).astype(np.float32)
    # Without the draw's own correlation, which would shift the true one.
    draw[1] -= np.sum(draw[0] * draw[1]) / np.sum(draw[0] ** 2) * draw[0]
    measured = []
    for r in correlations:
        x, y = draw[0], r * draw[0] + np.sqrt(1 - r**2) * draw[1]
        a, b = (gaussian_gram(v.astype(np.float32), sigma=0.5) for v in (x, y))
        measured.append(float(compiled("mutual_information", alpha)(a, b)))
    true = -0.5 * np.log2(1 - correlations**2)
    assert spearmanr(true, measured).statistic > 0.95


@pytest.mark.parametrize("alpha", [0, -1, math.nan, "2", None, True, jnp.float32(2)])
def test_an_impossible_order_is_named(alpha):
    gram = jnp.eye(3) / 3
    for call in (
        lambda: info.renyi_entropy(gram, alpha=alpha),
        lambda: info.mutual_information(gram, gram, alpha=alpha),
        lambda: info.label_joint_entropy(gram, jnp.arange(3), alpha=alpha),
    ):
        with pytest.raises(ValueError, match="alpha must be a positive Python number"):
            call()


def test_a_traced_order_is_told_what_to_do():
    with pytest.raises(ValueError, match="static_argnames"):
        jax.jit(lambda a: info.renyi_entropy(jnp.eye(3) / 3, alpha=a))(2.0)


def test_grams_that_do_not_fit_are_named():
    square, other = jnp.eye(3) / 3, jnp.eye(4) / 4
    with pytest.raises(ValueError, match=r"square matrix \(n, n\), got shape \(3, 4\)"):
        info.renyi_entropy(jnp.zeros((3, 4)), alpha=2)
    with pytest.raises(ValueError, match=r"same samples, got sizes \[3, 4\]"):
        info.mutual_information(square, other, alpha=2)
    with pytest.raises(ValueError, match="at least one Gram"):
        info.joint_entropy(alpha=2)
    with pytest.raises(ValueError, match=r"shape \(l, n, n\)"):
        info.mutual_information_matrix(square, alpha=2)
    for measure in (info.hsic, info.cka, info.normalized_hsic):
        with pytest.raises(ValueError, match=r"same samples, got sizes \[3, 4\]"):
            measure(square, other)


def test_a_batch_that_is_split_over_devices_is_gathered():
    code = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from dib_jax import information as info

assert jax.device_count() == 4
mesh = Mesh(np.array(jax.devices()), ("data",))
x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)

def entropy(x):
    return info.renyi_entropy(info.gaussian_gram(x, sigma=1.0), alpha=1.01)

def local(x):
    everything = jax.lax.all_gather(x, "data", tiled=True)
    return jax.lax.pmean(entropy(everything), "data")

split = jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P())
value, slope = jax.jit(jax.value_and_grad(split))(x)
want, want_slope = jax.jit(jax.value_and_grad(entropy))(x)
np.testing.assert_allclose(value, want, atol=1e-5)
np.testing.assert_allclose(slope, want_slope, atol=1e-5)
"""
    flags = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    )
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
