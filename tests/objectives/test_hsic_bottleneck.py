import functools

import example_signals
import jax.numpy as jnp
import numpy as np
import pytest
from example_signals import LABELS, compiled, drawn, with_slope

from dib_jax.objectives.hsic_bottleneck import hsic_bottleneck

pytestmark = pytest.mark.once


def signals(features):
    x = drawn(20, 3, 3, 1)
    return example_signals.signals(network_input=x, stage_input=x, features=features)


def by_definition(a, b, epsilon):
    """tr(R_a R_b) in float64 from kernels of unit diagonal."""
    n = len(a)
    centring = np.eye(n) - 1 / n

    def smoother(kernel):
        kernel = centring @ kernel @ centring
        return kernel @ np.linalg.inv(kernel + epsilon * n * np.eye(n))

    return np.trace(smoother(a) @ smoother(b))


def kernel(x, sigma):
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    squares = np.sum((x[:, None] - x[None]) ** 2, axis=-1)
    return np.exp(-squares / (2 * sigma**2 * x.shape[1]))


def test_the_loss_is_that_of_the_paper_plus_the_heads():
    features = drawn(20, 7)
    given = signals(features)
    objective = hsic_bottleneck(balance=3.0, sigma=0.7, epsilon=1e-2)
    loss, terms = compiled(objective)(given)
    z, x = kernel(features, 0.7), kernel(given.network_input, 0.7)
    y = (LABELS[:, None] == LABELS[None]).astype(float)
    with_input, with_target = by_definition(z, x, 1e-2), by_definition(z, y, 1e-2)
    np.testing.assert_allclose(terms["nhsic_input"], with_input, rtol=1e-3)
    np.testing.assert_allclose(terms["nhsic_target"], with_target, rtol=1e-3)
    np.testing.assert_allclose(loss, with_input - 3 * with_target + 0.75, rtol=1e-3)


def test_descent_on_it_makes_features_tell_the_classes():
    run = with_slope(hsic_bottleneck(balance=100.0, sigma=1.0))
    features = drawn(20, 2)
    told = []
    for _ in range(51):
        (_, terms), slope = run(signals(features))
        told.append(terms["nhsic_target"])
        features = features - 1e-3 * slope
    assert np.all(np.isfinite(features))
    assert told[-1] > told[0] + 0.3


@pytest.mark.parametrize("option", ["balance", "sigma", "epsilon"])
def test_an_option_that_is_not_above_zero_is_named(option):
    with pytest.raises(ValueError, match=rf"{option} must be a number > 0, got 0"):
        hsic_bottleneck(**{option: 0})


def test_networks_side_by_side_have_each_its_own_loss():
    features = drawn(20, 6)

    @compiled
    def each_and_both(given):
        each = [
            hsic_bottleneck(balance=3.0, sigma=sigma)(given._replace(features=part))
            for sigma, part in (
                (0.7, given.features[:, :3]),
                (2.0, given.features[:, 3:]),
            )
        ]
        both = hsic_bottleneck(balance=3.0, combine=(0.7, 2.0))(given)
        return each, both

    (one, other), (loss, terms) = each_and_both(signals(features))
    np.testing.assert_allclose(loss, one[0] + other[0] - 0.75, rtol=1e-5)
    for name, value in terms.items():
        np.testing.assert_allclose(
            value, (one[1][name] + other[1][name]) / 2, rtol=1e-5
        )
    with pytest.raises(ValueError, match="combine: 6 features .* 4 networks"):
        hsic_bottleneck(combine=(1.0,) * 4)(signals(features))
    with pytest.raises(ValueError, match="combine must be numbers > 0"):
        hsic_bottleneck(combine=(1.0, 0.0))


@functools.cache
def objective_with_slope(**options):
    return with_slope(hsic_bottleneck(**options))


def value_and_slope(features, **options):
    """The loss, its gradient, and its slope along the features' own direction."""
    (loss, _), gradient = objective_with_slope(**options)(signals(features))
    gradient, features = np.asarray(gradient), np.asarray(features)
    return loss, gradient, np.sum(gradient * (features - features.mean(axis=0)))


@pytest.mark.parametrize("scale", [1e-25, 3e-4, 40.0, 1e25])
def test_relative_to_their_scale_features_have_one_loss_at_every_scale(scale):
    features = drawn(20, 7)
    loss, gradient, _ = value_and_slope((features + 3) * scale, relative=True)
    wanted, wanted_gradient, _ = value_and_slope(features, relative=True)
    np.testing.assert_allclose(loss, wanted, rtol=1e-3)
    largest = np.abs(wanted_gradient).max()
    np.testing.assert_allclose(gradient * scale, wanted_gradient, atol=0.02 * largest)


def test_growing_features_lower_the_loss_only_where_widths_are_fixed():
    features = drawn(20, 7)
    slopes = {
        relative: float(value_and_slope(features, relative=relative)[2])
        for relative in (False, True)
    }
    assert slopes[False] < -100
    assert abs(slopes[True]) < 0.1


def test_relative_widths_are_those_of_features_of_unit_scale():
    features = np.asarray(drawn(20, 7), np.float64)
    features = 5 * features - 2
    unit = features - features.mean(axis=0)
    unit /= np.sqrt(np.mean(unit**2))
    options = {"balance": 3.0, "sigma": 0.7, "epsilon": 1e-2}
    loss, _ = compiled(hsic_bottleneck(**options))(signals(jnp.float32(unit)))
    own, _, _ = value_and_slope(jnp.float32(features), relative=True, **options)
    np.testing.assert_allclose(own, loss, rtol=1e-3)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    "features",
    [
        np.zeros((20, 7)),
        np.full((20, 7), 0.1),
        np.tile(np.linspace(-1e3, 1e3, 7), (20, 1)),
        np.eye(20, 7) * 1e-30,  # most samples are the same
        np.eye(20, 1),
        np.eye(20, 7) * 1e15 + 1,
    ],
    ids=["zero", "constant", "columns", "tiny", "one", "huge"],
)
def test_degenerate_features_have_a_finite_loss_and_gradient(features, relative):
    value, gradient, _ = value_and_slope(jnp.float32(features), relative=relative)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if len(np.unique(features, axis=0)) == 1:  # nothing tells the samples apart
        assert value == pytest.approx(0.75)
