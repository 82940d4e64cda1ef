"""What results.json says of a finished run."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dib_jax.data.duplicates import count_duplicates
from dib_jax.tasks.worth import mean_box
from dib_jax.training.experiment import Experiment
from dib_jax.training.position import (
    Position,
)
from dib_jax.training.workdir import (
    hardware,
    versions,
)


def results_of(
    config: ml_collections.ConfigDict,
    config_name: str,
    experiment: Experiment,
    position: Position,
    test: list[dict[str, float]],
    outputs: np.ndarray,
    ensemble: dict[str, float] | None,
) -> dict[str, Any]:
    """What results.json holds, plain JSON.

    Args:
        config: of the run.
        config_name: what it is called there.
        experiment: its pieces.
        position: at the end of its training.
        test: metrics of each block's head on the test split.
        outputs: of the last head there.
        ensemble: metrics there of all heads together; None where there are none.
    """
    stages = [
        {**entry, "test": metrics}
        for entry, metrics in zip(position.stages, test, strict=True)
    ]

    # Blocks of one phase have trained in the same seconds, which count once.
    ends = itertools.accumulate(len(blocks) for blocks in experiment.phases)
    seconds = math.fsum(stages[end - 1]["seconds"] for end in ends)

    def largest(name: str) -> int | None:
        return max(
            (entry[name] for entry in stages if entry[name] is not None), default=None
        )

    results = {
        "config_name": config_name,
        "dataset": config.dataset.name,
        "dataset_description": experiment.dataset.description,
        "task": config.task.name,
        "objective": experiment.objective,
        "head": config.head.name,
        "schedule": config.schedule.name,
        "seed": config.seed,
        "metric": experiment.task.metric,
        "loss_unit": experiment.task.loss_unit,
        "duplicates": count_duplicates(experiment.dataset),
        "test": stages[-1]["test"],
        "validation": stages[-1]["validation"],
        "stages": stages,
        "temp_bytes": largest("temp_bytes"),
        "peak_bytes": largest("peak_bytes"),
        "seconds": round(seconds, 3),
        "compile_seconds": round(position.compile_seconds, 3),
        "hardware": hardware(experiment.mesh.devices.tolist()),
        "versions": versions(),
    }
    if ensemble:
        results["ensemble"] = ensemble
    if experiment.task.uses_boxes:
        results["mean_box"] = _mean_box(experiment, outputs)
    return results


def _mean_box(experiment: Experiment, outputs: np.ndarray) -> dict[str, float]:
    """Metrics of the mean training box in place of the network's boxes."""
    task, dataset = experiment.task, experiment.dataset
    # Of the pictures only the size is asked.
    test = {**dataset.test, "images": dataset.test["images"][:1]}
    return mean_box(
        jax.jit(task.objects)(outputs),
        task.targets({name: jnp.asarray(array) for name, array in test.items()}),
        dataset.train,
        num_classes=len(experiment.inputs.class_names),
    )
