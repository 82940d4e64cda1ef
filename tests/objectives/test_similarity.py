import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_signals import compiled, drawn, with_slope

from dib_jax.objectives.similarity import (
    Projection,
    label_similarities,
    similarities,
    similarity,
)

pytestmark = pytest.mark.once


of_samples = jax.jit(similarities, static_argnames="spread")
of_labels = jax.jit(label_similarities, static_argnums=1)


def correlations(rows):
    """Cosine of centred rows, by NumPy."""
    return np.corrcoef(np.asarray(rows, np.float64))


def test_similarities_are_the_correlations_of_samples():
    x = drawn(9, 5)
    np.testing.assert_allclose(of_samples(x), correlations(x), atol=1e-5)


def test_of_feature_maps_the_channels_standard_deviations_are_compared():
    x = drawn(9, 3, 4, 5)
    spread = np.std(np.asarray(x, np.float64), axis=(1, 2), ddof=1)
    np.testing.assert_allclose(of_samples(x), correlations(spread), atol=1e-4)
    flat = correlations(np.asarray(x).reshape(9, -1))
    np.testing.assert_allclose(of_samples(x, spread=False), flat, atol=1e-5)
    place = x[:, :1, :1]  # one place has no deviation
    np.testing.assert_allclose(
        of_samples(place), correlations(place.reshape(9, -1)), atol=1e-5
    )


def test_similarities_of_labels_are_those_of_one_hot_vectors():
    labels = np.array([0, 2, 1, 2, 0, 0])
    one_hot = np.eye(3)[labels]
    np.testing.assert_allclose(of_labels(labels, 3), correlations(one_hot), atol=1e-6)


def test_one_hot_features_have_no_mismatch(make_signals):
    one_hot = np.eye(4, dtype=np.float32)[np.asarray(make_signals().targets)]
    given = make_signals(features=jnp.asarray(3 * one_hot + 1))
    loss, terms = compiled(similarity(beta=0.75, projection="none"))(given)
    np.testing.assert_allclose(terms["similarity_loss"], 0, atol=1e-10)
    np.testing.assert_allclose(loss, 0.25 * 1.25, rtol=1e-6)


def test_the_loss_is_a_mean_of_two_by_beta(make_signals):
    projected = np.ones((20, 6), np.float32)
    projected[:, 0] = 0
    given = make_signals(modules={"projection": jnp.asarray(projected)})
    # All samples are alike.
    wanted = np.square(1 - np.asarray(of_labels(given.targets, 4)))
    for beta in (0.0, 0.3, 0.99):
        loss, terms = compiled(similarity(beta=beta))(given)
        np.testing.assert_allclose(terms["similarity_loss"], wanted.mean(), rtol=1e-5)
        np.testing.assert_allclose(
            loss, (1 - beta) * 1.25 + beta * wanted.mean(), rtol=1e-5
        )


def test_alone_it_leaves_the_prediction_to_the_head(make_signals):
    loss, terms = compiled(similarity(beta=1.0, projection="none"))(make_signals())
    np.testing.assert_allclose(loss, 0.75 + terms["similarity_loss"], rtol=1e-6)


@pytest.mark.parametrize("shape", [(20, 4, 4, 6), (20, 6)])
def test_the_projection_keeps_the_shape_and_is_linear(shape):
    x = drawn(*shape)
    module = similarity().modules(0, (6, 6, 1))["projection"]
    variables = jax.jit(functools.partial(module.init, train=True))(
        jax.random.key(1), x
    )
    run = jax.jit(functools.partial(module.apply, train=True))
    once, twice = (np.asarray(run(variables, k * x)) for k in (1, 2))
    assert once.shape == shape
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5, atol=1e-6)
    assert isinstance(module, Projection)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"projection": "none"}])
def test_there_is_no_projection_where_none_is_used(options):
    assert similarity(**options).modules(0, (6, 6, 1)) == {}


@functools.cache
def unprojected():
    return with_slope(similarity(projection="none"))


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e20])
def test_gradients_are_finite_for_constant_and_for_extreme_features(
    make_signals, scale
):
    for features in (np.ones((20, 4, 4, 6)), make_signals().features):
        scaled = jnp.asarray(np.float32(scale) * np.float32(features))
        _, slope = unprojected()(make_signals(features=scaled))
        assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.5}, "beta must be 0 to 1, got 1.5"),
        ({"projection": "conv"}, r"projection must be .*'trained'.*got 'conv'"),
    ],
)
def test_an_impossible_option_of_it_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        similarity(**options)


def test_targets_that_are_no_labels_are_refused(make_signals):
    with pytest.raises(ValueError, match="one class for each sample"):
        similarity(projection="none")(
            make_signals(targets={"boxes": jnp.ones((20, 4))})
        )
