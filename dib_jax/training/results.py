"""What results.json says of a finished run."""

import math
from typing import Any

from dib_jax.data.duplicates import count_duplicates
from dib_jax.training.evaluation import Evaluation
from dib_jax.training.experiment import Experiment
from dib_jax.training.position import Position
from dib_jax.training.records import LABEL
from dib_jax.training.workdir import hardware, numerics, versions


def results_of(
    experiment: Experiment,
    position: Position,
    found: Evaluation,
) -> dict[str, Any]:
    """What results.json holds, plain JSON.

    Args:
        experiment: the pieces of the run.
        position: at the end of its training.
        found: how good the network is on the test split.
    """
    task, dataset = experiment.task, experiment.dataset
    predicted = {
        n for phase in experiment.phases if phase.predicts for n in phase.exits
    }
    entries, silent = (
        [e for e in position.entries if (e[LABEL] in predicted) is wanted]
        for wanted in (True, False)
    )
    entries = [
        {**entry, "test": metrics}
        for entry, metrics in zip(entries, found.test, strict=True)
    ]
    # Exits of one phase have trained in the same seconds, which count once.
    by_exit = {entry[LABEL]: entry["seconds"] for entry in position.entries}
    seconds = math.fsum(by_exit[phase.exits[-1]] for phase in experiment.phases)

    def largest(name: str) -> int | None:
        return max(
            (e[name] for e in position.entries if e[name] is not None), default=None
        )

    results = {
        **experiment.about,
        "dataset_description": dataset.description,
        "metric": task.metric,
        "measures": {name: m._asdict() for name, m in task.measures.items()},
        "duplicates": count_duplicates(dataset),
        "test": entries[-1]["test"],
        "validation": entries[-1]["validation"],
        f"{LABEL}s": entries,
        "temp_bytes": largest("temp_bytes"),
        "peak_bytes": largest("peak_bytes"),
        "seconds": round(seconds, 3),
        "compile_seconds": round(position.compile_seconds, 3),
        "hardware": hardware(experiment.mesh.devices.tolist()),
        "versions": versions(),
        "jax": numerics(),
        **task.beside(found.outputs, dataset.test, dataset.train),
    }
    if silent:
        results["without_outputs"] = silent
    for name in ("ensemble", "ensemble_validation", "one_view"):
        if metrics := getattr(found, name):
            results[name] = metrics
    return results
