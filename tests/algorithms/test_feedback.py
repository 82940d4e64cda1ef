"""Errors that come back through other weights than the forward ones."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_blocks import CLASSES, batch_of, parts_of, start, steps_of

from dib_jax.algorithms.blocks import Network
from dib_jax.algorithms.end_to_end import end_to_end
from dib_jax.algorithms.feedback import angle, difference_left, feedback
from dib_jax.algorithms.parallel import parallel
from dib_jax.algorithms.sequential import sequential
from dib_jax.commands.optimizers import optimizer
from dib_jax.models.cnn import cnn
from dib_jax.models.divisive_mlp import divisive_mlp
from dib_jax.models.feedback import FEEDBACK, RULES
from dib_jax.models.heads.conv import conv
from dib_jax.models.mlp import mlp

pytestmark = pytest.mark.once

OWN = [rule for rule in RULES if rule]


def network_of(rule, **options):
    return mlp(widths=(6, 5), batch_norm=False, feedback=rule, **options)


def phase_of(rule, **options):
    parts = parts_of(network_of(rule), optimizer=lambda epochs: optax.sgd(0.1))
    (phase,) = feedback(parts, every=1, **options).phases
    return phase


@pytest.fixture(scope="module", params=OWN)
def stepped(request):
    """The rule; its state before a step and after it, and the terms of the step."""
    rule, batch = request.param, batch_of()
    phase = phase_of(rule)
    before = start(phase, Network(), batch)
    after, terms = steps_of(phase, Network(), batch, state=before)
    return rule, before[0], after[0], terms[1]


def weights(state):
    """W and B of the second stage and of the head, and W of the first stage."""
    stage, head = state.params[1]["Dense_0"], state.head["params"]["Dense_0"]
    own = [
        collections.get(FEEDBACK, {}).get("Dense_0", {})
        for collections in (state.fixed[1], state.head)
    ]
    return stage, head, own, state.params[0]["Dense_0"]


def backward(rule, layer, own):
    """B by the words of the rule, in NumPy."""
    if rule == "kolen_pollack":
        return np.asarray(layer[FEEDBACK])
    if rule in ("alignment", "mirror"):
        return np.asarray(own["kernel"])
    return np.sign(layer["kernel"]) * own["scale"] * own.get("sizes", 1)


def test_a_step_goes_down_by_the_errors_that_came_back_through_b(stepped):
    rule, before, after, _ = stepped
    batch = batch_of()
    stage, head, own, first = weights(before)
    x = np.asarray(batch.inputs).reshape(8, -1)
    one = np.maximum(x @ first["kernel"] + first["bias"], 0)
    two = np.maximum(one @ stage["kernel"] + stage["bias"], 0)
    outputs = np.asarray(two @ head["kernel"] + head["bias"])
    error = (jax.nn.softmax(outputs) - np.eye(CLASSES)[np.asarray(batch.targets)]) / 8
    to_two = (error @ backward(rule, head, own[1]).T) * (two > 0)
    to_one = (to_two @ backward(rule, stage, own[0]).T) * (one > 0)
    new_stage, new_head, _, new_first = weights(after)
    for old, new, gradient in (
        (head, new_head, two.T @ error),
        (stage, new_stage, one.T @ to_two),
        (first, new_first, x.T @ to_one),
    ):
        np.testing.assert_allclose(
            new["kernel"], old["kernel"] - 0.1 * gradient, atol=2e-6
        )


def test_what_a_step_does_to_b_is_the_rule(stepped):
    rule, before, after, _ = stepped
    (stage, head, own, _), (new_stage, new_head, new, _) = (
        weights(before),
        weights(after),
    )
    for old_layer, layer, old_kept, kept in (
        (stage, new_stage, own[0], new[0]),
        (head, new_head, own[1], new[1]),
    ):
        if rule == "kolen_pollack":
            np.testing.assert_allclose(
                layer[FEEDBACK] - old_layer[FEEDBACK],
                layer["kernel"] - old_layer["kernel"],
                atol=1e-6,
            )
            assert not kept
            assert not np.allclose(layer[FEEDBACK], old_layer[FEEDBACK], atol=1e-4)
        elif rule in ("mirror", "sign_random_batch"):
            name = {"mirror": "kernel", "sign_random_batch": "sizes"}[rule]
            assert (kept[name] != old_kept[name]).any()
        else:
            chex.assert_trees_all_equal(kept, old_kept)


def test_recorded_angles_are_those_of_the_weights_and_of_the_gradients(stepped):
    rule, before, _, terms = stepped
    stage, head, own, _ = weights(before)
    for name, layer, kept in (
        ("stage1_Dense_0", stage, own[0]),
        ("head", head, own[1]),
    ):
        b, w = backward(rule, layer, kept).ravel(), np.ravel(layer["kernel"])
        cosine = b @ w / np.linalg.norm(b) / np.linalg.norm(w)
        measured = terms[f"{name}_weight_angle"]
        assert measured.measured
        np.testing.assert_allclose(measured.value, np.degrees(np.arccos(cosine)), 1e-3)
    # The output layer's error is exact, and the first layer has no weights back.
    assert terms["head_gradient_angle"].value == 0
    assert "stage0_Dense_0_weight_angle" not in terms
    for name in ("stage0_Dense_0", "stage1_Dense_0"):
        assert 1 < terms[f"{name}_gradient_angle"].value < 180


def test_with_b_equal_to_the_transpose_it_is_back_propagation():
    phase = phase_of("alignment")
    (state,) = start(phase, Network())
    stage, head, *_ = weights(state)
    fixed = (state.fixed[0], {FEEDBACK: {"Dense_0": {"kernel": stage["kernel"]}}})
    own = {FEEDBACK: {"Dense_0": {"kernel": head["kernel"]}}}
    equal = (state.replace(fixed=fixed, head={**state.head, **own}),)
    (ours,), terms = steps_of(phase, Network(), batch_of(), state=equal)
    parts = parts_of(network_of(""), optimizer=lambda epochs: optax.sgd(0.1))
    (theirs,), _ = steps_of(end_to_end(parts).phases[0], Network(), batch_of())
    chex.assert_trees_all_close(ours.params, theirs.params, rtol=1e-6)
    assert terms[1]["stage0_Dense_0_gradient_angle"].value < 1e-2


def test_the_initial_weights_are_the_same_under_each_rule(stepped):
    _, before, *_ = stepped
    parts = parts_of(network_of(""))
    (plain,) = start(end_to_end(parts).phases[0], Network())
    for ours, theirs in zip(weights(before), weights(plain), strict=True):
        if isinstance(theirs, dict):
            ours = {name: ours[name] for name in theirs}
            chex.assert_trees_all_equal(ours, theirs)


def test_weight_decay_does_not_reach_a_fixed_b_and_reaches_kolen_and_pollacks():
    """It would take a fixed B to 0, and with it what the layers below are told."""
    decayed = optax.chain(optax.set_to_zero(), optax.add_decayed_weights(-0.5))
    for rule in ("alignment", "kolen_pollack"):
        parts = parts_of(network_of(rule), optimizer=lambda epochs: decayed)
        (phase,) = feedback(parts).phases
        before = start(phase, Network())
        after, _ = steps_of(phase, Network(), batch_of(), state=before)
        pairs = zip(weights(before[0])[:2], weights(after[0])[:2], strict=True)
        for (old, new), *own in zip(
            pairs, weights(before[0])[2], weights(after[0])[2], strict=True
        ):
            np.testing.assert_allclose(new["kernel"], old["kernel"] / 2, rtol=1e-6)
            if rule == "alignment":
                chex.assert_trees_all_equal(*own)
            else:
                np.testing.assert_allclose(new[FEEDBACK], old[FEEDBACK] / 2, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_of_kolen_and_pollacks_difference_is_left_what_weight_decay_leaves(name):
    """With AdamW, too; only that its decay is not multiplied by 1 / (1 − momentum)."""
    steps = 30

    def made(epochs):
        return optimizer(
            name=name, learning_rate=0.05, weight_decay=0.1, momentum=0.8,
            schedule="constant", warmup_epochs=0, warmup_from=0, decay_to=0,
            norm_rate=1, lookahead=0, epochs=1, steps_per_epoch=steps,
        )  # fmt: skip

    left = difference_left(made(1), steps)
    factor = 5 if name == "sgd" else 1
    np.testing.assert_allclose(left, math.exp(-0.05 * 0.1 * factor * steps), rtol=0.15)
    parts = parts_of(network_of("kolen_pollack"), optimizer=made)
    (phase,) = feedback(parts).phases
    before = start(phase, Network())
    after, _ = steps_of(phase, Network(), batch_of(), state=before, steps=steps)

    def differences(state):
        return [layer["kernel"] - layer[FEEDBACK] for layer in weights(state)[:2]]

    for old, new in zip(differences(before[0]), differences(after[0]), strict=True):
        np.testing.assert_allclose(new, left * old, rtol=1e-3, atol=1e-4)


def test_the_user_is_told_where_weight_decay_cannot_align():
    def notices(rule, decay):
        sgd = optax.chain(optax.add_decayed_weights(decay), optax.sgd(0.1))
        parts = parts_of(network_of(rule), optimizer=lambda epochs: sgd, epochs=1)
        (phase,) = feedback(parts._replace(steps=100)).phases
        return phase.notices({"spread": 1.0})

    assert "37% of the initial difference" in notices("kolen_pollack", 0.1)["unaligned"]
    assert not notices("kolen_pollack", 0.5)
    assert not notices("alignment", 0.1)


def test_a_mirror_settles_on_the_weights():
    """Stein's lemma: of Gaussian noise E[ξ max(wᵀξ, 0)] = w/2."""
    parts = parts_of(network_of("mirror"), optimizer=lambda epochs: optax.sgd(0.0))
    (phase,) = feedback(parts, rate=0.2, decay=0.05, noise=4000).phases
    (state,), _ = steps_of(phase, Network(), batch_of(), steps=150)
    stage, head, own, _ = weights(state)
    for layer, kept in zip((stage, head), own, strict=True):
        # rate / (2 · decay) is 2; noise 1.2 √(d / samples in the average) is 0.01.
        slope = np.sum(kept["kernel"] * layer["kernel"]) / np.sum(layer["kernel"] ** 2)
        np.testing.assert_allclose(slope, 2, rtol=0.02)
        assert angle(kept["kernel"], layer["kernel"]) < 2


