"""A small graph with clear classes, and algorithms on it trained for some steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dib_jax.algorithms import Data, Parts
from dib_jax.data.graphs import dataset_of
from dib_jax.models.gcn import gcn
from dib_jax.models.heads.linear import linear
from dib_jax.objectives.cross_entropy import cross_entropy
from dib_jax.tasks.classification import classification

CLASSES, COUNT, WIDTH = 3, 60, 6
KEY = jax.random.key(1)


@functools.cache
def dataset(sparse=False):
    """Sixty nodes; most edges join nodes of one class, and features are noisy."""
    draw = np.random.default_rng(0)
    labels = np.arange(COUNT) % CLASSES
    ends = draw.integers(0, COUNT, (400, 2))
    alike = labels[ends[:, 0]] == labels[ends[:, 1]]
    edges = ends[(alike | (draw.random(400) < 0.1)) & (ends[:, 0] < 58)]
    edges = edges[edges[:, 1] < 58]  # two nodes have no neighbours
    places = (np.eye(CLASSES)[labels] @ draw.normal(size=(CLASSES, WIDTH))) * 0.7
    features = places + draw.normal(size=(COUNT, WIDTH))
    arrays = {
        "edges": edges,
        "labels": labels,
        "train": np.arange(30),
        "val": np.arange(30, 45),
        "test": np.arange(45, 60),
    }
    if not sparse:
        return dataset_of({**arrays, "features": features}, "tiny", source="tiny")
    rows, columns = np.nonzero(features > 0.3)
    bags = {
        "feat_indptr": np.searchsorted(rows, np.arange(COUNT + 1)),
        "feat_indices": columns,
        "n_features": np.array(WIDTH),
    }
    return dataset_of({**arrays, **bags}, "tiny", source="tiny")


def parts_of(**changes):
    """What a config would give an algorithm."""
    defaults = Parts(
        stages=gcn(widths=(5, 4)),
        head=lambda stage: linear(num_outputs=CLASSES),
        task=classification(num_classes=CLASSES),
        objective=cross_entropy(),
        optimizer=lambda epochs, per_epoch=3: optax.adam(0.03),
        epochs=3,
        steps=3,
    )
    return defaults._replace(**changes)


def split(name="train", *, sparse=False):
    """A split as an algorithm's `enter` sees it."""
    found = dataset(sparse)
    common = jax.tree.map(jnp.asarray, found.kind.common(found.train))

    def prepare(samples, common):
        from dib_jax.algorithms import Batch

        inputs = found.kind.prepare(samples, common)
        return Batch(inputs, samples["labels"], common=common)

    samples = {key: jnp.asarray(x) for key, x in getattr(found, name).items()}
    return Data(samples, common, prepare)


def train(algorithm, data, *, steps=20):
    """Train all phases for some steps on all of their samples at once.

    Returns the network, and each phase's terms, first and last.
    """
    network, recorded = algorithm.network, []
    for phase in algorithm.phases:
        entered = phase.enter(network, data) if phase.enter else data
        batch = entered.batch()
        state = jax.jit(phase.init)(KEY, network, data.take(slice(2)).batch())

        @jax.jit
        def run(state, network, batch, phase=phase):
            def body(state, number):
                key = jax.random.fold_in(KEY, number)
                return phase.step(state, network, batch, key)

            return jax.lax.scan(body, state, jnp.arange(steps))

        state, terms = run(state, network, batch)
        recorded.append(jax.tree.map(lambda x: (x[0], x[-1]), terms))
        network = phase.read(state, network)
    return network, recorded
