import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from dib_jax.information import label_gram
from dib_jax.tasks.classification import classification
from dib_jax.tasks.exhibits import Answers


def test_metrics_are_those_of_scikit_learn():
    outputs = jax.random.normal(jax.random.key(0), (50, 5))
    labels = jax.random.randint(jax.random.key(1), (50,), 0, 5)
    got = classification(num_classes=5).metrics(outputs, labels)
    probabilities = jax.nn.softmax(outputs)
    accuracy = sklearn.metrics.accuracy_score(labels, outputs.argmax(-1))
    loss = sklearn.metrics.log_loss(labels, probabilities, labels=range(5))
    np.testing.assert_allclose(got["accuracy"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(got["loss"], loss, rtol=1e-5)


def test_label_smoothing_mixes_in_the_loss_of_a_uniform_target():
    outputs = jax.random.normal(jax.random.key(0), (8, 4))
    labels = jnp.arange(8) % 4
    plain, terms = classification(num_classes=4).loss(outputs, labels)
    smooth, _ = classification(num_classes=4, label_smoothing=0.2).loss(outputs, labels)
    uniform = -jax.nn.log_softmax(outputs).mean()
    np.testing.assert_allclose(smooth, 0.8 * plain + 0.2 * uniform, rtol=1e-6)
    assert set(terms) == {"accuracy"}


def test_in_the_ensemble_each_head_counts_as_twice_the_one_before():
    outputs = jax.random.normal(jax.random.key(0), (3, 8, 4))
    together = classification(num_classes=4).ensemble(tuple(outputs))
    wanted = (outputs[0] + 2 * outputs[1] + 4 * outputs[2]) / 7
    np.testing.assert_allclose(together, wanted, atol=1e-6)


def test_two_hundred_heads_have_an_ensemble():
    outputs = np.zeros((200, 3, 4), np.float32)
    outputs[-1] = 2.0
    together = classification(num_classes=4).ensemble(tuple(outputs))
    np.testing.assert_allclose(together, np.ones((3, 4)), rtol=1e-6)


def test_the_target_gram_is_that_of_the_labels():
    labels = jnp.array([0, 1, 0])
    task = classification(num_classes=2)
    got = task.target_gram(task.targets({"labels": labels, "images": None}))
    np.testing.assert_array_equal(got, label_gram(labels))


def test_outputs_that_are_not_one_row_for_each_sample_are_refused():
    task = classification(num_classes=3)
    places = jnp.zeros((4, 4, 4, 3))  # as many samples as rows: they would broadcast
    for function in (task.loss, task.metrics):
        with pytest.raises(
            ValueError, match=r"must be \(4, 3\), got .*; use head.name"
        ):
            function(places, jnp.zeros(4, int))


def test_smoothing_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1"):
        classification(num_classes=3, label_smoothing=1.0)


def test_everything_that_is_recorded_has_a_name_and_the_loss_its_unit():
    task = classification(num_classes=3)
    outputs, labels = jnp.zeros((4, 3)), jnp.zeros(4, int)
    recorded = task.metrics(outputs, labels).keys() | task.loss(outputs, labels)[1]
    assert recorded == task.measures.keys()
    assert {task.metric, *task.shown} == {"accuracy"}
    assert task.measures["accuracy"].axis == "Accuracy (%)"
    assert task.measures["loss"].axis == "Loss (nats)"
    assert task.beside(outputs, {}, {}) == {}


@pytest.mark.parametrize("pictures", [True, False])
def test_classes_are_shown_with_the_pictures_that_there_are(pictures):
    labels = np.array([0, 1, 2, 1])
    outputs = 4.0 * np.eye(3)[[0, 1, 0, 1]]
    test = {"labels": labels, "features": np.zeros((4, 2))}
    if pictures:
        test["images"] = np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1)
    names, task = ("a", "b", "c"), classification(num_classes=3)
    confusion, shown = task.exhibits(Answers(outputs, test, test, names, 3, "things"))
    assert confusion.parts[1].rows == [("c", "a", "1", "100.0 %")]
    assert "3 of 4 things are on the diagonal" in confusion.parts[0].caption
    some, wrong = shown.parts
    assert [item.sample for item in some.items] == [0, 1, 2, 3]
    (mistake,) = wrong.items
    assert [(line.text, line.value) for line in mistake.lines[:2]] == [
        ("true", "c"),
        ("predicted", "a"),
    ]
    assert [line.wrong for line in mistake.lines] == [False, True, False]
    if pictures:
        np.testing.assert_array_equal(mistake.picture, test["images"][2])
    else:
        assert mistake.picture is None
