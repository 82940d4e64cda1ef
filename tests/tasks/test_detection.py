import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dib_jax.information import label_gram, renyi_entropy
from dib_jax.tasks.boxes import (
    decode,
    encode,
    generalized_iou,
    intersection_over_union,
)
from dib_jax.tasks.detection import detection
from dib_jax.tasks.exhibits import Answers


def batch_of(count=24, classes=3, size=32):
    rng = np.random.default_rng(0)
    low, side = rng.uniform(0, 12, (count, 2)), rng.uniform(4, 20, (count, 2))
    return {
        "images": jnp.zeros((count, size, 2 * size, 3), jnp.uint8),
        "labels": jnp.asarray(np.arange(count) % classes),
        "boxes": jnp.asarray(np.concatenate([low, low + side], 1), jnp.float32),
    }


def perfect(targets, classes=3):
    logits = 20 * jax.nn.one_hot(targets["labels"], classes)
    return jnp.concatenate([logits, encode(targets["boxes"]) / 0.1], axis=1)


@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_decoding_undoes_encoding(unit):
    boxes = jnp.array(
        [[0, 0, 1, 1], [0.2, 0.3, 0.4, 0.35], [0.5, 0.5, 0.5001, 0.9], [-1, 0, 3, 1]]
    )
    outputs = encode(boxes, centre=0.3, unit=unit)
    np.testing.assert_allclose(decode(outputs, 0.3, unit), boxes, atol=2e-6)


def test_boxes_of_any_outputs_have_an_area_and_no_gradient_explodes():
    outputs = jnp.array([[0, 0, -20, 20], [1e3, -1e3, 1e3, -10]], float)
    boxes = decode(outputs)
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    gradient = jax.jacobian(decode)(outputs)
    assert (jnp.abs(gradient) <= 1).all()


def test_targets_are_shares_of_the_picture_and_of_several_boxes_the_largest():
    batch = batch_of()
    one = detection(num_classes=3).targets(batch)
    np.testing.assert_allclose(
        one["boxes"] * jnp.array([64, 32, 64, 32]), batch["boxes"]
    )
    none = jnp.full((24, 1, 4), -1.0)
    small = batch["boxes"][:, None] * jnp.array([1, 1, 0.5, 0.5])
    several = {
        **batch,
        "boxes": jnp.concatenate([none, small, batch["boxes"][:, None]], axis=1),
        "box_labels": jnp.stack(
            [jnp.full(24, -1), jnp.zeros(24, int), batch["labels"]], 1
        ),
    }
    largest = detection(num_classes=3).targets(several)
    np.testing.assert_array_equal(largest["boxes"], one["boxes"])
    np.testing.assert_array_equal(largest["labels"], one["labels"])


def test_perfect_outputs_have_perfect_metrics_and_no_loss():
    task = detection(num_classes=3)
    targets = task.targets(batch_of())
    got = jax.jit(task.metrics)(perfect(targets), targets)
    for name in ("ap50", "map", "accuracy", "mean_iou"):
        np.testing.assert_allclose(got[name], 1, rtol=1e-5)
    np.testing.assert_allclose(got["loss"], 0, atol=1e-4)
    assert task.metric == "ap50"


def test_the_loss_is_cross_entropy_plus_the_weighted_loss_of_the_box():
    targets = detection(num_classes=3).targets(batch_of())
    outputs = jax.random.normal(jax.random.key(0), (24, 7))
    values = {
        name: jax.jit(detection(num_classes=3, box_loss=name, box_weight=0.7).loss)(
            outputs, targets
        )
        for name in ("huber", "giou", "both")
    }
    boxes = decode(outputs[:, 3:] / 10)
    log_shares = jax.nn.log_softmax(outputs[:, :3])
    wanted = -log_shares[jnp.arange(24), targets["labels"]].mean()
    giou = 1 - generalized_iou(boxes, targets["boxes"]).mean()
    error = np.abs(boxes - targets["boxes"])
    straight = np.where(error > 0.05, error - 0.025, error**2 / 0.1).sum(1).mean()
    for name, box in (("huber", straight), ("giou", giou), ("both", straight + giou)):
        loss, terms = values[name]
        np.testing.assert_allclose(loss, wanted + 0.7 * box, rtol=1e-5)
        np.testing.assert_allclose(terms["box_loss"], box, rtol=1e-5)
        np.testing.assert_allclose(terms["class_loss"], wanted, rtol=1e-5)
    iou = intersection_over_union(boxes, targets["boxes"]).mean()
    np.testing.assert_allclose(terms["mean_iou"], iou, rtol=1e-5)


