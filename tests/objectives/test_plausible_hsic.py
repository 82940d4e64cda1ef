import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.information import hsic
from dib_jax.models.divisive_mlp import divisive_mlp
from dib_jax.objectives.plausible_hsic import grouped, plausible, plausible_hsic

pytestmark = pytest.mark.once


def test_of_kernels_with_equal_row_means_it_is_hsic():
    """Then the centring that it leaves out changes nothing."""
    x, y = (jax.random.normal(jax.random.key(k), (8, 3)) for k in range(2))
    kernels = []
    for points in (x, y):
        points = points / jnp.linalg.norm(points, axis=1, keepdims=True)
        points = jnp.concatenate([points, -points])  # the row means are 0
        kernels.append(1 + points @ points.T)
    a, b = kernels
    n = len(a)
    want = hsic(a / n, b / n) * (n - 1) ** 2 / n**2
    np.testing.assert_allclose(plausible(a, b), want, rtol=1e-5)


def test_it_is_the_covariance_of_kernels_over_pairs():
    a, b = (np.asarray(jax.random.normal(jax.random.key(k), (7, 7))) for k in range(2))
    want = np.cov(a.ravel(), b.ravel(), bias=True)[0, 1]
    np.testing.assert_allclose(plausible(a, b), want, rtol=1e-4, atol=1e-7)


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
    loss, terms = objective(make_signals(features=x))
    np.testing.assert_allclose(terms["phsic_features"], kept, rtol=1e-3)
    np.testing.assert_allclose(terms["phsic_target"], told, rtol=1e-3)
    np.testing.assert_allclose(loss, kept - 1.5 * told + 0.75, rtol=1e-3)


def test_a_group_stands_for_the_variance_of_its_channels_and_places():
    x = jax.random.normal(jax.random.key(0), (5, 3, 2, 6))
    got = grouped(x, groups=3, power=0.5, smoothing=0.0)
    first = np.asarray(x)[..., :2].reshape(5, -1)
    np.testing.assert_allclose(got[:, 0], first.std(axis=1), rtol=1e-5)
    assert got.shape == (5, 3)
    smooth = grouped(x, groups=3, power=1.0, smoothing=6.0)
    np.testing.assert_allclose(smooth[:, 0], first.var(axis=1) + 0.5, rtol=1e-5)


def test_descent_on_it_gathers_classes(make_signals):
    objective = plausible_hsic(groups=4)

    def told(x):
        return objective(make_signals(features=x))[1]["phsic_target"]

    @jax.jit
    def step(x):
        return x - 2 * jax.grad(lambda x: objective(make_signals(features=x))[0])(x)

    x = jax.random.normal(jax.random.key(3), (20, 16))
    before = told(x)
    for _ in range(60):
        x = step(x)
    assert told(x) > before + 0.2


@pytest.mark.parametrize("features", [jnp.zeros((20, 8)), jnp.ones((20, 8))])
@pytest.mark.parametrize("options", [{}, {"groups": 4, "smoothing": 0.0}])
def test_collapsed_features_have_finite_gradients(make_signals, features, options):
    def loss(x):
        return plausible_hsic(**options)(make_signals(features=x))[0]

    assert bool(jnp.isfinite(jax.grad(loss)(features)).all())


def test_divisive_normalisation_takes_a_part_of_a_groups_variance_away():
    """Units' variance v becomes v^(1 − 2p): so the loss's power of it is undone."""
    (stage,) = divisive_mlp(widths=(12,), groups=3, power=0.2, smoothing=1e-9)
    x = jax.random.normal(jax.random.key(0), (5, 7))
    variables = stage.init(jax.random.key(1), x, train=True)
    bare = divisive_mlp(widths=(12,), groups=3, power=0.0, smoothing=1e-9)[0]
    plain, divided = (s.apply(variables, x, train=True) for s in (bare, stage))
    one, other = (
        grouped(y, groups=3, power=power, smoothing=0.0)
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
