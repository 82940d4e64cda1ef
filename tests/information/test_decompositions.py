"""Decompositions in batches: right, and without the call that can wait for ever."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info
from dib_jax.information import decompositions

pytestmark = pytest.mark.once

MATRICES = np.random.default_rng(0).normal(size=(3, 5, 6, 6)).astype(np.float32)
POSITIVE = MATRICES @ np.swapaxes(MATRICES, -1, -2) + np.eye(6, dtype=np.float32)
LAPACK = re.compile(r"= \(?f32\[([0-9,]*)\].*custom_call_target=\"lapack_")


GRAMS = jax.ShapeDtypeStruct((4, 9, 9), jnp.float32)


MEASURES = {
    "entropy": lambda a, b: info.renyi_entropy(a, alpha=1.01),
    "information": lambda a, b: info.mutual_information(a, b, alpha=1.01),
    "labels": lambda a, b: info.label_joint_entropy(
        a, jnp.arange(9) % 3, alpha=1.01, num_classes=3, class_size=3
    ),
    "nhsic": info.normalized_hsic,
    "estimate": lambda a, b: (
        info.estimated_renyi_entropy(
            a, alpha=1.01, key=jax.random.key(0), rank=2, probes=3
        ).bits
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_no_call_of_lapack_is_given_more_than_one_matrix(name):
    """On a CPU a call on a batch waits for threads that may all be waiting."""
    loss = jax.value_and_grad(MEASURES[name])
    program = jax.jit(jax.vmap(loss)).lower(GRAMS, GRAMS)
    calls = LAPACK.findall(program.compile().as_text())
    assert calls
    for shape in calls:
        sizes = [int(size) for size in shape.split(",")]
        assert np.prod(sizes[:-2], initial=1) == 1, shape


def test_one_by_one_is_what_a_batched_call_gives():
    def both(matrices):
        return decompositions.eigh(matrices), decompositions.eigvalsh(matrices)

    (values, vectors), alone = jax.jit(both)(POSITIVE)
    wanted = np.linalg.eigvalsh(POSITIVE)
    np.testing.assert_allclose(values, wanted, rtol=1e-4)
    np.testing.assert_allclose(alone, wanted, rtol=1e-4)
    rebuilt = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    np.testing.assert_allclose(rebuilt, POSITIVE, atol=1e-4)
    q, r = jax.jit(decompositions.qr)(MATRICES[..., :4])
    np.testing.assert_allclose(q @ r, MATRICES[..., :4], atol=1e-5)
    lower = np.tril(POSITIVE)
    solve = jax.vmap(decompositions.solve_lower, in_axes=(0, None))
    x = jax.jit(solve)(lower[0], np.ones(6, np.float32))
    np.testing.assert_allclose(
        np.einsum("bij,bj->bi", lower[0], x), np.ones((5, 6)), atol=1e-4
    )


def test_solutions_and_their_derivatives_of_both_orders():
    matrix, right = POSITIVE[0, 0], MATRICES[0, 1]

    def loss(t, solve):
        x = solve(matrix + t * jnp.eye(6), right + t**2)
        return jnp.sum(jnp.sin(x))

    for order in (lambda f: f, jax.grad, lambda f: jax.grad(jax.grad(f))):
        ours, wanted = (
            jax.jit(order(lambda t, solve=solve: loss(t, solve)))(0.5)
            for solve in (decompositions.solve_positive, jnp.linalg.solve)
        )
        np.testing.assert_allclose(ours, wanted, rtol=1e-3)


PROGRAM = """
import jax
from dib_jax import information as info

x = jax.random.normal(jax.random.key(0), (16, 128, 16))
grams = jax.vmap(lambda x: info.gaussian_gram(x, sigma=4.0))(x)

def loss(gram):
    return info.renyi_entropy(gram, alpha=1.01) + info.joint_entropy(
        gram, gram, alpha=1.5
    )

step = jax.jit(jax.vmap(jax.value_and_grad(loss)))
for _ in range(100):
    jax.block_until_ready(step(grams))
"""


def test_batches_with_gradients_do_not_hang():
    # With batched calls on two cores most such programs never ended.
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)
