import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dib_jax.tasks.boxes import intersection_over_union
from dib_jax.tasks.detection import detection, largest_found
from dib_jax.tasks.scenes import assign, detect, place_boxes, place_outputs

pytestmark = pytest.mark.once

CLASSES = 3
MANY = detection(num_classes=CLASSES, objects="many")
# Compiled once for all tests whose outputs have the same places.
METRICS = jax.jit(MANY.metrics)
ASSIGN = jax.jit(assign, static_argnames=("rows", "columns"))


def batch_of(count=6, size=64):
    """Scenes with a large and a small object that are apart, and a place for a third.

    The last scene has none.
    """
    rng = np.random.default_rng(0)
    low = rng.uniform(2, 10, (count, 2))
    large = np.concatenate([low, low + rng.uniform(16, 24, (count, 2))], axis=1)
    low = rng.uniform(40, 50, (count, 2))
    small = np.concatenate([low, low + rng.uniform(4, 10, (count, 2))], axis=1)
    labels = rng.integers(0, CLASSES, (count, 3))
    labels[:, 2] = -1
    labels[-1] = -1
    boxes = np.stack([small, large, np.full_like(large, -1)], axis=1)
    return {
        "images": jnp.zeros((count, size, size, 3), jnp.uint8),
        "labels": jnp.asarray(labels[:, 1]),
        "boxes": jnp.asarray(boxes, jnp.float32),
        "box_labels": jnp.asarray(labels),
    }


def perfect(targets, places=16):
    """The outputs of a head that knows."""
    labels, boxes = jax.jit(
        jax.vmap(lambda a, b: assign(a, b, rows=places, columns=places)[:2])
    )(targets["labels"], targets["boxes"])
    # Places without an object say anything but a confident class.
    boxes = jnp.where(labels[..., None] >= 0, boxes, jnp.array([0.2, 0.2, 0.4, 0.4]))
    logits = jnp.where(jax.nn.one_hot(labels, CLASSES) > 0, 20.0, -20.0)
    return jnp.concatenate([logits, place_outputs(boxes)], axis=-1)


def test_telling_of_boxes_by_places_and_reading_them_back_changes_nothing():
    low = jax.random.uniform(jax.random.key(0), (2, 5, 7, 2))
    side = jax.random.uniform(jax.random.key(1), (2, 5, 7, 2), minval=1e-3)
    boxes = jnp.concatenate([low, low + side], axis=-1)
    np.testing.assert_allclose(place_boxes(place_outputs(boxes)), boxes, atol=3e-6)


def test_places_belong_to_the_box_whose_middle_they_lie_in():
    boxes = jnp.array([[0.0, 0.0, 1.0, 0.5]])
    labels, found, places = ASSIGN(jnp.array([2]), boxes, rows=8, columns=8)
    wanted = np.full((8, 8), -1)
    wanted[1:3, 2:6] = 2  # the inner half of the box's width and height
    np.testing.assert_array_equal(labels, wanted)
    np.testing.assert_array_equal(found[labels == 2], np.tile(boxes, (8, 1)))
    np.testing.assert_array_equal(found[labels < 0], 0)
    np.testing.assert_array_equal(places, np.where(wanted == 2, 8, 0))


def test_every_box_however_small_has_the_place_that_holds_its_centre():
    rng = np.random.default_rng(0)
    low = rng.random((50, 2)) * 0.99
    boxes = jnp.asarray(np.concatenate([low, low + 1e-3], axis=1), jnp.float32)
    every, _, _ = jax.jit(
        jax.vmap(lambda box: assign(jnp.array([1]), box[None], rows=6, columns=9))
    )(boxes)
    for row, labels in enumerate(np.asarray(every)):
        x, y = low[row] + 5e-4
        assert np.argwhere(labels == 1).tolist() == [[int(6 * y), int(9 * x)]]
    edge = jnp.array([[0.99, 0.99, 1.01, 1.01]])  # its centre on the border
    assert ASSIGN(jnp.array([0]), edge, rows=4, columns=4)[0][3, 3] == 0


