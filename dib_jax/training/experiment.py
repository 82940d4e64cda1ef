"""What a run is made of, once its config has been read."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dib_jax.algorithms import Algorithm, Batch, Common, Data, Phase, Samples
from dib_jax.data import Dataset, Split
from dib_jax.data.kind import Augmentation, Views
from dib_jax.tasks import Task

# Of a device's memory, which samples may fill; the rest is for the network.
_DEVICE_SHARE = 0.5


class Cache(NamedTuple):
    """Where the output of frozen parts is kept, instead of computed at every step.

    Attributes:
        place: device, host, file, none, or auto for the first of these with room.
        copies: augmented copies of the training split that are kept with it.
        renew: epochs after which these are drawn anew; 0 for never.
    """

    place: str = "auto"
    copies: int = 0
    renew: int = 0


class Experiment(NamedTuple):
    """The pieces of an experiment; samples are NumPy arrays on the host.

    Attributes:
        dataset: the three splits; without samples where it was made without data.
        common: what all samples share.
        task: what is predicted.
        algorithm: how it is trained.
        key: PRNG key of the whole experiment.
        batch_size: samples of a step.
        augment: (key, samples, times) → samples, `times` being how often they were
            augmented before; None where they stay as they are.
        cache: of what frozen parts make of samples.
        streams: whether samples stay on the host and are read batch by batch.
        mesh: the devices, over which batches are split.
        about: names for results.json, such as the data set's and the algorithm's.
        config: the whole config as plain JSON; it tells whose a workdir is.
        views: copies of a sample over which the trained network's outputs are averaged.
    """

    dataset: Dataset
    common: Mapping[str, Any]
    task: Task
    algorithm: Algorithm
    key: jax.Array
    batch_size: int
    augment: Augmentation | None
    cache: Cache
    streams: bool
    mesh: jax.sharding.Mesh
    about: dict[str, Any]
    config: dict[str, Any]
    views: Views = ()

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Of the algorithm."""
        return self.algorithm.phases

    @property
    def epochs(self) -> tuple[int, ...]:
        """Of each phase."""
        return tuple(phase.epochs for phase in self.phases)

    def prepare(self, samples: Samples, common: Common) -> Batch:
        """A batch to train on, inputs and targets.

        Args:
            samples: some samples of a split.
            common: what all share.
        """
        batch = self.prepare_inputs(samples, common)
        return batch._replace(targets=self.task.targets(samples))

    def prepare_inputs(self, samples: Samples, common: Common) -> Batch:
        """A batch to predict from, whose targets need not be known.

        Args:
            samples: as of `prepare`.
            common: as of `prepare`.
        """
        inputs = self.dataset.kind.prepare(samples, common)
        return Batch(inputs=inputs, targets=None, common=common)

    def data(self, split: Split) -> Data:
        """A split as the algorithm sees it.

        Args:
            split: arrays of one length.
        """
        return Data(samples=split, common=dict(self.common), prepare=self.prepare)

    def example(self) -> Batch:
        """Two samples, of which only shapes count."""
        two = {
            name: np.zeros((2, *array.shape[1:]), array.dtype)
            for name, array in self.dataset.train.items()
        }
        return self.data(two).batch()


def check(experiment: Experiment) -> None:
    """Refuse an algorithm whose phases and outputs do not go together.

    Args:
        experiment: the experiment.

    Raises:
        ValueError: a phase names no exit, or one that another has; `predict` returns no
            tuple, or another number of outputs than there are exits that it predicts.
    """
    name = experiment.about.get("algorithm")
    exits = [number for phase in experiment.phases for number in phase.exits]
    if not all(phase.exits for phase in experiment.phases):
        raise ValueError(
            f"algorithm.name: {name!r} has a phase without exits; each needs one that "
            "names its lines, with predicts=False where it has no outputs"
        )

    def outputs(key: jax.Array, example: Batch) -> Any:
        network = experiment.algorithm.network
        for phase in experiment.phases:
            network = phase.read(phase.init(key, network, example), network)
        return experiment.algorithm.predict(network, example._replace(targets=None))

    found = jax.eval_shape(outputs, experiment.key, experiment.example())
    if not isinstance(found, tuple | list):
        raise ValueError(
            f"algorithm.name: predict of {name!r} returns {type(found).__name__}; it "
            "must return a tuple of arrays, one for each exit"
        )
    wanted = sum(len(phase.exits) for phase in experiment.phases if phase.predicts)
    if len(found) != wanted or len(set(exits)) != len(exits):
        raise ValueError(
            f"algorithm.name: {name!r} predicts {len(found)} outputs, and its phases "
            f"train the exits {tuple(exits)}; each phase must name its own, as many in "
            "all as it predicts"
        )


def streams(placement: str, dataset: Dataset) -> bool:
    """Whether samples stay on the host and are read batch by batch.

    Args:
        placement: device, stream, or auto: stream where they would fill more than half
            of a device's memory.
        dataset: its splits.
    """
    if placement != "auto":
        return placement == "stream"
    splits = (dataset.train, dataset.validation, dataset.test)
    size = math.fsum(array.nbytes for split in splits for array in split.values())
    # A CPU gives no figures: its memory is the host's, where the samples are anyway.
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit is not None and size > _DEVICE_SHARE * limit
