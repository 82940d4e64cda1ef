"""The alignment of a stage's kernel with that of the targets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_signals import compiled

from dib_jax.objectives.kernel_alignment import kernel_alignment

pytestmark = pytest.mark.once


def test_it_is_the_cosine_between_two_kernels_off_their_diagonals(make_signals):
    given = make_signals()
    x = np.asarray(given.features, np.float64).reshape(20, -1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    pairs = ~np.eye(20, dtype=bool)
    labels = np.asarray(given.targets)
    ours, wanted = (x @ x.T)[pairs], (labels[:, None] == labels)[pairs]
    expected = ours @ wanted / np.linalg.norm(ours) / np.linalg.norm(wanted)
    (loss, terms), _ = loss_and_slopes()(given)
    np.testing.assert_allclose(terms["alignment"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.75 - expected, rtol=1e-5)


def test_it_is_one_where_features_are_orthogonal_between_classes_only(make_signals):
    features = np.eye(4)[np.arange(20) % 4] * np.arange(1, 21)[:, None]
    _, terms = compiled(kernel_alignment())(
        make_signals(features=jnp.asarray(features, jnp.float32))
    )
    np.testing.assert_allclose(terms["alignment"], 1, rtol=1e-6)


@functools.cache
def loss_and_slopes():
    """Loss, terms, and the gradients for features and the task's loss, compiled."""

    def run(given):
        def loss(features, task_loss):
            return kernel_alignment()(
                given._replace(features=features, task_loss=task_loss)
            )

        slopes = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        return slopes(given.features, given.task_loss)

    return compiled(run)


def test_no_gradient_of_the_prediction_reaches_the_features(make_signals):
    _, (of_features, of_task) = loss_and_slopes()(make_signals())
    assert of_task == 0
    assert np.abs(of_features).max() > 0


def test_features_that_are_zero_and_batches_without_alike_pairs_stay_finite(
    make_signals,
):
    features = np.asarray(make_signals().features)
    one_zero = features * (np.arange(20) != 3)[:, None, None, None]
    for changes in (
        {"features": jnp.zeros_like(features)},
        {"features": jnp.asarray(one_zero)},
        {"target_gram": jnp.asarray(np.eye(20, dtype=np.float32) / 20)},
    ):
        (_, terms), slopes = loss_and_slopes()(make_signals(**changes))
        assert np.isfinite(terms["alignment"])
        assert np.isfinite(slopes[0]).all()
    assert terms["alignment"] == 0
