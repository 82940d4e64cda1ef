import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.tasks import Objects
from dib_jax.tasks.detection import all_objects
from dib_jax.tasks.exhibits import Answers
from dib_jax.tasks.worth import Boxes, exhibits, gather, measure


def said(labels, boxes, scores=None, found=None):
    labels = np.array(labels)
    scores = np.full(labels.shape, 0.9) if scores is None else np.array(scores)
    found = labels >= 0 if found is None else np.array(found)
    return Objects(labels, scores, found, np.array(boxes, np.float32))


HALF, QUARTER, NONE = [0, 0, 0.5, 1], [0, 0, 0.5, 0.5], [0, 0, 0, 0]


def test_overlaps_are_those_of_the_largest_objects_and_0_where_nothing_is_found():
    boxes = Boxes(
        true_labels=np.array([[0, 1], [1, -1], [0, -1], [-1, -1]]),
        true_boxes=np.array([[QUARTER, HALF], [HALF, NONE], [HALF, NONE], [NONE] * 2]),
        objects=said(
            [[1, 0], [1, -1], [0, -1], [1, -1]],
            [[HALF, QUARTER], [QUARTER, NONE], [HALF, NONE], [HALF, NONE]],
            found=[[True, True], [True, False], [False, False], [True, False]],
        ),
        mean_box=np.array(QUARTER),
    )
    run, mean = measure(boxes, num_classes=2)
    np.testing.assert_allclose(run.iou, [1, 0.5, 0, np.nan])
    assert run.mean_iou == pytest.approx(0.5)
    np.testing.assert_allclose(mean.iou, [0.5, 0.5, 0.5, np.nan])
    # Of class 0 both boxes are in the ranking, whether they count as found or not.
    assert run.precisions[0, 0] == pytest.approx(1)
    assert run.precisions.shape == (10, 2)


def test_a_picture_without_an_object_has_no_class_that_could_be_missed():
    boxes = Boxes(
        true_labels=np.array([[0], [1], [-1], [-1]]),
        true_boxes=np.array([[HALF], [HALF], [NONE], [NONE]]),
        objects=said([[0], [1], [-1], [1]], [[HALF], [HALF], [NONE], [HALF]]),
        mean_box=np.array(HALF),
    )
    pictures = np.zeros((4, 8, 8, 3), np.uint8)
    # Every picture of a set has a label, also one without an object.
    test = {"images": pictures, "labels": np.array([0, 1, 1, 1])}
    answers = Answers(np.zeros((4, 6)), test, test, ("cat", "dog"), 0, "pictures")
    confusions, shown = exhibits(answers, boxes)[-2:]
    assert "3 of 4 pictures are on the diagonal" in confusions.parts[0].caption
    assert confusions.parts[1].rows == [("nothing", "dog", "1", "50.0 %")]
    mistakes = shown.parts[-1]
    assert [example.sample for example in mistakes.items] == [3]


def test_the_baseline_has_the_runs_classes_and_one_box():
    true = np.array([[HALF], [HALF], [QUARTER]], np.float32)
    boxes = Boxes(
        true_labels=np.array([[0], [1], [1]]),
        true_boxes=true,
        objects=said([[0], [0], [1]], true, scores=[[0.9], [0.8], [0.7]]),
        mean_box=np.array(HALF),
    )
    run, mean = measure(boxes, num_classes=2)
    assert (run.mean_iou, mean.mean_iou) == (1, pytest.approx(5 / 6))
    # Class 0: found first, then a mistake. Class 1: half of it found; at 0.5 the mean
    # box hits the quarter, which is half of it, and above 0.5 it does not.
    np.testing.assert_allclose(run.precisions[0], [1, 51 / 101], rtol=1e-6)
    np.testing.assert_allclose(mean.precisions[0], run.precisions[0], rtol=1e-6)
    np.testing.assert_allclose(mean.precisions[1], [1, 0], rtol=1e-6)
    assert mean.ap50 == pytest.approx(run.ap50)
    assert mean.mean_ap < run.mean_ap


def test_the_mean_box_is_that_of_the_largest_training_boxes():
    pixels = np.array([[[0, 0, 4, 4], [0, 0, 8, 8]], [[2, 2, 4, 4], [-1] * 4]])
    train = {
        "images": np.zeros((2, 8, 16, 3), np.uint8),
        "labels": np.array([1, 0]),
        "boxes": pixels.astype(np.float32),
        "box_labels": np.array([[0, 1], [0, -1]]),
    }
    truth = all_objects({name: jnp.asarray(x) for name, x in train.items()})
    got = gather(said([[0]], [[HALF]]), truth, train)
    np.testing.assert_allclose(got.mean_box, [1 / 16, 1 / 8, 6 / 16, 6 / 8])
    np.testing.assert_array_equal(got.true_labels, train["box_labels"])
    np.testing.assert_allclose(got.true_boxes[0, 1], [0, 0, 0.5, 1])
