import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_signals import compiled, drawn, with_slope

from dib_jax.information import hsic
from dib_jax.models.divisive_mlp import divisive_mlp
from dib_jax.objectives.plausible_hsic import grouped, plausible, plausible_hsic

pytestmark = pytest.mark.once


covariance = jax.jit(plausible)
group = jax.jit(grouped, static_argnames=("groups", "power", "smoothing"))


def test_of_kernels_with_equal_row_means_it_is_hsic():
    """Then the centring that it leaves out changes nothing."""
    x, y = (np.asarray(drawn(8, 3, seed=k)) for k in range(2))
    kernels = []
    for points in (x, y):
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
        points = np.concatenate([points, -points])  # the row means are 0
        kernels.append(1 + points @ points.T)
    a, b = kernels
    n = len(a)
    want = jax.jit(hsic)(a / n, b / n) * (n - 1) ** 2 / n**2
    np.testing.assert_allclose(covariance(a, b), want, rtol=1e-5)


def test_it_is_the_covariance_of_kernels_over_pairs():
    a, b = (np.asarray(drawn(7, 7, seed=k)) for k in range(2))
    want = np.cov(a.ravel(), b.ravel(), bias=True)[0, 1]
    np.testing.assert_allclose(covariance(a, b), want, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kernel", ["cosine", "gaussian", "linear"])
def test_the_loss_is_that_of_the_paper_and_the_heads(make_signals, kernel):
    x = make_signals().features.reshape(20, -1)
    z = np.asarray(x, np.float64)
    if kernel == "cosine":
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)
        k_z = unit @ unit.T
    elif kernel == "gaussian":
        k_z = np.exp(-np.sum((z[:, None] - z[None]) ** 2, -1) / (2 * 3.0**2))
    else:
        k_z = z @ z.T
    one_hot = np.eye(4)[np.arange(20) % 4] - 1 / 4
    unit = one_hot / np.linalg.norm(one_hot, axis=1, keepdims=True)
    kept = np.mean(k_z * k_z) - k_z.mean() ** 2
    told = np.mean(k_z * (unit @ unit.T)) - k_z.mean() * (unit @ unit.T).mean()
    objective = plausible_hsic(gamma=1.5, kernel=kernel, sigma=3.0)
    loss, terms = compiled(objective)(make_signals(features=x))
    np.testing.assert_allclose(terms["phsic_features"], kept, rtol=1e-3)
    np.testing.assert_allclose(terms["phsic_target"], told, rtol=1e-3)
    np.testing.assert_allclose(loss, kept - 1.5 * told + 0.75, rtol=1e-3)


def test_a_group_stands_for_the_variance_of_its_channels_and_places():
    x = np.asarray(drawn(5, 3, 2, 6))
    got = group(x, groups=3, power=0.5, smoothing=0.0)
    first = x[..., :2].reshape(5, -1)
    np.testing.assert_allclose(np.asarray(got)[:, 0], first.std(axis=1), rtol=1e-5)
    assert got.shape == (5, 3)
    smooth = group(x, groups=3, power=1.0, smoothing=6.0)
    np.testing.assert_allclose(
        np.asarray(smooth)[:, 0], first.var(axis=1) + 0.5, rtol=1e-5
    )


def test_descent_on_it_gathers_classes(make_signals):
    run = with_slope(plausible_hsic(groups=4))
    x, told = drawn(20, 16), []
    for _ in range(61):
        (_, terms), slope = run(make_signals(features=x))
        told.append(terms["phsic_target"])
        x = x - 2 * slope
    assert told[-1] > told[0] + 0.2


@functools.cache
def objective_with_slope(**options):
    return with_slope(plausible_hsic(**options))


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("options", [{}, {"groups": 4, "smoothing": 0.0}])
def test_collapsed_features_have_finite_gradients(make_signals, value, options):
    features = jnp.asarray(np.full((20, 8), value, np.float32))
    _, slope = objective_with_slope(**options)(make_signals(features=features))
    assert np.isfinite(slope).all()


def test_divisive_normalisation_takes_a_part_of_a_groups_variance_away():
    """Units' variance v becomes v^(1 − 2p): so the loss's power of it is undone."""
    (stage,) = divisive_mlp(widths=(12,), groups=3, power=0.2, smoothing=1e-9)
    x = drawn(5, 7)
    variables = jax.jit(functools.partial(stage.init, train=True))(jax.random.key(1), x)
    bare = divisive_mlp(widths=(12,), groups=3, power=0.0, smoothing=1e-9)[0]
    plain, divided = (
        np.asarray(jax.jit(functools.partial(s.apply, train=True))(variables, x))
        for s in (bare, stage)
    )
    one, other = (
        group(y, groups=3, power=power, smoothing=0.0)
        for y, power in ((plain, 0.8), (divided, 0.8 / 0.6))
    )
    np.testing.assert_allclose(other, one, rtol=1e-4)
    np.testing.assert_allclose(divided.reshape(5, 3, 4).mean(axis=-1), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "gamma must be a number > 0, got 0"),
        ({"kernel": "student"}, r"kernel must be .*got 'student'"),
        ({"groups": -1}, "groups and smoothing must be ≥ 0, got -1"),
    ],
)
def test_an_option_out_of_its_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        plausible_hsic(**options)


def test_groups_that_do_not_divide_the_channels_are_refused(make_signals):
    with pytest.raises(ValueError, match="groups: 5 does not divide 6"):
        plausible_hsic(groups=5)(make_signals())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": ()}, "one or more numbers"),
        ({"widths": (8,), "groups": 3}, "groups must divide every width"),
        ({"power": 1.5}, "power must be 0 to 1"),
        ({"smoothing": 0.0}, "smoothing must be > 0"),
    ],
)
def test_an_impossible_divisive_network_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        divisive_mlp(**options)
