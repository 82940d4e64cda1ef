import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.information import (
    channel_gram,
    gaussian_gram,
    label_gram,
    mean_bandwidth,
    mutual_information,
    renyi_entropy,
)
from dib_jax.objectives import Signals
from dib_jax.objectives.cross_entropy import cross_entropy
from dib_jax.objectives.dib import dib

pytestmark = pytest.mark.once

exact = functools.partial(dib, samples=0, every=1)


def signals(features=None, stage=0):
    keys = jax.random.split(jax.random.key(0), 3)
    labels = jnp.arange(20) % 4
    return Signals(
        network_input=jax.random.normal(keys[0], (20, 6, 6, 1)),
        stage_input=jax.random.normal(keys[1], (20, 9)),
        features=jax.random.normal(keys[2], (20, 7)) if features is None else features,
        outputs=jnp.zeros((20, 4)),
        targets=labels,
        key=jax.random.key(1),
        stage=stage,
        task_loss=jnp.asarray(1.25),
        target_gram=label_gram(labels),
        head_loss=jnp.asarray(0.75),
    )


def gram(x):
    return gaussian_gram(x, sigma=mean_bandwidth(x))


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("alpha", [0.8, 1.0, 1.01, 2.0])
@pytest.mark.parametrize(
    ("compress", "term", "measure"),
    [
        (
            "input",
            "input_information",
            lambda s, alpha: mutual_information(
                gram(s.network_input), gram(s.features), alpha=alpha
            ),
        ),
        (
            "previous",
            "previous_information",
            lambda s, alpha: mutual_information(
                gram(s.stage_input), gram(s.features), alpha=alpha
            ),
        ),
        ("entropy", "entropy", lambda s, a: renyi_entropy(gram(s.features), alpha=a)),
    ],
)
def test_the_loss_is_the_task_loss_plus_beta_times_the_information(
    compress, term, measure, alpha, relative
):
    given = signals()
    options = {"alpha": alpha, "compress": compress, "relative": relative}
    loss, terms = exact(beta=0.5, **options)(given)
    # In units of their scale the features have the mean distance of that scale.
    want = measure(given, alpha)
    assert float(want) > 0.1
    close = functools.partial(
        np.testing.assert_allclose, rtol=1e-5 if relative else 1e-6
    )
    close(terms[term], want)
    close(loss, 1.25 + 0.5 * want)


def test_beta_zero_is_cross_entropy_and_a_negative_beta_keeps_information():
    given = signals()
    plain, terms = cross_entropy()(given)
    assert terms == {}
    assert exact(beta=0.0)(given)[0] == plain == given.task_loss

    def loss(x, beta):
        return exact(beta=beta, compress="entropy", bandwidth="1.0")(signals(x))[0]

    x = given.features
    step = jax.grad(loss)(x, -1.0)
    before, after = (
        renyi_entropy(gaussian_gram(point, sigma=1.0), alpha=1.01)
        for point in (x, x - 0.1 * step)
    )
    assert after > before


def test_beta_may_be_one_number_for_each_stage():
    betas = (0.1, 0.0, -0.2)
    for stage, beta in enumerate(betas):
        given = signals(stage=stage)
        one, each = exact(beta=beta)(given)[0], exact(beta=betas)(given)[0]
        assert one == each
    with pytest.raises(ValueError, match="beta has 3 numbers, none for stage 3"):
        exact(beta=betas)(signals(stage=3))


def test_only_a_fixed_width_sees_the_scale_of_the_features():
    x = signals().features
    for rule in (exact(relative=False), exact(bandwidth="1.0")):
        one, thousand = rule(signals(x))[0], rule(signals(1000 * x))[0]
        np.testing.assert_allclose(one, thousand, rtol=1e-5)
    fixed = exact(bandwidth="1.0", relative=False)
    assert abs(fixed(signals(x))[0] - fixed(signals(1000 * x))[0]) > 1e-4


@pytest.mark.parametrize("compress", ["input", "previous", "entropy"])
def test_only_relative_widths_leave_the_scale_of_the_features_alone(compress):
    def slope(**options):
        objective = exact(beta=1.0, compress=compress, **options)
        x = signals().features + 3
        gradient = jax.grad(lambda x: objective(signals(x))[0])(x)
        along = jnp.vdot(gradient, x - x.mean(axis=0))
        return float(along / jnp.linalg.norm(gradient) / jnp.linalg.norm(x - x.mean(0)))

    # The width passes no gradient: larger features would be more information.
    assert slope(relative=False) > 0.3
    assert abs(slope()) < 1e-4
    assert abs(slope(bandwidth="1.5")) < 1e-4


def test_with_a_scale_for_each_channel_no_channel_outweighs_the_others():
    key = jax.random.key(0)
    features = jax.random.normal(key, (20, 3, 3, 5))
    louder = features * jnp.asarray([1.0, 10.0, 0.1, 3.0, 1.0])

    def entropy(features, **options):
        objective = exact(compress="entropy", **options)
        return objective(signals(features))[1]["entropy"]

    alone = entropy(features, per_channel=True)
    np.testing.assert_allclose(entropy(louder, per_channel=True), alone, rtol=1e-5)
    assert abs(entropy(louder) - alone) > 0.1
    # The product of the channels' Gaussian kernels, each with its own width.
    scales = jnp.std(features - features.mean(0), axis=(0, 1, 2))
    width = mean_bandwidth(features / scales)
    product = channel_gram(features, sigma=width * scales)
    np.testing.assert_allclose(alone, renyi_entropy(product, alpha=1.01), rtol=1e-5)


