"""Deep linear networks, one layer at a time: what the mathematics promises of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import linear

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def problem(inputs, outputs, *, seed=0, n=40, noise=0.1):
    random = np.random.default_rng(seed)
    x = random.normal(size=(inputs, n)) / n**0.5
    target = random.normal(size=(outputs, inputs))
    return x, target @ x + noise * random.normal(size=(outputs, n))


def network(sizes, seed=0):
    return linear.orthogonal_like(jax.random.key(seed), sizes)


def random_weights(sizes, seed=0):
    random = np.random.default_rng(seed)
    shapes = [(after, before) for before, after in itertools.pairwise(sizes)]
    return tuple(random.normal(size=shape) for shape in shapes)


@pytest.mark.parametrize("sizes", [(3, 7, 8, 9, 5), (5, 6, 7, 3), (4, 4, 4), (3, 5)])
def test_orthogonal_like_layers_are_partial_isometries_of_full_rank(sizes):
    weights = network(sizes)
    rank = max(sizes[0], sizes[-1])
    for weight, shape in zip(weights, itertools.pairwise(sizes), strict=True):
        assert weight.shape == shape[::-1]
        values = np.linalg.svd(weight, compute_uv=False)
        ones = min(rank, *shape)
        assert np.allclose(values, [1] * ones + [0] * (len(values) - ones), atol=1e-12)
    whole = np.linalg.svd(linear.product(weights), compute_uv=False)
    np.testing.assert_allclose(whole, 1, atol=1e-12)


@pytest.mark.parametrize("ends", [(6, 3), (3, 6), (4, 4)])
@pytest.mark.parametrize("start", linear.STARTS)
def test_neither_width_nor_depth_changes_the_first_steps(ends, start):
    x, y = problem(*ends)
    widths = [(6, 6, 6), (9, 7, 30), (6,) * 5]
    losses = []
    for hidden in widths:
        weights, first = linear.sweep(
            network((ends[0], *hidden, ends[1])), x, y, start=start
        )
        second = linear.sweep(weights, x, y, start=start)[1]
        losses.append((np.asarray(first), np.asarray(second)))
    thin, wide, deep = losses
    np.testing.assert_allclose(thin, wide, rtol=1e-11)
    # As deep as four layers, one of six has made the same four steps.
    np.testing.assert_allclose(deep[0][:4], thin[0], rtol=1e-11)
    assert np.all(np.diff(deep[0]) < 0)


@pytest.mark.parametrize("start", linear.STARTS)
def test_a_sweep_is_its_steps_one_after_the_other(start):
    x, y = problem(4, 3)
    stepwise = random_weights((4, 5, 2, 6, 3))
    swept, losses = linear.sweep(stepwise, x, y, start=start)
    seen = []
    for layer in range(4) if start == "bottom" else range(3, -1, -1):
        stepwise = linear.step(stepwise, layer, x, y)
        seen.append(linear.loss(stepwise, x, y))
    np.testing.assert_allclose(losses, seen, rtol=1e-10)
    for one, other in zip(swept, stepwise, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    again, twice = linear.train(swept, x, y, sweeps=2, start=start)
    assert twice.shape == (2, 4)
    np.testing.assert_allclose(twice[-1, -1], linear.loss(again, x, y), rtol=1e-10)


def test_a_step_follows_the_gradient_that_jax_derives():
    x, y = problem(4, 3)
    weights = random_weights((4, 5, 6, 3))
    gradients = jax.grad(linear.loss)(weights, x, y)
    for layer in range(3):
        after = linear.step(weights, layer, x, y, rate=0.01)
        change = [new - old for new, old in zip(after, weights, strict=True)]
        np.testing.assert_allclose(change[layer], -0.01 * gradients[layer], rtol=1e-9)
        assert not any(np.any(change[other]) for other in range(3) if other != layer)
    together = linear.descend(weights, x, y, rate=0.01)
    for new, old, gradient in zip(together, weights, gradients, strict=True):
        np.testing.assert_allclose(new - old, -0.01 * gradient, rtol=1e-9)


@functools.partial(jax.jit, static_argnames="layer")
def around_the_best_rate(weights, x, y, layer):
    rate = linear.optimal_rate(weights, layer, x, y)

    def at(share):
        return linear.loss(linear.step(weights, layer, x, y, rate=share * rate), x, y)

    return jax.vmap(at)(jnp.asarray([0.0, 0.9, 1.0, 1.1, 2.0]))


def test_the_rate_is_the_best_and_twice_it_gains_nothing():
    x, y = problem(4, 3)
    weights = random_weights((4, 5, 6, 3))
    for layer in range(3):
        none, less, best, more, twice = around_the_best_rate(weights, x, y, layer)
        assert best < less < none
        assert best < more < none
        np.testing.assert_allclose(twice, none, rtol=1e-10)  # a parabola
        np.testing.assert_allclose(less, more, rtol=1e-10)


@pytest.mark.parametrize("sizes", [(3, 2), (4, 6, 3), (2, 5, 3, 4), (6, 4, 2, 5, 1)])
def test_the_best_rate_raises_the_loss_of_no_random_problem(sizes):
    count = 250  # a thousand in all

    @jax.jit
    @jax.vmap
    def ratios(weights, x, y):
        before = linear.loss(weights, x, y)
        steps = [linear.step(weights, layer, x, y) for layer in range(len(weights))]
        return jnp.stack([linear.loss(after, x, y) for after in steps]) / before

    random = np.random.default_rng(len(sizes))
    spread = 10.0 ** random.uniform(-2, 2, size=(2, count, 1, 1))
    x = spread[0] * random.normal(size=(count, sizes[0], 8))
    y = random.normal(size=(count, sizes[-1], 8))
    weights = tuple(
        spread[1] * random.normal(size=(count, after, before))
        for before, after in itertools.pairwise(sizes)
    )
    assert np.max(ratios(weights, x, y)) < 1


def test_at_the_optimum_and_at_dead_layers_the_rate_is_zero():
    x, y = problem(4, 3)
    zero = tuple(np.zeros_like(weight) for weight in random_weights((4, 5, 3)))
    for layer in range(2):
        assert linear.optimal_rate(zero, layer, x, y) == 0
    swept, losses = linear.sweep(zero, x, y)
    assert not any(np.any(weight) for weight in swept)
    np.testing.assert_allclose(losses, np.sum(y**2) / 2)
    gradient = jax.grad(lambda x: linear.optimal_rate(zero, 0, x, y))(x)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("ends", [(12, 1), (12, 4)])
def test_one_sweep_over_twenty_layers_comes_within_a_thousandth(ends):
    x, y = problem(*ends, n=400)
    least = linear.loss((linear.solve(x, y),), x, y)
    sizes = (ends[0], *[12] * 19, ends[1])
    losses = linear.sweep(network(sizes), x, y, start="top")[1]
    assert np.all(np.diff(losses) < 1e-12)  # rounding at the optimum
    assert -1e-12 < losses[-1] - least < 1e-3


def test_the_closed_solution_is_the_optimum_that_sweeps_tend_to():
    x, y = problem(5, 3)
    solution = linear.solve(x, y)
    np.testing.assert_allclose((solution @ x - y) @ x.T, 0, atol=1e-12)
    _, losses = linear.train(network((5, 6, 3)), x, y, sweeps=300)
    np.testing.assert_allclose(
        losses[-1, -1], linear.loss((solution,), x, y), rtol=1e-9
    )
    doubled = np.concatenate([x, x])  # many solutions: the smallest
    np.testing.assert_allclose(
        linear.solve(doubled, y), np.tile(solution / 2, 2), atol=1e-9
    )


def steepest_descent(whole, x, y, count, metric):
    """Losses of steps along metric(W, (W X − Y) Xᵀ), each as long as is best."""
    losses = []
    for _ in range(count):
        direction = metric(whole, (whole @ x - y) @ x.T)
        change = direction @ x
        rate = np.sum(change * (whole @ x - y)) / np.sum(change**2)
        whole = whole - rate * direction
        losses.append(np.sum((whole @ x - y) ** 2) / 2)
    return losses


@pytest.mark.parametrize("outputs", [1, 3, 6])
def test_from_the_bottom_a_sweep_is_one_layers_descent_in_another_metric(outputs):
    """M = 1 − P₀ᵀP₀ + PᵀP: of 2 × outputs directions, all where they are as many."""
    x, y = problem(6, outputs)
    weights = network((6, *[6] * 7, outputs))
    start = np.asarray(linear.product(weights))

    def metric(whole, gradient):
        return gradient @ (np.eye(6) - start.T @ start + whole.T @ whole)

    losses = linear.sweep(weights, x, y)[1]
    expected = steepest_descent(start, x, y, 8, metric)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)


@pytest.mark.parametrize("outputs", [1, 3, 6])
def test_from_the_top_a_sweep_is_one_layers_descent_in_the_metric_of_outputs(outputs):
    """P Pᵀ, which at the start is 1; of one output a number, so nothing changes."""
    x, y = problem(6, outputs)
    weights = network((6, *[6] * 7, outputs))
    start = np.asarray(linear.product(weights))
    losses = linear.sweep(weights, x, y, start="top")[1]
    expected = steepest_descent(start, x, y, 8, lambda p, gradient: p @ p.T @ gradient)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    if outputs == 1:
        one = linear.train((start,), x, y, sweeps=8)[1]
        np.testing.assert_allclose(losses, np.ravel(one), rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: network((4,)), "sizes must be (inputs, hidden widths …, outputs"),
        (lambda x, y: network((4, 0, 3)), "each at least 1, got (4, 0, 3)"),
        (
            lambda x, y: network((4, 9, 3, 3)),
            "at least max(inputs, outputs) = 4, got 3",
        ),
        (lambda x, y: linear.sweep(network((4, 3)), x, y, start="up"), "got 'up'"),
        (
            lambda x, y: linear.sweep(network((5, 3)), x, y),
            "shapes [(3, 5)], x (4, 40)",
        ),
        (lambda x, y: linear.step((), 0, x, y), "weights must be (W_1, …, W_L)"),
        (lambda x, y: linear.step(network((4, 3)), 1, x, y), "must be 0 to 0, got 1"),
        (lambda x, y: linear.loss(network((4, 3)), x.T, y), "x (40, 4)"),
        (
            lambda x, y: linear.descend(network((4, 3)), x, y[:, 1:], rate=1),
            "y (3, 39)",
        ),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(ValueError, match=".") as caught:
        call(*problem(4, 3))
    assert message in str(caught.value)
