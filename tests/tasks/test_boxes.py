import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.tasks.boxes import (
    areas,
    generalized_iou,
    intersection_over_union,
    largest,
    shares,
    suppress,
)

pytestmark = pytest.mark.once


def random_boxes(seed, *shape):
    corners = np.random.default_rng(seed).random((*shape, 2, 2))
    low, high = corners.min(axis=-2), corners.max(axis=-2)
    return jnp.array(np.concatenate([low, high], axis=-1), jnp.float32)


@pytest.mark.parametrize(
    ("a", "b", "iou", "giou"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1, 1),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7, 1 / 7 - 2 / 9),
        ((0, 0, 4, 2), (1, 0, 2, 1), 1 / 8, 1 / 8),  # inside: the hull is the larger
        ((0, 0, 1, 1), (2, 0, 3, 1), 0, -1 / 3),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0, 0),  # they touch
        ((0, 0, 1, 1), (9, 0, 10, 1), 0, -0.8),
        ((1, 1, 1, 1), (1, 1, 1, 1), 0, 0),  # no area at all
        ((0, 0, 2, 2), (1, 1, 1, 1), 0, 0),
    ],
)
def test_overlaps_of_known_boxes(a, b, iou, giou):
    a, b = jnp.array(a, float), jnp.array(b, float)
    for first, second in ((a, b), (b, a)):
        np.testing.assert_allclose(
            intersection_over_union(first, second), iou, atol=1e-6
        )
        np.testing.assert_allclose(generalized_iou(first, second), giou, atol=1e-6)


def test_overlaps_do_not_depend_on_place_or_unit():
    a, b = random_boxes(0, 50), random_boxes(1, 50)
    move, unit = jnp.array([3.0, -2.0] * 2), jnp.array([5.0, 0.25] * 2)
    for measure in (intersection_over_union, generalized_iou):
        np.testing.assert_allclose(
            measure((a + move) * unit, (b + move) * unit), measure(a, b), atol=1e-5
        )


@pytest.mark.parametrize("measure", [intersection_over_union, generalized_iou])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((0, 0, 0.1, 0.1), (0.5, 0.5, 0.9, 0.9)),
        ((0.2, 0.2, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2)),
        ((0.2, 0.2, 0.2, 0.6), (0.2, 0.3, 0.8, 0.5)),
        ((0.5, 0.5, 0.1, 0.1), (0.2, 0.2, 0.4, 0.4)),  # inside out
        ((0, 0, 1, 1), (0, 0, 1, 1)),
        ((0, 0, 0, 0), (0, 0, 0, 0)),
    ],
)
def test_gradients_of_overlaps_are_finite(measure, a, b):
    for grad in jax.grad(measure, argnums=(0, 1))(
        jnp.array(a, float), jnp.array(b, float)
    ):
        assert np.isfinite(grad).all()


def test_the_generalised_overlap_pulls_boxes_together_where_iou_is_flat():
    a, b = jnp.array([0.0, 0, 0.1, 0.1]), jnp.array([0.5, 0.5, 0.9, 0.9])
    np.testing.assert_array_equal(jax.grad(intersection_over_union)(a, b), 0)
    assert (jax.grad(generalized_iou)(a, b)[2:] > 0).all()


def suppressed_one_by_one(boxes, labels, overlap):
    """The textbook's loop."""
    kept = []
    for row in range(len(boxes)):
        rivals = [
            float(intersection_over_union(boxes[row], boxes[other]))
            for other in kept
            if labels[row] == labels[other]
        ]
        if labels[row] >= 0 and all(iou <= overlap for iou in rivals):
            kept.append(row)
    return np.isin(np.arange(len(boxes)), kept)


@pytest.mark.parametrize("overlap", [0.1, 0.5])
def test_suppression_is_the_textbooks_loop(overlap):
    boxes, labels = random_boxes(2, 40), np.random.default_rng(3).integers(-1, 3, 40)
    boxes = boxes.at[20:].set(boxes[:20] + 0.02)
    got = jax.jit(suppress, static_argnames="overlap")(boxes, labels, overlap=overlap)
    np.testing.assert_array_equal(got, suppressed_one_by_one(boxes, labels, overlap))
    assert 5 < got.sum() < 35


def test_a_suppressed_box_suppresses_no_other():
    boxes = jnp.array([[0, 0, 1, 1], [0.4, 0, 1.4, 1], [0.8, 0, 1.8, 1]])
    got = suppress(boxes, jnp.zeros(3, int), overlap=0.3)
    np.testing.assert_array_equal(got, [True, False, True])


def test_the_largest_box_is_among_those_that_are_there():
    boxes = jnp.array([[0, 0, 9, 9], [0, 0, 2, 3], [1, 1, 4, 3.5]])
    there = jnp.array([[False, True, True], [True, True, True], [False] * 3])
    got = largest(jnp.broadcast_to(boxes, (3, 3, 4)), there)
    np.testing.assert_array_equal(got, [2, 0, 0])


def test_areas_and_shares():
    np.testing.assert_array_equal(
        areas(jnp.array([[1, 2, 3, 6], [3, 0, 1, 9]])), [8, 0]
    )
    got = shares(jnp.array([[10.0, 10, 40, 20]]), height=20, width=40)
    np.testing.assert_allclose(got, [[0.25, 0.5, 1, 1]])
