"""Optimizers and learning-rate schedules by their config names."""

import jax
import numpy as np
import optax
import pytest

from dib_jax.commands import optimizers


def rates(schedule, **course):
    """The learning rate at the begin of each of ten updates, and after all."""
    given = {"steps": 10, "warmup": 4, "first": 0.0, "last": 0.0, **course}
    rate = optimizers.SCHEDULES[schedule](optimizers.Course(**given))
    return [float(rate(step)) for step in range(11)]


@pytest.mark.parametrize("schedule", optimizers.SCHEDULES)
def test_without_a_warm_up_a_learning_rate_starts_at_its_highest(schedule):
    assert rates(schedule, warmup=0)[0] == 1
    assert rates(schedule)[0] == 0


@pytest.mark.parametrize("schedule", optimizers.SCHEDULES)
def test_a_rate_grows_from_a_share_of_its_highest(schedule):
    np.testing.assert_allclose(
        rates(schedule, first=0.2)[:5], [0.2, 0.4, 0.6, 0.8, 1], rtol=1e-6
    )


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_rate_falls_to_a_share_of_its_highest(schedule):
    seen = rates(schedule, last=0.07)
    assert seen[10] == pytest.approx(0.07)
    assert seen[7] == pytest.approx((1 + 0.07) / 2)
    assert np.all(np.diff(seen[4:]) < 0)
    assert rates(schedule)[10] == pytest.approx(0, abs=1e-6)


def test_a_constant_rate_does_not_fall():
    with pytest.raises(ValueError, match=r"decay_to: got 0.1, .*schedule=constant"):
        rates("constant", last=0.1)


def test_a_rate_without_a_warm_up_does_not_grow():
    with pytest.raises(ValueError, match=r"warmup_from: got 0.2, .*warmup_epochs=0"):
        updated("sgd", warmup_from=0.2)


def updated(name, **options):
    """The first update of a kernel, a norm and an output layer, by ones and noise."""
    random = np.random.default_rng(0)
    gradients = {
        "conv": {"kernel": random.normal(size=(3, 3, 2, 6))},
        "BatchNorm_0": {"bias": np.ones(6)},
        "Dense_0": {"bias": np.ones(4)},
    }
    given = {"learning_rate": 0.5, "weight_decay": 0.0, "momentum": 0.5}
    rule = optimizers.optimizer(
        name=name,
        schedule="constant",
        warmup_epochs=0.0,
        decay_to=0.0,
        epochs=2,
        steps_per_epoch=3,
        **{**given, "warmup_from": 0.0, "norm_rate": 1.0, "lookahead": 0, **options},
    )
    params = jax.tree.map(np.zeros_like, gradients)

    @jax.jit
    def first(gradients, params):
        return rule.update(gradients, rule.init(params), params)[0]

    return gradients, jax.tree.map(np.asarray, first(gradients, params))


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_norms_may_learn_faster_and_nothing_else_does(name):
    _, plain = updated(name)
    _, fast = updated(name, norm_rate=8.0)
    norm = fast.pop("BatchNorm_0")["bias"], plain.pop("BatchNorm_0")["bias"]
    np.testing.assert_allclose(norm[0], 8 * norm[1], rtol=1e-6)
    assert np.all(norm[1] < 0)
    jax.tree.map(np.testing.assert_array_equal, fast, plain)


def test_muon_orthogonalises_a_kernel_from_all_that_an_output_reads():
    gradients, updates = updated("muon")
    matrix = updates["conv"]["kernel"].reshape(18, 6)
    drawn = np.linalg.svd(gradients["conv"]["kernel"].reshape(18, 6), compute_uv=False)
    found = np.linalg.svd(matrix, compute_uv=False)
    assert drawn[0] / drawn[-1] > 2
    assert found[0] / found[-1] < 1.8  # Newton and Schulz's five steps are rough
    # Adam's step does not know how large a gradient was.
    assert -1 < updates["Dense_0"]["bias"].max() < -0.25


def weights_after(gradients, **options):
    """A weight that starts at 0, after every update."""
    rule = optimizers.optimizer(
        name="sgd", learning_rate=1.0, weight_decay=0.0, momentum=0.0, norm_rate=1.0,
        schedule="constant", warmup_epochs=0.0, warmup_from=0.0, decay_to=0.0, epochs=1,
        steps_per_epoch=len(gradients), **options,
    )  # fmt: skip
    weight = np.zeros(())
    state = rule.init(weight)
    seen = []
    for gradient in gradients:
        update, state = rule.update(gradient, state, weight)
        weight = optax.apply_updates(weight, update)
        seen.append(float(weight))
    return seen


def test_lookahead_sets_weights_back_to_their_average_and_ends_there():
    seen = weights_after(np.full(5, -1.0), lookahead=2)
    # What is kept of the average grows with the third power of the time.
    first = (1 - 0.95**2 * (2 / 5) ** 3) * 2
    kept = 0.95**2 * (4 / 5) ** 3
    second = kept * first + (1 - kept) * (first + 2)
    want = [1, first, first + 1, second, second]  # the fifth update is the last one
    np.testing.assert_allclose(seen, want, rtol=1e-6)


def test_without_lookahead_weights_go_where_the_rule_takes_them():
    assert weights_after(np.full(3, -1.0), lookahead=0) == [1, 2, 3]


def test_fewer_updates_than_an_average_has_are_not_lost():
    assert weights_after(np.full(5, -1.0), lookahead=6) == [1, 2, 3, 4, 5]
    assert 0 < weights_after(np.full(5, -1.0), lookahead=5)[-1] < 5


def test_after_the_planned_updates_weights_stay_between_their_average_and_the_new():
    rule = optimizers._lookahead(optax.sgd(1.0), every=1, steps=2)
    weight = np.zeros(())
    state = rule.init(weight)
    for made in range(1, 9):
        update, state = rule.update(np.float32(-1), state, weight)
        assert 0 < float(update) <= 1, made
        weight = optax.apply_updates(weight, update)
