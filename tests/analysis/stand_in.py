"""A small network that is not trained, as an engine hands it to observers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from finished_run import Dataset, Kind
from sklearn.datasets import load_digits

from dib_jax.tasks import Task
from dib_jax.tasks.classification import classification


class Batch(NamedTuple):
    inputs: Any
    targets: Any
    given: Any = None
    common: Any = ()


class Data(NamedTuple):
    samples: Any
    common: Any
    prepare: Callable[[Any, Any], Batch]


class Phase(NamedTuple):
    epochs: int


class Algorithm(NamedTuple):
    phases: tuple[Phase, ...]
    features: Callable[[Any, Batch], list[jax.Array]]


class Experiment(NamedTuple):
    dataset: Dataset
    task: Task
    algorithm: Algorithm
    data: Callable[[dict[str, np.ndarray]], Data]


class Moment(NamedTuple):
    epoch: int
    trained: tuple[int, ...]
    network: Any


STAGES = (nn.Dense(8), nn.Dense(6))


def features(network: Any, batch: Batch) -> list[jax.Array]:
    made, x = [], batch.inputs
    for stage, variables in zip(STAGES, network, strict=True):
        x = nn.relu(stage.apply(variables, x))
        made.append(x)
    return made


def vectors(split: slice) -> dict[str, np.ndarray]:
    digits = load_digits()
    return {
        "features": digits.data[split].astype(np.float32),
        "labels": digits.target[split].astype(np.int32),
    }


def experiment(
    *,
    epochs: tuple[int, ...] = (2, 2),
    task: Task | None = None,
    validation: int = 60,
) -> Experiment:
    """Digits as vectors in two dense stages; `common` is what the inputs are over."""
    chosen = task or classification(num_classes=10)

    def prepare(samples: Any, common: Any) -> Batch:
        scaled = samples["features"] / common["largest"]
        return Batch(scaled, chosen.targets(samples), None, common)

    def data(split: dict[str, np.ndarray]) -> Data:
        samples = {name: jnp.asarray(array) for name, array in split.items()}
        return Data(samples, {"largest": jnp.float32(16)}, prepare)

    dataset = Dataset(
        vectors(slice(0, 100)),
        vectors(slice(100, 100 + validation)),
        vectors(slice(200, 260)),
        tuple("0123456789"),
        Kind("vectors"),
    )
    phases = tuple(map(Phase, epochs))
    return Experiment(dataset, chosen, Algorithm(phases, features), data)


def network(seed: int = 0) -> tuple[Any, ...]:
    """Variables of both stages."""
    keys = jax.random.split(jax.random.key(seed), 2)
    sizes = (64, 8)
    return tuple(
        stage.init(key, jnp.zeros((1, size)))
        for stage, key, size in zip(STAGES, keys, sizes, strict=True)
    )


def moments() -> list[Moment]:
    """Of two stages one after the other, two epochs each."""
    first, second, other = network(0), network(1), network(2)
    networks = [
        (first[0], first[1]),
        (second[0], first[1]),
        (other[0], first[1]),
        (other[0], second[1]),
        (other[0], other[1]),
    ]
    trained = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]
    return [
        Moment(epoch, done, jax.tree.map(np.asarray, variables))
        for epoch, (done, variables) in enumerate(zip(trained, networks, strict=True))
    ]