@pytest.mark.parametrize("box_loss", ["huber", "giou", "both"])
def test_gradient_descent_on_the_loss_finds_the_boxes(box_loss):
    task = detection(num_classes=3, box_loss=box_loss)
    targets = task.targets(batch_of())
    outputs = jnp.zeros((24, 7)).at[:, 3].set(10.0)  # half beside the picture
    optimizer = optax.adam(0.5)

    def step(carry, _):
        outputs, state = carry
        gradient = jax.grad(lambda x: task.loss(x, targets)[0])(outputs)
        updates, state = optimizer.update(gradient, state)
        return (outputs + updates, state), None

    start = outputs, optimizer.init(outputs)
    outputs = jax.jit(lambda: jax.lax.scan(step, start, length=300))()[0][0]
    before, after = (jax.jit(task.loss)(x, targets)[1] for x in (start[0], outputs))
    assert before["mean_iou"] < 0.2 < 0.8 < after["mean_iou"]


def test_pictures_without_an_object_count_for_nothing():
    task = detection(num_classes=3)
    targets = task.targets(batch_of())
    outputs = jax.random.normal(jax.random.key(0), (24, 7))
    absent = {**targets, "labels": targets["labels"].at[8:].set(-1)}
    few = jax.tree.map(lambda leaf: leaf[:8], targets)
    loss, terms = jax.jit(task.loss)(outputs, absent)
    wanted, wanted_terms = jax.jit(task.loss)(outputs[:8], few)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    for name, value in wanted_terms.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: task.loss(x, absent)[0]))(outputs)
    np.testing.assert_array_equal(gradient[8:], 0)


