"""What a network puts out for samples, and how good that is."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
from dib_jax.data.kind import Views
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
    experiment: Experiment,
    function: Callable[[Network, Batch], Outputs],
    *,
    views: Views = (),
) -> Predictor:
    """A function of batches, compiled for whole splits.

    Args:
        experiment: the experiment.
        function: (network, batch) → outputs of some exits.
        views: copies of a sample over which outputs are averaged; () for the sample.

    Returns:
        (network, common, samples, given) → outputs for all samples. Those on the host
        are read batch by batch.
    """
    if not views:
        return _predictor(experiment, function, experiment.prepare_inputs)

    def prepare(samples: Samples, common: Common) -> Batch:
        # Which one is a value of the program, so that one is compiled for all.
        samples, number = samples
        changes = [view.change for view in views]
        samples = jax.lax.switch(number[0], changes, samples)
        return experiment.prepare_inputs(samples, common)

    of_view = _predictor(experiment, function, prepare)

    def over_views(
        network: Network, common: Common, samples: Samples, given: Given = None
    ) -> Outputs:
        count = len(jax.tree.leaves(samples)[0])
        total: Outputs | None = None
        for number, view in enumerate(views):
            seen = (samples, jnp.full(count, number, jnp.int32))
            outputs = of_view(network, common, seen, given)
            weighed = tuple(view.weight * each for each in outputs)
            total = weighed if total is None else jax.tree.map(jnp.add, total, weighed)
        assert total is not None
        return total

    return over_views


def _predictor(
    experiment: Experiment,
    function: Callable[[Network, Batch], Outputs],
    prepare: Callable[[Samples, Common], Batch],
) -> Predictor:
    @functools.partial(jax.jit, out_shardings=replicated(experiment.mesh))
    def run(
        network: Network, common: Common, samples: Samples, given: Given
    ) -> Outputs:
        def outputs(batch: Batch) -> Outputs:
            inputs, before = split_evenly(experiment.mesh, (batch.inputs, batch.given))
            return function(network, batch._replace(inputs=inputs, given=before))

        data = Data(samples, common, prepare)
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
    predict = predictor(experiment, last, views=experiment.views)
    return predict(network, data.common, data.samples)[0]


class Evaluation(NamedTuple):
    """How good a network is, on the test split where nothing else is said.

    Attributes:
        test: metrics of each exit.
        outputs: of the last exit, (n, …).
        ensemble: metrics of all exits together, by the task's `ensemble`; None with one
            exit or a task without such.
        ensemble_validation: those on the validation split, of the samples as they are,
            which is how stages are validated; None also where the split is empty.
        one_view: metrics of the last exit for the samples as they are, where outputs
            are averaged over views; else None.
    """

    test: list[dict[str, float]]
    outputs: np.ndarray
    ensemble: dict[str, float] | None
    ensemble_validation: dict[str, float] | None
    one_view: dict[str, float] | None


def evaluate(experiment: Experiment, network: Network) -> Evaluation:
    """Metrics of every exit, alone on the test split, and all together.

    Args:
        experiment: the experiment.
        network: a trained one.
    """
    task, dataset, views = experiment.task, experiment.dataset, experiment.views
    test = place(experiment, dataset.test)

    def outputs_over(split: Data, views: Views) -> Outputs:
        predict = predictor(experiment, experiment.algorithm.predict, views=views)
        return predict(network, split.common, contents(experiment, split.samples))

    outputs = outputs_over(test, views)
    ensemble = ensemble_validation = one_view = None
    if task.ensemble and len(outputs) > 1:
        average = jax.jit(task.ensemble)
        (ensemble,) = metrics_of(task, (average(outputs),), test.samples)
        validation = place(experiment, dataset.validation)
        if len(validation):
            one = average(outputs_over(validation, ()))
            (ensemble_validation,) = metrics_of(task, (one,), validation.samples)
    if views:
        (one_view,) = metrics_of(task, outputs_over(test, ())[-1:], test.samples)
    return Evaluation(
        test=metrics_of(task, outputs, test.samples),
        outputs=np.asarray(outputs[-1]),
        ensemble=ensemble,
        ensemble_validation=ensemble_validation,
        one_view=one_view,
    )


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
