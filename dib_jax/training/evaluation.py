"""What a network puts out for samples, and how good that is."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.algorithms import (
    Batch,
    Common,
    Data,
    Given,
    Network,
    Phase,
    Samples,
    in_batches,
)
from dib_jax.data import Split
from dib_jax.data.stream import stream
from dib_jax.tasks import Task
from dib_jax.training.devices import put, replicated, split_evenly
from dib_jax.training.experiment import Experiment
from dib_jax.training.storage import Stored, chain, passed

_BATCH = 512

Outputs = tuple[jax.Array, ...]
# (network, common, samples, given) → outputs of some exits for all samples.
Predictor = Callable[..., Outputs]


def place(experiment: Experiment, split: Split) -> Data:
    """A split on the device; on the host, as it is, where samples are streamed.

    Args:
        experiment: the experiment.
        split: arrays of one length.
    """
    whole = replicated(experiment.mesh)
    data = experiment.data(split)
    data = data.replace(common=put(data.common, whole))
    return data if experiment.streams else data.replace(samples=put(split, whole))


def predictor(
    experiment: Experiment, function: Callable[[Network, Batch], Outputs]
) -> Predictor:
    """A function of batches, compiled for whole splits.

    Args:
        experiment: the experiment.
        function: (network, batch) → outputs of some exits.

    Returns:
        (network, common, samples, given) → outputs for all samples. Those on the host
        are read batch by batch.
    """

    @functools.partial(jax.jit, out_shardings=replicated(experiment.mesh))
    def run(
        network: Network, common: Common, samples: Samples, given: Given
    ) -> Outputs:
        def outputs(batch: Batch) -> Outputs:
            inputs, before = split_evenly(experiment.mesh, (batch.inputs, batch.given))
            return function(network, batch._replace(inputs=inputs, given=before))

        data = Data(samples, common, experiment.prepare_inputs)
        return in_batches(outputs, data, given=given, size=_BATCH)

    def outputs(
        network: Network, common: Common, samples: Samples, given: Given = None
    ) -> Outputs:
        leaves, tree = jax.tree.flatten((samples, given))
        count = len(leaves[0])
        on_device = all(isinstance(leaf, jax.Array) for leaf in leaves)
        if on_device or count <= _BATCH:
            return run(network, common, samples, given)
        # The last sample again and again up to whole batches, cut off at the end.
        order = np.minimum(np.arange(count + -count % _BATCH), count - 1)
        order = order.reshape(-1, _BATCH)
        host = {str(i): x for i, x in enumerate(leaves) if not isinstance(x, jax.Array)}
        parts = []
        for rows, sent in zip(order, stream(host, order, steps=1), strict=True):
            batch = [
                sent[str(i)][0] if str(i) in host else leaf[rows]
                for i, leaf in enumerate(leaves)
            ]
            # Waited for: the device need not hold the samples of all of them.
            parts.append(
                jax.block_until_ready(
                    run(network, common, *jax.tree.unflatten(tree, batch))
                )
            )
        joined = zip(*parts, strict=True)
        return tuple(jnp.concatenate(part)[:count] for part in joined)

    return outputs


def contents(experiment: Experiment, samples: Mapping[str, Any]) -> dict[str, Any]:
    """Of samples, what makes up the network's input.

    Args:
        experiment: the experiment.
        samples: arrays by name.
    """
    return {
        name: array
        for name, array in samples.items()
        if name in experiment.dataset.kind.content
    }


def phase_outputs(
    experiment: Experiment, index: int
) -> Callable[[Network, Batch], Outputs]:
    """(network, batch) → the outputs of the exits that a phase trains.

    Args:
        experiment: the experiment.
        index: number of the phase.
    """
    phase: Phase = experiment.phases[index]
    functions = chain(experiment, index)

    def outputs(network: Network, batch: Batch) -> Outputs:
        if not phase.predicts:
            return ()
        if phase.outputs is None:
            batch = batch._replace(given=None)
            return experiment.algorithm.predict(network, batch)[-len(phase.exits) :]
        if batch.given is None:
            batch = passed(functions, network, batch)
        return phase.outputs(network, batch)

    return outputs


def outputs_of(experiment: Experiment, network: Network, samples: Samples) -> jax.Array:
    """What the last exit gives for samples.

    Args:
        experiment: the experiment.
        network: a trained one.
        samples: arrays by name, shaped as the data set's.

    Returns:
        (n, …).
    """

    def last(network: Network, batch: Batch) -> Outputs:
        return experiment.algorithm.predict(network, batch)[-1:]

    data = place(experiment, contents(experiment, samples))
    return predictor(experiment, last)(network, data.common, data.samples)[0]


def evaluate(
    experiment: Experiment, network: Network
) -> tuple[list[dict[str, float]], np.ndarray, dict[str, float] | None]:
    """Metrics of every exit on the test split, alone and all together.

    Args:
        experiment: the experiment.
        network: a trained one.

    Returns:
        A dict of metrics for each exit, the last one's outputs (n, …), and the metrics
        of the task's ensemble of several exits, if it has one.
    """
    test = place(experiment, experiment.dataset.test)
    samples = contents(experiment, test.samples)
    predict = predictor(experiment, experiment.algorithm.predict)
    outputs = predict(network, test.common, samples)
    task, ensemble = experiment.task, None
    if task.ensemble and len(outputs) > 1:
        together = (jax.jit(task.ensemble)(outputs),)
        (ensemble,) = metrics_of(task, together, test.samples)
    return metrics_of(task, outputs, test.samples), np.asarray(outputs[-1]), ensemble


def validate(
    experiment: Experiment,
    predict: Predictor,
    network: Network,
    stored: Stored,
) -> list[dict[str, float]]:
    """Metrics of each exit of a phase on the validation split; [] for an empty one.

    Args:
        experiment: the experiment.
        predict: of `predictor`.
        network: as far as it is trained.
        stored: the validation split.
    """
    if not stored.length:
        return []
    samples, given = stored.samples, stored.given
    outputs = predict(network, stored.common, contents(experiment, samples), given)
    return metrics_of(experiment.task, outputs, samples)


def metrics_of(
    task: Task, outputs: Outputs, samples: Samples
) -> list[dict[str, float]]:
    """Metrics of each exit's outputs.

    Args:
        task: what is predicted.
        outputs: of each exit, for all samples.
        samples: a whole split.
    """
    measure, targets = jax.jit(task.metrics), task.targets(samples)
    values = [measure(exit_outputs, targets) for exit_outputs in outputs]
    return [{name: float(x) for name, x in metrics.items()} for metrics in values]
