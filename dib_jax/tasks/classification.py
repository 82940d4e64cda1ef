"""One class for each sample."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dib_jax.information import label_gram
from dib_jax.tasks import Measure, Objects, Task
from dib_jax.tasks.exhibits import Answers, Exhibit

_MEASURES = {
    "accuracy": Measure("Accuracy", "%", counts_samples=True),
    "loss": Measure("Loss", "nats"),
}


def classification(*, num_classes: int, label_smoothing: float = 0.0) -> Task:
    """Cross-entropy of a softmax over the classes.

    Args:
        num_classes: number of classes.
        label_smoothing: share of the target probability that is spread evenly over all
            classes in the training loss, 0 to 1 (1 excluded).

    Returns:
        The task; its metrics are `accuracy` (0..1) and `loss` (nats, not smoothed). Its
        `ensemble` of k heads averages their outputs with weights 1, 2, …, 2^(k−1).

    Raises:
        ValueError: `label_smoothing` is out of range; when called, outputs of a head
            that has not one row for each sample.

    Source: of the ensemble, Belilovsky, Eickenberg & Oyallon, arXiv 1812.11446, with
    the weights of its authors' code.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing!r}")

    def accuracy(outputs: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.mean(jnp.argmax(outputs, axis=-1) == labels)

    def check(outputs: jax.Array, labels: jax.Array) -> None:
        wanted = (*labels.shape, num_classes)
        if outputs.shape != wanted:
            raise ValueError(
                f"one class for each sample: outputs must be {wanted}, got "
                f"{outputs.shape}; use head.name=linear, conv or mlp"
            )

    def loss(outputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        check(outputs, labels)
        one_hot = jax.nn.one_hot(labels, num_classes)
        wanted = optax.smooth_labels(one_hot, label_smoothing)
        value = optax.softmax_cross_entropy(outputs, wanted).mean()
        return value, {"accuracy": accuracy(outputs, labels)}

    def metrics(outputs: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        check(outputs, labels)
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return {"accuracy": accuracy(outputs, labels), "loss": loss.mean()}

    return Task(
        num_outputs=num_classes,
        metric="accuracy",
        measures=_MEASURES,
        targets=operator.itemgetter("labels"),
        loss=loss,
        metrics=metrics,
        target_gram=label_gram,
        objects=Objects.surest,
        ensemble=_ensemble,
        shown=("accuracy",),
        exhibits=_exhibits,
    )


def _ensemble(outputs: Sequence[jax.Array]) -> jax.Array:
    # Fixed weights, so that no split has to choose them; at most 1, because 2 to
    # the power 128 overflows.
    weights = 2.0 ** jnp.arange(1 - len(outputs), 1)
    return jnp.tensordot(weights / weights.sum(), jnp.stack(outputs), axes=1)


def _exhibits(answers: Answers) -> tuple[Exhibit, ...]:
    # Late: training needs no figures, and matplotlib takes a while to load.
    from dib_jax.tasks.answers import Classes, confusions, examples

    labels, scores = map(np.asarray, jax.jit(Objects.surest)(answers.outputs)[:2])
    images = answers.test.get("images")

    def picture(sample: int) -> np.ndarray | None:
        return None if images is None else images[sample]

    true = answers.test["labels"]
    classes = Classes(answers, true, labels[:, 0], scores[:, 0], picture)
    return confusions(classes), examples(classes)