def test_a_place_in_two_boxes_belongs_to_the_smaller_and_none_belongs_to_no_box():
    boxes = jnp.array([[0, 0, 1, 1], [0.375, 0.375, 0.625, 0.625], [0, 0, 0.2, 0.2]])
    labels, _, places = ASSIGN(jnp.array([0, 1, -1]), boxes, rows=8, columns=8)
    assert set(np.unique(labels[3:5, 3:5])) == {1}
    assert (labels == 0).sum() == 16 - 4
    assert labels[0, 0] == -1
    np.testing.assert_array_equal(
        places, np.where(labels == 0, 12, np.where(labels == 1, 4, 0))
    )


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_an_object_of_k_places_counts_k_to_the_power_of_one_minus_balance(balance):
    task = detection(num_classes=CLASSES, objects="many", balance=balance)
    targets = MANY.targets(batch_of())
    right = perfect(targets)
    _, _, places = jax.vmap(lambda *of: assign(*of, rows=16, columns=16))(
        targets["labels"], targets["boxes"]
    )
    first = np.zeros(places.shape, bool)
    first[0] = True
    in_large = first & (places == places[0].max())
    in_small = first & (places > 0) & ~in_large

    def ratio(task, wrong):
        """What both objects' places cost where their outputs are wrong."""
        loss = jax.jit(task.loss)

        def cost(missed):
            outputs = jnp.where(missed[..., None], wrong, right)
            return loss(outputs, targets)[0] - loss(right, targets)[0]

        return cost(in_large) / cost(in_small)

    more = in_large.sum() / in_small.sum()
    assert more > 1
    unsure = right.at[..., :CLASSES].set(-20.0)
    np.testing.assert_allclose(ratio(task, unsure), more ** (1 - balance), rtol=1e-3)
    moved = right.at[..., CLASSES:].add(1.0)
    np.testing.assert_allclose(
        ratio(task, moved) / ratio(MANY, moved), more**-balance, rtol=1e-3
    )


def test_detections_are_the_surest_places_without_doubles():
    boxes = jnp.zeros((2, 2, 4)) + jnp.array([0.1, 0.1, 0.5, 0.5])
    boxes = boxes.at[1, 1].set(jnp.array([0.6, 0.6, 1.2, 0.9]))
    scores = jnp.zeros((2, 2, 2)).at[..., 0].set(jnp.array([[0.5, 0.9], [0.7, 0.6]]))
    scores = scores.at[1, 0, 1].set(0.8)  # of another class, so no double
    got = jax.jit(detect, static_argnames=("candidates", "overlap"))(
        scores, boxes, candidates=8, overlap=0.5
    )
    np.testing.assert_array_equal(got[0], [0, 1, 0, -1])
    np.testing.assert_allclose(got[1], [0.9, 0.8, 0.6, 0])
    np.testing.assert_allclose(got[2][2], [0.6, 0.6, 1, 0.9])  # cut off
    np.testing.assert_array_equal(got[2][3], 0)


def test_perfect_outputs_find_everything_and_nothing_else():
    targets = MANY.targets(batch_of())
    outputs = perfect(targets)
    got = METRICS(outputs, targets)
    for name in ("ap50", "map", "ap50_largest", "accuracy", "mean_iou"):
        np.testing.assert_allclose(got[name], 1, rtol=1e-5)
    np.testing.assert_allclose(got["loss"], 0, atol=1e-3)
    said = jax.jit(MANY.objects)(outputs)
    np.testing.assert_array_equal(said.found.sum(axis=1), [2, 2, 2, 2, 2, 0])
    labels, scores, boxes = largest_found(said)
    np.testing.assert_array_equal(labels[:-1], targets["labels"][:-1, 1])
    np.testing.assert_allclose(boxes[:-1], targets["boxes"][:-1, 1], atol=1e-5)
    np.testing.assert_array_equal((labels[-1], scores[-1]), (-1, 0))