def test_the_target_gram_tells_classes_and_places_apart():
    task = detection(num_classes=2, bandwidth="0.1")
    box, other = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.7]
    targets = {
        "labels": jnp.array([0, 0, 0, 1]),
        "boxes": jnp.array([box, box, other, box]),
    }
    near = np.exp(-(0.2**2) / (2 * 0.1**2))
    wanted = [[1, 1, near, 0], [1, 1, near, 0], [near, near, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(
        task.target_gram(targets), np.array(wanted) / 4, rtol=1e-4
    )
    alike = {**targets, "boxes": jnp.tile(jnp.array(box), (4, 1))}
    np.testing.assert_allclose(
        task.target_gram(alike), label_gram(targets["labels"]), rtol=1e-5
    )
    assert renyi_entropy(task.target_gram(targets), alpha=2) > renyi_entropy(
        task.target_gram(alike), alpha=2
    )


def test_what_is_said_of_a_picture_is_the_likeliest_class_and_a_box_inside_it():
    task = detection(num_classes=3)
    outputs = jnp.array([[0.0, 2, 1, 4, 0, 50, 0]])
    said = task.objects(outputs)
    np.testing.assert_array_equal(said.labels, [[1]])
    np.testing.assert_allclose(said.scores[0, 0], jax.nn.softmax(outputs[0, :3])[1])
    assert said.found.all()
    x1, y1, x2, y2 = said.boxes[0, 0]
    half = np.log(2) / 2
    np.testing.assert_allclose([x1, x2, y1, y2], [0, 1, 0.5 - half, 0.5 + half])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_loss": "l2"}, "box_loss must be one of .* got 'l2'"),
        ({"box_weight": -1.0}, "box_weight must be a number ≥ 0, got -1.0"),
        ({"box_weight": float("nan")}, "box_weight must be .* got nan"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"bandwidth": "widest"}, "bandwidth"),
        ({"objects": "few"}, "objects must be one of .* got 'few'"),
        ({"candidates": 0}, "candidates must be 1 to 100, got 0"),
        ({"overlap": 1.5}, "overlap must be 0 to 1, got 1.5"),
        ({"confidence": -0.1}, "confidence must be 0 to 1, got -0.1"),
        ({"objects": "many", "balance": 1.5}, "balance must be 0 to 1, got 1.5"),
        ({"balance": 1.0}, "balance is of objects=many, got 1.0 .* leave it at 0.0"),
        ({"confidence": 0.9}, "confidence is of objects=many, got 0.9 with"),
        (
            {"objects": "many", "label_smoothing": 0.1},
            "label_smoothing is of objects=one, got 0.1 .*; leave it at 0.0",
        ),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        detection(num_classes=3, **options)


def test_a_batch_without_boxes_and_a_head_of_another_form_are_refused():
    task = detection(num_classes=3)
    batch = batch_of()
    with pytest.raises(ValueError, match="needs a data set with boxes"):
        task.targets({name: batch[name] for name in ("images", "labels")})
    with pytest.raises(ValueError, match=r"must be \(n, 7\), got \(24, 4, 4, 7\)"):
        task.loss(jnp.zeros((24, 4, 4, 7)), task.targets(batch))


def test_the_report_shows_the_metrics_and_the_mean_box_that_results_hold():
    task, batch = detection(num_classes=3), batch_of(count=12, size=8)
    batch = {name: np.asarray(array) for name, array in batch.items()}
    split = {**batch, "images": np.zeros((12, 8, 16, 3), np.uint8)}
    split["boxes"] = batch["boxes"] / 4
    targets = task.targets({name: jnp.asarray(x) for name, x in split.items()})
    noise = jax.random.normal(jax.random.key(0), (12, 7)) * jnp.array([4] * 3 + [1] * 4)
    outputs = np.asarray(perfect(targets) + noise)
    metrics = jax.jit(task.metrics)(outputs, targets)
    names = ("a", "b", "c")
    made = task.exhibits(Answers(outputs, split, split, names, noun="pictures"))
    assert [x.name for x in made] == ["boxes", "precisions", "confusion", "examples"]
    run, mean = made[0].parts[0].rows
    recorded = task.beside(outputs, split, split)["mean_box"]
    for row, values in ((run, metrics), (mean, recorded)):
        assert row[1] == f"{float(values['mean_iou']):.4f}"
        assert row[3] == f"{100 * float(values['ap50']):.2f} %"
        assert row[4] == f"{100 * float(values['map']):.2f} %"
    assert 0 < recorded["ap50"] < metrics["ap50"] < 1
    right = int(np.sum(outputs[:, :3].argmax(1) == split["labels"]))
    assert f"{right} of 12 pictures" in made[2].parts[0].caption
    key, *examples = made[3].parts
    assert [color for color, _, _ in key.entries] == ["#009E73", "#D55E00"]
    assert [each.name for each in examples][:3] == ["examples", "best", "worst"]
    best = [item.lines[-1].text for item in examples[1].items]
    assert best == sorted(best, reverse=True)
    assert best[0].startswith("IoU 0.")
    assert examples[0].items[0].picture.shape == (96, 192, 3)


@pytest.mark.parametrize("objects", ["one", "many"])
def test_everything_that_is_recorded_has_a_name(objects):
    task = detection(num_classes=3, objects=objects)
    batch = batch_of(count=4)
    batch = {**batch, "boxes": batch["boxes"][:, None]}
    batch["box_labels"] = batch["labels"][:, None]
    targets = task.targets(batch)
    shape = (4, 7) if objects == "one" else (4, 2, 2, 7)
    outputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    metrics = jax.eval_shape(task.metrics, outputs, targets)
    _, terms = jax.eval_shape(task.loss, outputs, targets)
    assert metrics.keys() | terms.keys() <= task.measures.keys()
    assert {task.metric, *task.shown} <= metrics.keys()