def test_sizes_drawn_anew_have_the_signs_of_the_weights_and_their_initial_size(stepped):
    rule, before, after, _ = stepped
    if not rule.startswith("sign"):
        return
    for state in (before, after):
        stage, head, own, _ = weights(state)
        for layer, kept in zip((stage, head), own, strict=True):
            b = backward(rule, layer, kept)
            np.testing.assert_array_equal(np.sign(b), np.sign(layer["kernel"]))
            spread = np.std(layer["kernel"])
            assert 0.4 * spread < np.sqrt(np.mean(b**2)) < 2.5 * spread


@pytest.mark.parametrize(
    ("turn", "degrees"), [(0.0, 0.0), (1e-3, 0.0573), (3.0, 171.9)]
)
def test_an_angle_keeps_its_digits_where_it_is_small(turn, degrees):
    one = jnp.asarray([1.0, 0.0])
    other = jnp.asarray([math.cos(turn), math.sin(turn)])
    np.testing.assert_allclose(angle(1e25 * one, other), degrees, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(angle(0 * one, other), 90, rtol=1e-5)


def test_angles_of_the_end_stand_in_the_results():
    parts = parts_of(network_of("sign_uniform"))
    algorithm = feedback(parts)
    network = algorithm.phases[0].read(start(algorithm.phases[0]), algorithm.network)
    angles = algorithm.about(network)["angles"]
    assert len(angles) == 2
    # Of Gaussian weights and their signs arccos √(2/π) = 37 degrees.
    assert all(20 < each < 50 for each in angles)
    assert all(type(each) is float for each in angles)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate must be a number > 0"),
        ({"decay": 0.0}, "decay must be 0 to 1"),
        ({"noise": 0}, "noise must be ≥ 1"),
        ({"every": 0}, "every must be ≥ 1"),
    ],
)
def test_an_impossible_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        feedback(parts_of(network_of("mirror")), **options)


def test_networks_and_heads_without_feedback_weights_are_refused():
    with pytest.raises(ValueError, match=r"algorithm.name: .* set model.feedback"):
        feedback(parts_of(network_of("")))
    with pytest.raises(ValueError, match=r"networks that can have some are mlp"):
        feedback(parts_of(divisive_mlp(groups=8, widths=(8, 8))))
    parts = parts_of(
        cnn(feedback="mirror"),
        head=lambda stage: conv(num_outputs=CLASSES, stage=stage),
    )
    with pytest.raises(ValueError, match=r"head.name: .* use head.name=linear"):
        feedback(parts)
    with pytest.raises(ValueError, match="feedback must be one of"):
        network_of("transport")
    with pytest.raises(ValueError, match="parts must be 1 with"):
        network_of("mirror", parts=2)


@pytest.mark.parametrize("algorithm", [sequential, parallel, end_to_end])
def test_feedback_weights_are_refused_where_nothing_looks_after_them(algorithm):
    with pytest.raises(ValueError, match=r"algorithm.name: .* algorithm.name=feedback"):
        algorithm(parts_of(network_of("mirror")))