def test_missing_the_small_ones_costs_recall_but_not_the_largest():
    targets = MANY.targets(batch_of())
    outputs = perfect(targets)
    outputs = outputs.at[:, 9:, 9:, :CLASSES].set(-20.0)  # where the small ones are
    got = METRICS(outputs, targets)
    for name in ("ap50_largest", "accuracy", "mean_iou"):
        np.testing.assert_allclose(got[name], 1, rtol=1e-5)
    assert got["ap50"] < 0.8


def test_what_is_not_confident_is_ranked_but_not_found():
    task = detection(num_classes=CLASSES, objects="many", confidence=0.6)
    targets = task.targets(batch_of())
    outputs = perfect(targets)
    logits = jnp.where(outputs[..., :CLASSES] > 0, 4.6, outputs[..., :CLASSES])
    got = jax.jit(task.metrics)(
        outputs.at[..., :CLASSES].set(logits), targets
    )  # scores of 1/2
    np.testing.assert_allclose(got["ap50"], 1, rtol=1e-5)
    for name in ("accuracy", "mean_iou", "ap50_largest"):
        assert got[name] == 0


def test_the_loss_is_low_at_first_although_most_places_are_empty():
    task = detection(num_classes=CLASSES, objects="many")
    targets = task.targets(batch_of())
    outputs = 0.01 * jax.random.normal(jax.random.key(0), (6, 16, 16, CLASSES + 4))
    loss, terms = jax.jit(task.loss)(outputs, targets)
    assert terms["class_loss"] < 5
    np.testing.assert_allclose(loss, terms["class_loss"] + terms["box_loss"], rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda x, truth: task.loss(x, truth)[0]))
    assert np.isfinite(gradient(outputs, targets)).all()
    nowhere = jax.tree.map(lambda leaf: jnp.repeat(leaf[-1:], 6, axis=0), targets)
    nothing = gradient(outputs, nowhere)
    assert np.isfinite(nothing).all()
    np.testing.assert_array_equal(nothing[..., CLASSES:], 0)


def test_gradient_descent_on_the_loss_finds_classes_and_boxes():
    targets = MANY.targets(batch_of())
    optimizer = optax.adam(0.05)
    start = jnp.zeros((6, 16, 16, CLASSES + 4))

    def step(carry, _):
        outputs, state = carry
        gradient = jax.grad(lambda x: MANY.loss(x, targets)[0])(outputs)
        updates, state = optimizer.update(gradient, state)
        return (outputs + updates, state), None

    outputs = jax.jit(
        lambda: jax.lax.scan(step, (start, optimizer.init(start)), length=300)
    )()[0][0]
    got = METRICS(outputs, targets)
    assert got["ap50"] > 0.95
    assert got["mean_iou"] > 0.8


def test_the_target_gram_is_that_of_the_largest_objects():
    many = detection(num_classes=CLASSES, objects="many", bandwidth="0.1")
    one = detection(num_classes=CLASSES, bandwidth="0.1")
    batch = batch_of()
    grams = [jax.jit(task.target_gram)(task.targets(batch)) for task in (many, one)]
    np.testing.assert_array_equal(*grams)


def test_pictures_with_one_box_each_are_scenes_too():
    batch = batch_of()
    batch = {
        "images": batch["images"],
        "labels": batch["labels"],
        "boxes": batch["boxes"][:, 1],
    }
    targets = detection(num_classes=CLASSES, objects="many").targets(batch)
    assert targets["labels"].shape == (6, 1)
    assert targets["boxes"].shape == (6, 1, 4)
    iou = intersection_over_union(targets["boxes"][:, 0] * 64, batch["boxes"])
    np.testing.assert_allclose(iou[:-1], 1, rtol=1e-5)


def test_a_head_without_places_is_refused():
    task = detection(num_classes=CLASSES, objects="many")
    with pytest.raises(ValueError, match=r"must be \(n, h, w, 7\), .* head.name=grid"):
        task.loss(jnp.zeros((6, 7)), task.targets(batch_of()))
