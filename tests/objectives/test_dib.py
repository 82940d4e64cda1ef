import functools

import example_signals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_signals import compiled, drawn, with_slope

from dib_jax.information import (
    channel_gram,
    conditional_entropy,
    gaussian_gram,
    label_gram,
    label_joint_entropy,
    label_mutual_information,
    mean_bandwidth,
    mutual_information,
    renyi_entropy,
    unit_scale,
)
from dib_jax.objectives import Signals
from dib_jax.objectives.cross_entropy import cross_entropy
from dib_jax.objectives.dib import dib

pytestmark = pytest.mark.once

exact = functools.partial(dib, samples=0, every=1)


def signals(features=None, stage=0):
    return example_signals.signals(
        network_input=drawn(20, 6, 6, 1),
        stage_input=drawn(20, 9),
        features=drawn(20, 7) if features is None else features,
        stage=stage,
    )


@functools.cache
def half():
    """The objective at β = 0.5, compiled once for all tests."""
    return compiled(exact(beta=0.5))


def gram(x):
    return gaussian_gram(x, sigma=mean_bandwidth(x))


ALPHAS = (0.8, 1.0, 1.01, 2.0)
MEASURES = {
    "input": lambda s, alpha: mutual_information(
        gram(s.network_input), gram(s.features), alpha=alpha
    ),
    "previous": lambda s, alpha: mutual_information(
        gram(s.stage_input), gram(s.features), alpha=alpha
    ),
    "entropy": lambda s, alpha: renyi_entropy(gram(s.features), alpha=alpha),
    "conditional": lambda s, alpha: conditional_entropy(
        gram(s.features), s.target_gram, alpha=alpha
    ),
}


@functools.cache
def losses_and_measures(compress):
    """Of every order: the measure, and the loss with its terms, relative and not."""

    @compiled
    def everything(given):
        return {
            alpha: (
                MEASURES[compress](given, alpha),
                {
                    relative: exact(
                        beta=0.5, alpha=alpha, compress=compress, relative=relative
                    )(given)
                    for relative in (False, True)
                },
            )
            for alpha in ALPHAS
        }

    return everything(signals())


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(
    ("compress", "term"),
    [
        ("input", "input_information"),
        ("previous", "previous_information"),
        ("entropy", "entropy"),
        ("conditional", "conditional_entropy"),
    ],
)
def test_the_loss_is_the_task_loss_plus_beta_times_the_information(
    compress, term, alpha, relative
):
    want, found = losses_and_measures(compress)[alpha]
    loss, terms = found[relative]
    # In units of their scale the features have the mean distance of that scale.
    assert float(want) > 0.1
    # The labels' Gram has eigenvalues of 0, whose rounding α < 1 magnifies.
    rounded = relative or compress == "conditional"
    close = functools.partial(
        np.testing.assert_allclose, rtol=1e-5 if rounded else 1e-6
    )
    close(terms[term], want)
    close(loss, 1.25 + 0.5 * want)


def test_beta_zero_is_cross_entropy_and_a_negative_beta_keeps_information():
    given = signals()
    plain, terms = cross_entropy()(given)
    assert terms == {}
    assert compiled(exact(beta=0.0))(given)[0] == plain == given.task_loss

    run = with_slope(exact(beta=-1.0, compress="entropy", bandwidth="1.0"))
    _, step = run(given)

    @jax.jit
    def entropy(x):
        return renyi_entropy(gaussian_gram(x, sigma=1.0), alpha=1.01)

    before = entropy(given.features)
    assert entropy(given.features - 0.1 * step) > before


def test_beta_may_be_one_number_for_each_stage():
    betas = (0.1, 0.0, -0.2)
    each = compiled(exact(beta=betas))
    plain = exact(beta=1.0)

    @compiled
    def one(given):
        information = plain(given)[1]["input_information"]
        return {
            beta: given.task_loss + beta * information  # the loss, as tested above
            for beta in betas
        }

    found = [each(signals(stage=stage))[0] for stage in range(3)]
    wanted = one(signals())
    np.testing.assert_allclose(found, [wanted[beta] for beta in betas], rtol=1e-6)
    with pytest.raises(ValueError, match="beta has 3 numbers, none for stage 3"):
        exact(beta=betas)(signals(stage=3))


