"""The alignment of a stage's kernel with that of the targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    loss, terms = kernel_alignment()(given)
    np.testing.assert_allclose(terms["alignment"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.75 - expected, rtol=1e-5)


def test_it_is_one_where_features_are_orthogonal_between_classes_only(make_signals):
    features = jnp.eye(4)[make_signals().targets] * jnp.arange(1, 21)[:, None]
    _, terms = kernel_alignment()(make_signals(features=features))
    np.testing.assert_allclose(terms["alignment"], 1, rtol=1e-6)


def test_no_gradient_of_the_prediction_reaches_the_features(make_signals):
    def loss(features, task_loss):
        return kernel_alignment()(make_signals(features=features, task_loss=task_loss))[
            0
        ]

    features = make_signals().features
    assert jax.grad(loss, argnums=1)(features, 1.25) == 0
    assert np.abs(jax.grad(loss)(features, 1.25)).max() > 0


def test_features_that_are_zero_and_batches_without_alike_pairs_stay_finite(
    make_signals,
):
    def alignment(features, **changes):
        given = make_signals(features=features, **changes)
        return kernel_alignment()(given)[1]["alignment"]

    features = make_signals().features
    for given, changes in (
        (jnp.zeros_like(features), {}),
        (features.at[3].set(0), {}),
        (features, {"target_gram": jnp.eye(20) / 20}),
    ):
        value, slope = jax.value_and_grad(alignment)(given, **changes)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()
    assert value == 0
