"""Who looks at the network between epochs."""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from dib_jax.algorithms import Network, State
from dib_jax.training import digests
from dib_jax.training.devices import from_first, is_first, together
from dib_jax.training.experiment import Experiment
from dib_jax.training.position import Position, initial_state


class Moment(NamedTuple):
    """The network between two epochs, as an observer sees it.

    Attributes:
        epoch: epochs of the whole run that are done.
        trained: those of each entry of `Algorithm.features`.
        network: a complete one: of phases that have not begun with the initial weights,
            of those that are done with the ones that stay. Its arrays are gone after
            the next epoch: what is to stay must be copied.
    """

    epoch: int
    trained: tuple[int, ...]
    network: Network


# Shown every moment from the untrained network to the last epoch, in order. Where a run
# goes on, those since the last checkpoint are shown once more, to the same bits. It
# returns the file in the workdir that it has written and that is to stay as it is.
Observer = Callable[[Moment], pathlib.Path | None]
# (position, network, how many phases it holds) → seconds that the observer took, and
# the digest of the file that it has written, by its path within the workdir.
Show = Callable[[Position, Network, int], tuple[float, dict[str, str]]]


def showing(
    experiment: Experiment,
    workdir: pathlib.Path,
    observer: Callable[[Experiment], Observer] | None,
) -> Show:
    """What shows an observer the network.

    Args:
        experiment: the experiment.
        workdir: of the run.
        observer: makes one of the experiment; None for nobody.

    Returns:
        The function; the seconds that it returns are not the training's.
    """
    if observer is None:
        return lambda position, network, begun: (0.0, {})
    # The first process alone sees it: it is the one that writes.
    observe = together(lambda: observer(experiment) if is_first() else None)

    @functools.cache
    def untrained() -> tuple[list[State], int]:
        """The initial state of every phase, and how many features there are."""
        states, network = [], experiment.algorithm.network
        for phase in experiment.phases:
            states.append(initial_state(experiment, phase, network))
            network = phase.read(states[-1], network)
        example = experiment.example()._replace(targets=None)
        features = jax.eval_shape(experiment.algorithm.features, network, example)
        return states, len(features)

    def look(position: Position, network: Network, begun: int) -> dict[str, str]:
        states, count = untrained()
        for phase, state in list(zip(experiment.phases, states, strict=True))[begun:]:
            network = phase.read(state, network)
        done = [*experiment.epochs[: position.phase], position.epoch]
        trained = [0] * count
        for phase, epochs in zip(experiment.phases, done, strict=False):
            for number in range(count) if phase.trains is None else phase.trains:
                trained[number] += epochs
        path = observe(Moment(sum(done), tuple(trained), jax.device_get(network)))
        if path is None:
            return {}
        return {path.relative_to(workdir).as_posix(): digests.digest(path)}

    def show(
        position: Position, network: Network, begun: int
    ) -> tuple[float, dict[str, str]]:
        start = time.monotonic()
        written = from_first(lambda: look(position, network, begun))
        return time.monotonic() - start, written

    return show
