"""What corrupted test pictures do to a finished run: accuracy, loss and calibration.

Each corruption (`dib_jax.data.corruptions`) at each strength is applied to the test
split, the same pictures for every run. The last exit answers.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dib_jax.algorithms import Batch, Network
from dib_jax.analysis.recording import stratified_rows
from dib_jax.analysis.statistics import CALIBRATION_BINS, calibration_error
from dib_jax.data import Split, size, take
from dib_jax.data.corruptions import CORRUPTIONS, STRENGTHS, check_channels, corrupt
from dib_jax.training import evaluation
from dib_jax.training.experiment import Experiment

FILE = "corruptions.json"
MEASURES = ("accuracy", "loss", "ece")
SEED = 0  # of the noise; not the run's, so that all runs see the same pictures


def check(experiment: Experiment) -> None:
    """Refuse a run that is not measured so.

    Args:
        experiment: the run's.

    Raises:
        ValueError: its task is not classification, or its samples are not pictures of
            one or three channels.
    """
    kind = experiment.dataset.kind.name
    # Only outputs that are class logits can be averaged over heads.
    if kind != "pictures" or experiment.task.ensemble is None:
        raise ValueError(
            "corruptions: only classification of pictures is measured so, got the "
            f"task {experiment.about.get('task')!r} with {kind}; give a run with "
            "task.name=classification on a set of pictures"
        )
    check_channels(experiment.dataset.test["images"])


def some(split: Split, samples: int) -> Split:
    """A part of a test split, the same one for every run, each class by its share.

    Args:
        split: with its labels.
        samples: how many; 0 for all.

    Raises:
        ValueError: there are not so many.
    """
    count = size(split)
    if not 0 <= samples <= count:
        raise ValueError(
            f"corruptions: {samples} of the {count} test pictures; give 1 to {count}, "
            "or none for all"
        )
    if samples in (0, count):
        return split
    return take(split, stratified_rows(split["labels"], samples, seed=SEED))


def measure(
    experiment: Experiment, network: Network, *, samples: int = 0
) -> dict[str, Any]:
    """Metrics on the clean and the corrupted test split, as plain JSON.

    Args:
        experiment: the run's.
        network: what it has trained.
        samples: how many test pictures are used (`some`); 0 for all.

    Returns:
        `clean`; `corrupted`: corruption → a list by strength; `mean` of these over all
        corruptions and strengths. Each with `accuracy` (0..1), `loss` (negative log
        likelihood, nats) and `ece` (expected calibration error, 0..1).

    Raises:
        ValueError: the run is not measured so (`check`), or there are fewer pictures.
    """
    check(experiment)

    def last(network: Network, batch: Batch) -> tuple[jax.Array, ...]:
        return experiment.algorithm.predict(network, batch)[-1:]

    predict = evaluation.predictor(experiment, last, views=experiment.views)
    test = some(experiment.dataset.test, samples)

    def scores(images: np.ndarray) -> dict[str, float]:
        split = {**test, "images": images}
        data = evaluation.place(experiment, split)
        given = evaluation.contents(experiment, data.samples)
        (outputs,) = predict(network, data.common, given)
        return _scores(experiment, outputs, split)

    corrupted = {
        name: [
            {"strength": strength, "parameter": parameter}
            | scores(corrupt(test["images"], name, strength=strength, seed=SEED))
            for strength, parameter in zip(
                STRENGTHS, corruption.parameters, strict=True
            )
        ]
        for name, corruption in CORRUPTIONS.items()
    }
    every = [row for rows in corrupted.values() for row in rows]
    return {
        "seed": SEED,
        "bins": CALIBRATION_BINS,
        "samples": size(test),
        "clean": scores(test["images"]),
        "corrupted": corrupted,
        "mean": mean_of(every),
    }


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure.

    Args:
        rows: with `accuracy`, `loss` and `ece` each.
    """
    return {name: statistics.fmean(row[name] for row in rows) for name in MEASURES}


def _scores(
    experiment: Experiment, outputs: jax.Array, split: Split
) -> dict[str, float]:
    (metrics,) = evaluation.metrics_of(experiment.task, (outputs,), split)
    logits = np.asarray(outputs)
    sure = np.asarray(jax.nn.softmax(outputs).max(axis=-1), np.float64)
    right = logits.argmax(axis=-1) == split["labels"]
    error, _ = calibration_error(sure, right)
    return {"accuracy": metrics["accuracy"], "loss": metrics["loss"], "ece": error}
