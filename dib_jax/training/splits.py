"""The training and the validation split, as the phases of a run read them in turn."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax

from dib_jax.algorithms import Data, Network
from dib_jax.training.compilation import keys_of
from dib_jax.training.evaluation import place
from dib_jax.training.experiment import Experiment
from dib_jax.training.position import Position
from dib_jax.training.records import LABEL
from dib_jax.training.storage import Stored, store


class Sources(NamedTuple):
    """Both splits before any phase.

    Attributes:
        experiment: the experiment.
        train: the training split.
        validation: the validation split; it may be empty.
        folder: for what is stored in files.
        say: prints a line.
    """

    experiment: Experiment
    train: Data
    validation: Data
    folder: pathlib.Path
    say: Callable[[str], None]


class Splits(NamedTuple):
    """Both splits as a phase reads them.

    Attributes:
        train: the training split.
        validation: the validation split.
        entered: the training split at the phase's start.
    """

    train: Stored
    validation: Stored
    entered: Data


def sources(
    experiment: Experiment, workdir: pathlib.Path, say: Callable[[str], None]
) -> Sources:
    """Both splits where they are used: on the device, or on the host.

    Args:
        experiment: the experiment.
        workdir: of the run.
        say: prints a line.
    """
    dataset, number = experiment.dataset, jax.process_index()
    train, validation = (
        place(experiment, split) for split in (dataset.train, dataset.validation)
    )
    # Each process has a folder of its own, whether they share a disk or not.
    folder = workdir / (f"cache-{number}" if number else "cache")
    return Sources(experiment, train, validation.replace(validates=True), folder, say)


def read(
    sources: Sources, position: Position, network: Network, previous: Splits | None
) -> Splits:
    """Both splits at the start of a phase.

    Args:
        sources: both before any phase.
        position: where the run stands.
        network: what is trained before the phase.
        previous: as the phase before read them.

    Raises:
        ValueError: the phase takes no training sample.
    """
    phase = sources.experiment.phases[position.phase]
    enter = phase.enter
    entered = [
        enter(network, data) if enter and len(data) else data
        for data in (sources.train, sources.validation)
    ]
    if not len(entered[0]):
        raise ValueError(
            f"{LABEL} {phase.exits[-1]}: `enter` of its phase left no training sample "
            f"of {len(sources.train)}"
        )
    before = previous or Splits(None, None, None)  # type: ignore[arg-type]
    train = _store(sources, position, network, entered[0], before.train)
    held_out = _store(
        sources, position, network, entered[1], before.validation, validates=True
    )
    if train.line:
        where = held_out.place or "computed after every epoch"
        sources.say(f"{train.line}; of the validation split: {where}")
    return Splits(train, held_out, entered[0])


def renewed(
    sources: Sources, position: Position, network: Network, splits: Splits
) -> Splits:
    """The splits for the next epoch: augmented copies are drawn anew where that is due.

    Args:
        sources: both before any phase.
        position: where the run stands.
        network: what is trained before the phase.
        splits: for the epoch before.
    """
    renew, train = sources.experiment.cache.renew, splits.train
    if not renew or not train.place or not sources.experiment.augment:
        return splits
    if position.epoch % renew:
        return splits
    # Where the first ones were: the compiled epoch reads them there.
    train = _store(
        sources, position, network, splits.entered, train, kept_in=train.place
    )
    return splits._replace(train=train)


def _store(
    sources: Sources,
    position: Position,
    network: Network,
    data: Data,
    previous: Stored | None,
    *,
    validates: bool = False,
    kept_in: str = "",
) -> Stored:
    experiment = sources.experiment
    key = keys_of(experiment, experiment.phases[position.phase]).copies
    renewals = 0
    if experiment.cache.renew:
        renewals = position.epoch // experiment.cache.renew
        key = jax.random.fold_in(key, renewals)
    return store(
        experiment,
        position.phase,
        network,
        data,
        # Samples are validated as they are, never augmented.
        augment=None if validates else experiment.augment,
        place=kept_in or experiment.cache.place,
        folder=sources.folder / ("validation" if validates else "train"),
        key=key,
        renewals=renewals,
        previous=previous,
    )