def test_only_a_fixed_width_sees_the_scale_of_the_features():
    x = signals().features
    for rule in (exact(relative=False), exact(bandwidth="1.0")):
        run = compiled(rule)
        one, thousand = run(signals(x))[0], run(signals(1000 * x))[0]
        np.testing.assert_allclose(one, thousand, rtol=1e-5)
    fixed = compiled(exact(bandwidth="1.0", relative=False))
    assert abs(fixed(signals(x))[0] - fixed(signals(1000 * x))[0]) > 1e-4


@pytest.mark.parametrize("compress", ["input", "previous", "entropy", "conditional"])
def test_only_relative_widths_leave_the_scale_of_the_features_alone(compress):
    x = signals().features + 3

    def slope(**options):
        run = with_slope(exact(beta=1.0, compress=compress, **options))
        gradient = np.asarray(run(signals(x))[1])
        deviations = np.asarray(x - x.mean(axis=0))
        along = np.vdot(gradient, deviations)
        return along / np.linalg.norm(gradient) / np.linalg.norm(deviations)

    # The width passes no gradient: larger features would be more information.
    assert slope(relative=False) > 0.3
    assert abs(slope()) < 1e-4
    assert abs(slope(bandwidth="1.5")) < 1e-4


LABELS = jnp.asarray(example_signals.LABELS)


@functools.cache
def both_weights():
    """Conditional entropy at 0.5 and entropy at −0.3 at stage 0, −0.5 at stage 1."""
    return with_slope(exact(compress="conditional", beta=0.5, keep=(0.3, 0.5)))