def test_a_dead_channel_has_no_part_in_the_joint_kernel():
    features = jax.random.normal(jax.random.key(0), (20, 3, 3, 5))
    dead = jnp.concatenate([features, jnp.full((20, 3, 3, 1), 7.0)], axis=-1)

    def loss(features):
        return exact(compress="entropy", per_channel=True)(signals(features))[0]

    np.testing.assert_allclose(loss(dead), loss(features), rtol=1e-6)
    slopes = jax.grad(loss)(dead)
    assert jnp.all(jnp.isfinite(slopes))
    np.testing.assert_array_equal(slopes[..., 5], 0)


@pytest.mark.parametrize("features", [jnp.zeros((20, 7)), jnp.ones((20, 7)) * 1e20])
@pytest.mark.parametrize("compress", ["input", "previous", "entropy"])
@pytest.mark.parametrize("relative", [False, True])
def test_collapsed_features_hold_no_information_and_have_finite_gradients(
    relative, compress, features
):
    def loss(x):
        return exact(beta=1.0, compress=compress, relative=relative)(signals(x))[0]

    value, gradient = jax.value_and_grad(loss)(features)
    np.testing.assert_allclose(value, 1.25, atol=1e-3)
    assert bool(jnp.isfinite(gradient).all())


def test_bfloat16_features_are_measured_in_float32():
    x = signals().features.astype(jnp.bfloat16)
    loss, terms = exact()(signals(x))
    assert {loss.dtype, terms["input_information"].dtype} == {jnp.dtype("float32")}


def test_on_a_part_of_the_batch_the_information_is_that_of_its_first_samples():
    given = signals()
    part = given._replace(
        network_input=given.network_input[:8], features=given.features[:8]
    )
    loss, terms = exact(beta=0.5, samples=8)(given)
    want, wanted = exact(beta=0.5)(part)
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    np.testing.assert_allclose(terms["sigma"], wanted["sigma"], rtol=1e-6)
    assert abs(float(loss - exact(beta=0.5)(given)[0])) > 1e-2
    more = exact(beta=0.5, samples=64)(given)[0]  # than there are: all
    assert more == exact(beta=0.5)(given)[0]


def test_every_third_step_carries_the_penalty_of_three():
    x = signals().features

    @jax.jit
    def step(x, number):
        def loss(x):
            return exact(beta=0.5, every=3)(signals(x)._replace(step=number))

        (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(x)
        return value, gradient, terms["input_information"], terms["sigma"]

    every = jax.value_and_grad(lambda x: exact(beta=0.5)(signals(x))[0])(x)
    for number in range(7):
        value, gradient, information, sigma = step(x, number)
        assert bool(information.measured) is bool(sigma.measured) is (number % 3 == 0)
        if number % 3 == 0:
            np.testing.assert_allclose(value - 1.25, 3 * (every[0] - 1.25), rtol=1e-5)
            np.testing.assert_allclose(gradient, 3 * every[1], rtol=1e-4, atol=1e-7)
        else:
            assert value == 1.25
            np.testing.assert_array_equal(gradient, 0)


def test_by_default_at_most_64_samples_are_measured_at_every_fourth_step():
    x = jax.random.normal(jax.random.key(3), (128, 7))
    pictures = jax.random.normal(jax.random.key(4), (128, 6, 6, 1))
    given = signals(x)._replace(network_input=pictures)
    part = given._replace(network_input=pictures[:64], features=x[:64])
    for step in range(6):
        loss, _ = dib(beta=0.5)(given._replace(step=step))
        want = 4 * (exact(beta=0.5)(part)[0] - 1.25) if step % 4 == 0 else 0.0
        np.testing.assert_allclose(loss - 1.25, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("course", "weights"),
    [("constant", (1, 1, 1)), ("rising", (0, 0.25, 0.9)), ("falling", (1, 0.75, 0.1))],
)
def test_beta_may_rise_or_fall_over_the_training(course, weights):
    full = exact(beta=0.5)(signals())[0] - 1.25
    for progress, weight in zip((0.0, 0.25, 0.9), weights, strict=True):
        now = signals()._replace(progress=progress)
        loss = exact(beta=0.5, course=course)(now)[0]
        np.testing.assert_allclose(loss - 1.25, weight * full, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be > 0, got 0.0"),
        ({"alpha": float("nan")}, "alpha must be > 0, got nan"),
        ({"compress": "output"}, r"compress must be .*'previous'.*got 'output'"),
        ({"bandwidth": "medium"}, r"median.*got 'medium'"),
        ({"bandwidth": "-1"}, "got '-1'"),
        (
            {"per_channel": True, "relative": False},
            "per_channel=True .* needs relative=True",
        ),
        ({"samples": 1}, "samples must be 0 for all, or ≥ 2, got 1"),
        ({"every": 0}, "every must be ≥ 1, got 0"),
        ({"course": "up"}, r"course must be .*'rising'.*got 'up'"),
    ],
)
def test_an_impossible_option_is_named_with_its_value(options, message):
    with pytest.raises(ValueError, match=message):
        dib(**options)
