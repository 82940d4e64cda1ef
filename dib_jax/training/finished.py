"""Finished runs, read from their workdirs."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from dib_jax import checkpoints
from dib_jax.algorithms import Network
from dib_jax.training.devices import (
    from_first,
    is_first,
    mesh_of,
    own_devices,
    put,
    replicated,
    usual_arithmetic,
)
from dib_jax.training.evaluation import evaluate
from dib_jax.training.experiment import Experiment
from dib_jax.training.position import resume
from dib_jax.training.progress import Progress
from dib_jax.training.workdir import read_results


class Trained(NamedTuple):
    """A finished run.

    Attributes:
        experiment: its pieces.
        network: what it has trained.
        results: what results.json holds.
        test: metrics of each exit on the test split.
        outputs: of the last exit for the test split, (n, …).
        ensemble: metrics there of all exits together, by the task's `ensemble`; None
            with one exit or a task without such.
        ensemble_validation: those on the validation split, of the samples as they are;
            None also where the split is empty.
        one_view: metrics there of the last exit for the samples as they are, where
            outputs are averaged over views; else None.
    """

    experiment: Experiment
    network: Network
    results: dict[str, Any]
    test: list[dict[str, float]]
    outputs: np.ndarray
    ensemble: dict[str, float] | None
    ensemble_validation: dict[str, float] | None
    one_view: dict[str, float] | None


def on_own_device(trained: Trained) -> Trained:
    """A finished run on devices that no other process has a part in.

    A program on the devices of all processes waits for all of them; the first one
    measures and reports alone.

    Args:
        trained: of a run by one process or several.

    Returns:
        It, of a run by one process, or else its copy on one device of this process.
    """
    mine = own_devices()
    if set(trained.experiment.mesh.devices.flat) <= set(mine):
        return trained
    mesh = mesh_of(mine[:1])
    return trained._replace(
        experiment=trained.experiment._replace(mesh=mesh),
        network=put(jax.device_get(trained.network), replicated(mesh)),
    )


@usual_arithmetic()
def load_trained(experiment: Experiment, workdir: pathlib.Path) -> Trained:
    """A finished run from its workdir, its test outputs computed anew.

    Args:
        experiment: of the workdir's config.
        workdir: of a finished run.

    Raises:
        ValueError: there is no finished run.
        dib_jax.checkpoints.CheckpointError: the checkpoint of its end is damaged.
    """
    network, results = restore(experiment, workdir)
    return Trained(experiment, network, results, *evaluate(experiment, network))


@usual_arithmetic()
def restore(
    experiment: Experiment, workdir: pathlib.Path
) -> tuple[Network, dict[str, Any]]:
    """The network and the results of a finished run, nothing evaluated.

    Args:
        experiment: of the workdir's config; it may have been made without data.
        workdir: of a finished run.

    Raises:
        ValueError: there is no finished run.
        dib_jax.checkpoints.CheckpointError: the checkpoint of its end is damaged.
    """
    results = from_first(lambda: read_results(workdir))
    with Progress(0, shown=is_first()) as progress:
        position, network, _ = resume(workdir, experiment, progress, goes_on=False)
    if position.phase < len(experiment.phases):
        raise checkpoints.CheckpointError(
            f"{workdir / 'checkpoints'}: the checkpoint of the finished network is "
            "damaged; move results.json away, and the same run goes on from the last "
            "sound one"
        )
    return network, results