def test_what_is_kept_and_what_is_priced_are_the_entropy_and_that_given_the_labels():
    given = signals()
    (loss, terms), gradient = both_weights()(given)

    @jax.jit
    def direct(x):
        x = unit_scale(x)
        features = gaussian_gram(x, sigma=jax.lax.stop_gradient(mean_bandwidth(x)))
        entropy = renyi_entropy(features, alpha=1.01)
        of_labels = renyi_entropy(label_gram(LABELS), alpha=1.01)
        rest = label_joint_entropy(features, LABELS, alpha=1.01) - of_labels
        return 1.25 + 0.5 * rest - 0.3 * entropy, (entropy, rest)

    want, (entropy, rest) = direct(given.features)
    np.testing.assert_allclose(terms["entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(terms["conditional_entropy"], rest, rtol=1e-5)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    slope = jax.jit(jax.grad(lambda x: direct(x)[0]))(given.features)
    np.testing.assert_allclose(gradient, slope, atol=1e-5 * np.abs(slope).max())


def test_equal_weights_reward_the_information_about_the_target():
    given = signals(stage=1)
    (loss, _), _ = both_weights()(given)

    @jax.jit
    def information(x):
        return label_mutual_information(gram(x), LABELS, alpha=1.01)

    np.testing.assert_allclose(
        loss, 1.25 - 0.5 * information(given.features), rtol=1e-5
    )
    with pytest.raises(ValueError, match="keep has 2 numbers, none for stage 2"):
        both_weights()(signals(stage=2))


def test_on_a_part_of_the_batch_it_is_given_the_targets_of_that_part():
    # Targets that are no classes: only their Gram is known.
    near = gaussian_gram(drawn(20, 2), sigma=1.0)
    given = signals()._replace(target_gram=near)
    run = compiled(exact(compress="conditional", beta=1.0, keep=0.5, samples=8))

    @jax.jit
    def direct(x, target):
        part = gram(x)
        rest = conditional_entropy(part, target, alpha=1.01)
        return 1.25 + rest - 0.5 * renyi_entropy(part, alpha=1.01)

    want = direct(given.features[:8], near[:8, :8] * 20 / 8)  # of trace 1
    np.testing.assert_allclose(run(given)[0], want, rtol=1e-5)


def test_what_is_kept_follows_the_course_and_the_steps_as_beta_does():
    options = {"compress": "conditional", "beta": 0.5, "keep": 0.3}
    falling = compiled(exact(**options, course="falling"))
    occasional = compiled(dib(**options, samples=0, every=3))
    full = both_weights()(signals())[0][0] - 1.25
    now = signals()._replace(progress=0.75)
    np.testing.assert_allclose(falling(now)[0] - 1.25, 0.25 * full, rtol=1e-4)
    for step in range(4):
        loss, terms = occasional(signals()._replace(step=step))
        want = 0.0 if step % 3 else 3 * full
        np.testing.assert_allclose(loss - 1.25, want, rtol=1e-4, atol=1e-7)
        assert all(bool(term.measured) is (step % 3 == 0) for term in terms.values())


@pytest.mark.parametrize(
    ("compress", "keep", "count"),
    [
        ("conditional", 0.0, 2),  # of T with Y, and of Y
        ("conditional", 0.3, 3),
        ("input", 0.3, 3),  # of T, X, and both
        ("entropy", 0.3, 1),
    ],
)
def test_the_features_are_decomposed_once_for_all_that_is_weighed(
    compress, keep, count
):
    objective = dib(compress=compress, beta=0.5, keep=keep)
    arrays = signals()._asdict()
    stage = arrays.pop("stage")

    def loss(features):
        return objective(Signals(stage=stage, **{**arrays, "features": features}))

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    # As written: a compiler may find out by itself what is computed twice.
    program = step.lower(arrays["features"]).as_text()
    assert program.count("call @eigh") == count


def entropy_of(**options):
    """`(features) -> (entropy, gradient of the loss)`, compiled."""
    run = with_slope(exact(compress="entropy", **options))

    def measured(features):
        (_, terms), gradient = run(signals(features))
        return terms["entropy"], gradient

    return measured


def test_with_a_scale_for_each_channel_no_channel_outweighs_the_others():
    features = drawn(20, 3, 3, 5)
    louder = features * np.float32([1.0, 10.0, 0.1, 3.0, 1.0])
    each, together = entropy_of(per_channel=True), entropy_of()
    alone, _ = each(features)
    np.testing.assert_allclose(each(louder)[0], alone, rtol=1e-5)
    assert abs(together(louder)[0] - alone) > 0.1

    # The product of the channels' Gaussian kernels, each with its own width.
    @jax.jit
    def product(features):
        scales = jnp.std(features - features.mean(0), axis=(0, 1, 2))
        width = mean_bandwidth(features / scales)
        return renyi_entropy(channel_gram(features, sigma=width * scales), alpha=1.01)

    np.testing.assert_allclose(alone, product(features), rtol=1e-5)


def test_a_dead_channel_has_no_part_in_the_joint_kernel():
    features = drawn(20, 3, 3, 5)
    dead = jnp.asarray(np.pad(features, [(0, 0)] * 3 + [(0, 1)], constant_values=7))
    each = entropy_of(per_channel=True)
    found, slopes = each(dead)
    np.testing.assert_allclose(found, each(features)[0], rtol=1e-6)
    assert np.all(np.isfinite(slopes))
    np.testing.assert_array_equal(np.asarray(slopes)[..., 5], 0)


@functools.cache
def of_collapsed(compress, relative):
    return with_slope(exact(beta=1.0, compress=compress, relative=relative))


@pytest.mark.parametrize("value", [0.0, 1e20])
@pytest.mark.parametrize("compress", ["input", "previous", "entropy", "conditional"])
@pytest.mark.parametrize("relative", [False, True])
def test_collapsed_features_hold_no_information_and_have_finite_gradients(
    relative, compress, value
):
    features = jnp.asarray(np.full((20, 7), value, np.float32))
    (loss, _), gradient = of_collapsed(compress, relative)(signals(features))
    np.testing.assert_allclose(loss, 1.25, atol=1e-3)
    assert np.isfinite(gradient).all()


def test_bfloat16_features_are_measured_in_float32():
    given = signals(jax.ShapeDtypeStruct((20, 7), jnp.bfloat16))._asdict()
    stage = given.pop("stage")
    loss, terms = jax.eval_shape(
        lambda arrays: exact()(Signals(stage=stage, **arrays)), given
    )
    assert {loss.dtype, terms["input_information"].dtype} == {jnp.dtype("float32")}


def test_on_a_part_of_the_batch_the_information_is_that_of_its_first_samples():
    given = signals()
    part = given._replace(
        network_input=given.network_input[:8], features=given.features[:8]
    )
    everything = half()
    loss, terms = compiled(exact(beta=0.5, samples=8))(given)
    want, wanted = everything(part)
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    np.testing.assert_allclose(terms["sigma"], wanted["sigma"], rtol=1e-6)
    assert abs(float(loss - everything(given)[0])) > 1e-2
    more = compiled(exact(beta=0.5, samples=64))(given)[0]  # than there are: all
    assert more == everything(given)[0]


@pytest.mark.parametrize("compress", ["entropy", "conditional"])
def test_places_of_the_maps_may_be_the_samples(compress):
    maps = drawn(20, 3, 4, 5)
    given = signals(maps)
    run = compiled(exact(beta=1.0, compress=compress, places=50))
    found = run(given)[0] - 1.25

    # All places of each map, whatever their order; they share the map's target.
    @jax.jit
    def wanted(maps, target):
        rows = jnp.repeat(jnp.arange(20), 12)
        flat = gram(unit_scale(maps).reshape(240, 5))
        target = target[rows][:, rows] / 12
        beyond = conditional_entropy(flat, target, alpha=1.01)
        whole = renyi_entropy(flat, alpha=1.01)
        return {"entropy": whole, "conditional": beyond}[compress]

    np.testing.assert_allclose(found, wanted(maps, given.target_gram), rtol=1e-5)
    few = compiled(exact(beta=1.0, compress=compress, places=2, samples=8))
    drawings = [
        few(given._replace(key=jax.random.key(seed)))[0] - 1.25 for seed in (0, 0, 1)
    ]
    assert drawings[0] == drawings[1] != drawings[2]
    assert 0 < drawings[0] < np.log2(16)


def test_the_gradient_of_places_reaches_only_those_that_were_drawn():
    run = with_slope(exact(compress="entropy", places=2, samples=8, relative=False))
    _, slopes = run(signals(drawn(20, 3, 4, 5)))
    reached = np.any(np.asarray(slopes) != 0, axis=-1).sum(axis=(1, 2))
    np.testing.assert_array_equal(reached, [2] * 8 + [0] * 12)


def test_places_need_feature_maps():
    with pytest.raises(ValueError, match=r"places=1 needs feature maps .* \(20, 7\)"):
        exact(compress="entropy", places=1)(signals())


def test_every_third_step_carries_the_penalty_of_three():
    occasional = with_slope(exact(beta=0.5, every=3))
    (always, _), slope = with_slope(exact(beta=0.5))(signals())
    for number in range(7):
        given = signals()._replace(step=number)
        (value, terms), gradient = occasional(given)
        information, sigma = terms["input_information"], terms["sigma"]
        assert bool(information.measured) is bool(sigma.measured) is (number % 3 == 0)
        if number % 3 == 0:
            np.testing.assert_allclose(value - 1.25, 3 * (always - 1.25), rtol=1e-5)
            np.testing.assert_allclose(gradient, 3 * slope, rtol=1e-4, atol=1e-7)
        else:
            assert value == 1.25
            np.testing.assert_array_equal(gradient, 0)


def test_by_default_at_most_64_samples_are_measured_at_every_fourth_step():
    x, pictures = drawn(128, 7), drawn(128, 6, 6, 1)
    given = signals(x)._replace(network_input=pictures)
    part = given._replace(network_input=pictures[:64], features=x[:64])
    penalty = half()(part)[0] - 1.25
    default = compiled(dib(beta=0.5))
    for step in range(6):
        loss, _ = default(given._replace(step=step))
        want = 4 * penalty if step % 4 == 0 else 0.0
        np.testing.assert_allclose(loss - 1.25, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("course", "weights"),
    [("constant", (1, 1, 1)), ("rising", (0, 0.25, 0.9)), ("falling", (1, 0.75, 0.1))],
)
def test_beta_may_rise_or_fall_over_the_training(course, weights):
    full = half()(signals())[0] - 1.25
    run = compiled(exact(beta=0.5, course=course))
    for progress, weight in zip((0.0, 0.25, 0.9), weights, strict=True):
        now = signals()._replace(progress=progress)
        loss = run(now)[0]
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
        ({"beta": float("inf")}, "beta must be finite, got inf"),
        ({"beta": (0.1, float("-inf"))}, "beta must be finite"),
        ({"keep": float("nan")}, "keep must be finite, got nan"),
        ({"keep": (0.1, float("inf"))}, "keep must be finite"),
        ({"samples": 1}, "samples must be 0 for all, or ≥ 2, got 1"),
        ({"places": -1, "compress": "entropy"}, "places must be ≥ 0, got -1"),
        ({"places": 2}, "they need compress=entropy or conditional, got 'input'"),
        ({"every": 0}, "every must be ≥ 1, got 0"),
        ({"course": "up"}, r"course must be .*'rising'.*got 'up'"),
    ],
)
def test_an_impossible_option_is_named_with_its_value(options, message):
    with pytest.raises(ValueError, match=message):
        dib(**options)
