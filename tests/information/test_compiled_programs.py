"""How many eigendecompositions a compiled program holds, and that forms agree."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once

X = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
Z = np.random.default_rng(1).normal(size=(12, 4)).astype(np.float32)
LABELS = np.arange(12) % 3


def gram(x):
    return info.gaussian_gram(x, sigma=1.5)


def eigendecompositions(function, *arguments):
    program = jax.jit(function).lower(*arguments).compile().as_text()
    return len(re.findall(r"custom_call_target=\"[^\"]*sy?evd", program))


def entropy(x, alpha):
    return info.renyi_entropy(gram(x), alpha=alpha)


def information(x, z, alpha):
    return info.mutual_information(gram(x), gram(z), alpha=alpha)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.01, 5.0, float("inf")])
def test_an_entropy_with_its_gradient_takes_one(alpha):
    def both(x):
        return jax.value_and_grad(entropy)(x, alpha)

    assert eigendecompositions(both, X) == 1


def test_mutual_information_with_its_gradient_takes_three():
    def both(x, z):
        return jax.value_and_grad(information)(x, z, 1.01)

    assert eigendecompositions(both, X, Z) == 3
    assert eigendecompositions(lambda x, z: information(x, z, 1.01), X, Z) == 3


def test_the_gradient_alone_with_one_side_constant_takes_two():
    assert eigendecompositions(lambda x: jax.grad(information)(x, Z, 1.01), X) == 2
    tangent = jax.jit(
        lambda x, z: jax.jvp(lambda x: information(x, z, 1.01), (x,), (x,))
    )
    assert eigendecompositions(lambda x, z: tangent(x, z)[1], X, Z) == 2


@pytest.mark.parametrize("alpha", [2, 3, 4])
def test_small_whole_orders_take_none(alpha):
    def all_of_it(x, z):
        return jax.value_and_grad(information)(x, z, alpha)

    assert eigendecompositions(all_of_it, X, Z) == 0


def test_the_count_finds_decompositions():
    assert eigendecompositions(lambda x: jnp.linalg.eigh(gram(x)), X) == 1


MEASURES = {
    "renyi_entropy": lambda a, b: info.renyi_entropy(a, alpha=1.01),
    "renyi_entropy 3": lambda a, b: info.renyi_entropy(a, alpha=3),
    "mutual_information": lambda a, b: info.mutual_information(a, b, alpha=1.5),
    "normalized_hsic": info.normalized_hsic,
    "cka": info.cka,
    "mutual_information_matrix": lambda a, b: info.mutual_information_matrix(
        jnp.stack([a, b]), alpha=1.01
    )[0, 1],
}


@pytest.mark.parametrize("name", MEASURES)
def test_bare_compiled_and_batched_agree(name):
    def loss(x):
        return MEASURES[name](gram(x), info.label_gram(LABELS))

    batch = np.stack([X, 2 * X, X[::-1]])
    compiled = jax.jit(jax.value_and_grad(loss))
    value, slope = compiled(X)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(batch)
    if name != "mutual_information_matrix":  # slow to run bare, being two loops
        np.testing.assert_allclose(loss(X), value, atol=5e-5)
    np.testing.assert_allclose(values[0], value, atol=5e-5)
    np.testing.assert_allclose(slopes[0], slope, atol=5e-5)
    np.testing.assert_allclose(values[1], compiled(2 * X)[0], atol=5e-5)


def test_an_entropy_serves_as_a_loss_within_scan():
    def step(x, _):
        value, slope = jax.value_and_grad(entropy)(x, 1.01)
        return x - 2 * slope, value

    _, values = jax.lax.scan(step, jnp.asarray(X), length=20)
    assert np.all(np.diff(values) < 0)


def test_bfloat16_features_have_a_gram_in_float32():
    x = jnp.asarray(X, jnp.bfloat16)
    assert gram(x).dtype == jnp.float32
    np.testing.assert_array_equal(gram(x), gram(x.astype(jnp.float32)))
    both = jax.jit(jax.value_and_grad(lambda x: entropy(x, 1.01)))
    value, slope = both(x)
    assert (value.dtype, slope.dtype) == (jnp.float32, jnp.bfloat16)
    _, wanted = both(x.astype(jnp.float32))
    np.testing.assert_allclose(slope.astype(jnp.float32), wanted, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.01, 7.0])
def test_second_derivatives_that_are_not_there_raise(alpha):
    for outer in (jax.jacfwd, jax.jacrev):
        for inner in (jax.jacfwd, jax.jacrev):
            second = outer(inner(lambda x: entropy(x, alpha)))
            with pytest.raises(ValueError, match="second derivatives of the Rényi"):
                jax.eval_shape(second, X)
