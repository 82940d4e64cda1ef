"""What is being predicted: outputs, loss, metrics, what they are called, target Gram.

A task owns all that is particular to it, also in the report: what its metrics are
called, and what there is to see beside them (`dib_jax.tasks.exhibits`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.tasks.exhibits import Answers, Exhibit

Batch = dict[str, jax.Array]
Split = Mapping[str, np.ndarray]


class Objects(NamedTuple):
    """What a head's outputs say of n samples, in a form that all tasks share.

    Attributes:
        labels: int (n, k), classes of at most k objects, −1 for none.
        scores: (n, k), 0..1, how sure each is; the highest first.
        found: bool (n, k), those that count where a sample gets one answer; lists that
            are ranked by score, as for average precision, hold the others too.
        boxes: (n, k, 4), x1, y1, x2, y2 as shares of the picture's width and height,
            inside it; None for a task without boxes.
    """

    labels: jax.Array
    scores: jax.Array
    found: jax.Array
    boxes: jax.Array | None

    @classmethod
    def surest(cls, logits: jax.Array, boxes: jax.Array | None = None) -> "Objects":
        """One object for each sample, of the class with the highest logit."""
        labels = jnp.argmax(logits, axis=-1)[:, None]
        scores = jax.nn.softmax(logits).max(axis=-1)[:, None]
        return cls(labels, scores, jnp.ones(labels.shape, bool), boxes)


class Measure(NamedTuple):
    """What a metric or term is called.

    Attributes:
        label: as at the head of a column, such as `Accuracy`.
        unit: such as nats; "%" for a share, 0..1, that is shown in per cent; "" for
            none.
        counts_samples: whether it is the share of samples that are right, for which
            there is Wilson's interval.
    """

    label: str
    unit: str = ""
    counts_samples: bool = False

    @property
    def scale(self) -> float:
        """By which a value is multiplied to be shown."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def axis(self) -> str:
        """The label with its unit, as for an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def inline(self) -> str:
        """The label within a sentence: `Accuracy` → accuracy, AP50 as it is."""
        head, tail = self.label[:1], self.label[1:]
        return head.lower() + tail if tail[:1].islower() else self.label


def measures_of(results: Mapping[str, Any]) -> dict[str, Measure]:
    """The measures that results.json of a run tells of.

    Args:
        results: results.json; its `measures` are name → `label` and `unit`.
    """
    found = results.get("measures") or {}
    return {name: Measure(each["label"], each["unit"]) for name, each in found.items()}


def measure_of(measures: Mapping[str, Measure], name: str) -> Measure:
    """One of the measures; one that is not among them is called by its name."""
    text = name.replace("_", " ")
    return measures.get(name) or Measure(text[:1].upper() + text[1:])


class Task(NamedTuple):
    """A task as pure functions; n samples each.

    Attributes:
        num_outputs: numbers that a head has to give for a sample, or for each of its
            places.
        metric: the headline among `metrics`; higher is better.
        measures: of every metric, and of every term that `loss` records.
        targets: batch of a data set → pytree of arrays (n, …).
        loss: outputs (n, …, num_outputs), targets → scalar, dict of scalars to record.
        metrics: outputs and targets of a whole split → dict of scalars, `loss` and
            `metric` among them.
        target_gram: targets → (n, n).
        objects: outputs → what they say of the samples; None for a task that tells no
            classes.
        uses_boxes: whether `targets` reads the batch's `boxes`.
        ensemble: outputs (n, …, num_outputs) of several heads, input side first → those
            of all heads together; None where outputs cannot be averaged, as of boxes
            that may be of different objects.
        shown: metrics and terms that a line of progress shows, where they are there.
        beside: outputs for the test split, that split, the training split → further
            entries of results.json.
        exhibits: what the report shows of the outputs for the test split.
    """

    num_outputs: int
    metric: str
    measures: Mapping[str, Measure]
    targets: Callable[[Batch], Any]
    loss: Callable[[jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]]
    metrics: Callable[[jax.Array, Any], dict[str, jax.Array]]
    target_gram: Callable[[Any], jax.Array]
    objects: Callable[[jax.Array], Objects] | None = None
    uses_boxes: bool = False
    ensemble: Callable[[Sequence[jax.Array]], jax.Array] | None = None
    shown: tuple[str, ...] = ()
    beside: Callable[[np.ndarray, Split, Split], dict[str, Any]] = lambda *_: {}
    exhibits: Callable[[Answers], tuple[Exhibit, ...]] = lambda _: ()
