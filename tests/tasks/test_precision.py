import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.tasks.precision import OVERLAPS, average_precisions, mean_precision


def scene(seed, pictures=60, truths=5, detections=12, classes=4):
    """Boxes near the true ones and others, with scores that are never equal."""
    rng = np.random.default_rng(seed)
    corner = rng.random((pictures, truths, 2)) * 60
    true_boxes = np.concatenate(
        [corner, corner + rng.uniform(5, 40, corner.shape)], axis=-1
    )
    true_labels = rng.integers(-1, classes, (pictures, truths))
    source = rng.integers(0, truths, (pictures, detections))
    boxes = np.take_along_axis(true_boxes, source[..., None], axis=1)
    boxes = (
        boxes
        + rng.normal(size=boxes.shape) * rng.choice([1, 3, 15], source.shape)[..., None]
    )
    boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2] + 1)
    labels = np.take_along_axis(true_labels, source, axis=1)
    labels = np.where(
        rng.random(labels.shape) < 0.7, labels, rng.integers(-1, classes, labels.shape)
    )
    count = pictures * detections
    scores = rng.permutation(count).reshape(pictures, detections) / count
    order = np.argsort(-scores, axis=1)
    boxes = np.take_along_axis(boxes, order[..., None], axis=1)
    labels, scores = (np.take_along_axis(x, order, axis=1) for x in (labels, scores))
    return boxes, labels, scores, true_boxes, true_labels


def by_pycocotools(boxes, labels, scores, true_boxes, true_labels, classes):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")

    def entries(boxes, labels, scores=None):
        found = []
        for (picture, place), label in np.ndenumerate(labels):
            if label < 0:
                continue
            x1, y1, x2, y2 = (float(side) for side in boxes[picture, place])
            entry = {
                "image_id": picture,
                "category_id": int(label),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "id": len(found) + 1,
            }
            if scores is not None:
                entry["score"] = float(scores[picture, place])
            found.append(entry)
        return found

    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": picture} for picture in range(len(labels))],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": entries(true_boxes, true_labels),
        }
        truth.createIndex()
        said = truth.loadRes(entries(boxes, labels, scores))
        evaluation = cocoeval.COCOeval(truth, said, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # (overlaps, recalls, classes, areas, detections)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return precision.mean(axis=1), evaluation.stats


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(3))
def test_precisions_are_those_of_pycocotools(seed):
    given = scene(seed)
    wanted, stats = by_pycocotools(*given, classes=4)
    got = jax.jit(average_precisions, static_argnames="num_classes")(
        *(jnp.asarray(x, jnp.float32 if x.dtype == float else int) for x in given),
        num_classes=4,
    )
    assert 0.1 < wanted[0].min() < wanted.max() < 0.9
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    np.testing.assert_allclose(mean_precision(got), stats[0], atol=1e-5)
    np.testing.assert_allclose(mean_precision(got[:1]), stats[1], atol=1e-5)
    np.testing.assert_allclose(mean_precision(got[5:6]), stats[2], atol=1e-5)


compiled = jax.jit(average_precisions, static_argnames="num_classes")


def one(box, label, score=1.0):
    return jnp.array([[box]], float), jnp.array([[label]]), jnp.array([[score]])


def test_a_detection_counts_from_its_overlap_on_and_for_its_class():
    truth = one((0, 0, 10, 10), 1)[:2]
    got = compiled(*one((0, 0, 10, 7), 1), *truth, num_classes=3)
    np.testing.assert_allclose(got[:, 1], [1.0 if t <= 0.7 else 0 for t in OVERLAPS])
    assert np.isnan(got[:, [0, 2]]).all()
    wrong = compiled(*one((0, 0, 10, 10), 2), *truth, num_classes=3)
    np.testing.assert_array_equal(wrong[:, 1], 0)
    assert mean_precision(wrong) == 0


def test_a_true_box_is_found_once_and_doubles_cost_precision():
    boxes = jnp.array([[[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30]]], float)
    scores = jnp.array([[0.9, 0.8, 0.7]])
    truths = boxes[:, [0, 2]]
    got = compiled(
        boxes, jnp.zeros((1, 3), int), scores, truths, jnp.zeros((1, 2), int),
        num_classes=1,
    )  # fmt: skip
    # Precision is 1 up to recall 1/2 and 2/3 beyond: 51 and 50 of the 101 recalls.
    np.testing.assert_allclose(got[:, 0], (51 + 50 * 2 / 3) / 101, rtol=1e-6)


def test_nothing_to_find_is_no_class_and_nothing_found_is_zero():
    box = jnp.zeros((2, 1, 4))
    none, some = jnp.full((2, 1), -1), jnp.zeros((2, 1), int)
    score = jnp.zeros((2, 1))
    nothing = compiled(box, some, score, box, none, num_classes=2)
    assert np.isnan(nothing).all()
    assert mean_precision(nothing) == 0
    missed = compiled(box, none, score, box, some, num_classes=1)
    np.testing.assert_array_equal(missed, 0)
