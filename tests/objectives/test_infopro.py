import functools
import math

import jax
import numpy as np
import pytest
from example_signals import compiled, drawn

from dib_jax.objectives.infopro import infopro, reconstruction, supervised_contrast

pytestmark = pytest.mark.once


contrast = jax.jit(supervised_contrast, static_argnames="temperature")


def contrast_by_definition(points, labels, temperature):
    points = np.asarray(points, np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    total = 0.0
    for i, anchor in enumerate(points):
        others = [a for a in range(len(points)) if a != i]
        below = sum(np.exp(anchor @ points[a] / temperature) for a in others)
        positive = [p for p in others if labels[p] == labels[i]]
        for p in positive:
            above = np.exp(anchor @ points[p] / temperature)
            total -= np.log(above / below) / len(positive)
    return total / len(points)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_contrast_is_that_of_the_definition(temperature):
    points = drawn(11, 5)
    labels = np.arange(11) % 4  # the last class has two members
    got = contrast(points, labels, temperature=temperature)
    want = contrast_by_definition(points, labels, temperature)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_a_class_of_one_member_adds_nothing():
    value = contrast(drawn(3, 5), np.arange(3), temperature=0.1)
    np.testing.assert_array_equal(value, 0)


def test_the_contrast_of_a_point_at_zero_has_a_finite_gradient():
    points = np.zeros((6, 5), np.float32)
    points[0] = 1
    slope = jax.grad(functools.partial(supervised_contrast, temperature=0.07))
    assert np.isfinite(jax.jit(slope)(points, np.arange(6) % 2)).all()


def test_a_reconstruction_is_best_where_it_is_the_picture():
    pictures = np.random.default_rng(0).random((7, 4, 4, 2)).astype(np.float32)
    low, high = pictures.min((0, 1, 2)), pictures.max((0, 1, 2))
    share = np.clip((pictures - low) / (high - low), 1e-6, 1 - 1e-6)
    logits = np.log(share / (1 - share))
    run = jax.jit(reconstruction)
    best = run(logits, pictures)
    entropy = -np.mean(share * np.log(share) + (1 - share) * np.log(1 - share))
    np.testing.assert_allclose(best, entropy, rtol=1e-4)
    assert run(np.zeros_like(pictures), pictures) > best + 0.05
    # Whatever the scale of the network's input is.
    np.testing.assert_allclose(run(logits, 5 * pictures - 3), best, rtol=1e-4)


def modules_of(objective, stage):
    """`(features) -> what the objective's modules give`, compiled."""

    @jax.jit
    def outputs(features):
        found = {}
        for name, module in objective.modules(stage, (6, 6, 2)).items():
            variables = module.init(jax.random.key(3), features, train=True)
            found[name], _ = module.apply(
                variables, features, train=True, mutable=["batch_stats"]
            )
        return found

    return outputs


def with_modules(make_signals, objective, **changes):
    given = make_signals(**changes)
    run = modules_of(objective, given.stage)
    return given._replace(modules=run(given.features))


@pytest.mark.parametrize("features", [(20, 3, 3, 4), (20, 7)])
def test_the_decoder_gives_pictures_and_the_embedding_points(make_signals, features):
    objective = infopro(num_stages=3, embedding=9)
    given = with_modules(make_signals, objective, features=drawn(*features))
    assert given.modules["decoder"].shape == (20, 6, 6, 2)
    assert given.modules["embedding"].shape == (20, 9)


@pytest.mark.parametrize(
    ("stage", "keep", "tell"), [(0, 4.0, 1.0), (1, 3.0, 1.5), (2, 2.0, 2.0)]
)
def test_the_weights_change_linearly_up_to_the_last_stage_but_one(
    make_signals, stage, keep, tell
):
    options = {"num_stages": 4, "reconstruct": (4.0, 2.0), "predict": (1.0, 2.0)}
    for prediction in ("contrastive", "classification"):
        objective = infopro(prediction=prediction, **options)
        given = with_modules(make_signals, objective, stage=stage)
        loss, terms = compiled(objective)(given)
        want = keep * terms["reconstruction_loss"]
        if prediction == "contrastive":
            want += tell * terms["contrastive_loss"] + 0.75
        else:
            want += tell * 1.25
        np.testing.assert_allclose(loss, want, rtol=1e-6)


def test_the_last_stage_learns_by_the_tasks_loss_alone(make_signals):
    objective = infopro(num_stages=4)
    assert objective.modules(3, (6, 6, 2)) == {}
    loss, terms = objective(make_signals(stage=3))
    assert (loss, terms) == (1.25, {})


def test_a_head_without_weight_still_learns_to_read(make_signals):
    objective = infopro(num_stages=3, prediction="classification", predict=(0.0, 1.0))
    loss, terms = compiled(objective)(with_modules(make_signals, objective))
    np.testing.assert_allclose(loss, 5 * terms["reconstruction_loss"] + 0.75, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction": "softmax"}, r"prediction must be .*got 'softmax'"),
        ({"reconstruct": (1.0, -1.0)}, "reconstruct must be two numbers ≥ 0"),
        ({"predict": (1.0, math.inf)}, "predict must be two numbers ≥ 0"),
        ({"temperature": 0.0}, "temperature must be a number > 0, got 0.0"),
        ({"embedding": 0}, "embedding must be a number > 0, got 0"),
    ],
)
def test_what_it_cannot_do_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        infopro(num_stages=3, **options)


def test_what_is_no_picture_cannot_be_reconstructed():
    with pytest.raises(ValueError, match=r"infopro reconstructs pictures .* \(13,\)"):
        infopro(num_stages=3).modules(0, (13,))
