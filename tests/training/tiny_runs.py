"""Runs that take a moment: of a config on digits, and of layers that are a line each.

The latter, `layers`, have one matrix a phase and a step of five operations: they try
what the loop owns, whatever the step does.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import checkpoints
from dib_jax.algorithms import Algorithm, Phase
from dib_jax.commands.assemble import assemble
from dib_jax.commands.config import complete
from dib_jax.data import Dataset
from dib_jax.data.vectors import VECTORS
from dib_jax.tasks.classification import classification
from dib_jax.training import train as engine
from dib_jax.training.devices import mesh_of
from dib_jax.training.experiment import Cache, Experiment
from dib_jax.training.train import train

CLASSES = 3


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def without_seconds(entries):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries]


def stop_at(done, experiment, workdir, **options):
    """A run that ends when so many epochs, of all its phases, have been saved."""
    save = checkpoints.save

    class Stop(Exception):
        pass

    def save_and_stop(folder, step, tree, metadata):
        save(folder, step, tree, metadata)
        if step == done:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_CHECKPOINT_SHARE", float("inf"))  # after each epoch
        patch.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(Stop):
            train(experiment, workdir, **options)


# Of a config --------------------------------------------------------------------------


def settings(**sections):
    """Digits, three dense stages, which compile fast, and two epochs each."""
    usual = {
        "dataset": {"samples": 640},
        "model": {"name": "mlp", "widths": (16, 12, 8)},
        "epochs": 2,
        "batch_size": 64,
    }
    return complete({**usual, **sections})


def experiment_of(**sections):
    return assemble(settings(**sections), name="digits_cnn")


# Of layers ----------------------------------------------------------------------------


def vectors(train=40, validation=13, test=15, features=5):
    """Vectors in three classes, next to one another."""
    draw = np.random.default_rng(0)
    means = draw.normal(size=(CLASSES, features))

    def split(count):
        labels = np.arange(count) % CLASSES
        x = means[labels] + draw.normal(size=(count, features))
        return {"features": x.astype(np.float32), "labels": labels.astype(np.int32)}

    names = tuple("abc")
    splits = [split(count) for count in (train, validation, test)]
    return Dataset("vectors", *splits, names, "made up", kind=VECTORS)


def layer(number, epochs=2, **changes):
    """A phase that fits softmax(x W), x what the layers before it make of the input.

    A network is the tuple of the matrices that are trained.
    """

    def source(batch):
        return batch.inputs if batch.given is None else batch.given

    def init(key, network, example):
        size = CLASSES if number else example.inputs.shape[1]
        weights = jax.random.normal(jax.random.fold_in(key, number), (size, CLASSES))
        return {"weights": 0.3 * weights, "step": jnp.int32(0)}

    def step(state, network, batch, key):
        x = source(batch)
        outputs = x @ state["weights"]
        wanted = jax.nn.one_hot(batch.targets, CLASSES)
        error = (jax.nn.softmax(outputs) - wanted) / len(x)
        loss = -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(outputs), axis=1))
        weights = state["weights"] - 0.3 * x.T @ error
        state = {"weights": weights, "step": state["step"] + 1}
        return state, {number: {"loss": loss, "noise": jax.random.normal(key)}}

    def read(state, network):
        return (*network, state["weights"])

    def given(network, batch):
        return jnp.tanh(source(batch) @ network[number - 1])

    def outputs(network, batch):
        return (source(batch) @ network[number],)

    functions = {"given": given if number else None, "outputs": outputs, **changes}
    usual = {"init": init, "step": step, "read": read, "epochs": epochs}
    usual |= {"exits": (number,), "trains": (number,)}
    return Phase(**{**usual, **functions})


def one_by_one(**arrays):
    """Terms of each sample, for terms are scalars: "label[3]" for the fourth label."""
    return {
        f"{name}[{index}]": x
        for name, array in arrays.items()
        for index, x in enumerate(array.reshape(-1))
    }


def joined(terms, name):
    """Arrays (steps, …) of what `one_by_one` took apart."""
    count = sum(key.startswith(f"{name}[") for key in terms)
    return np.stack([terms[f"{name}[{index}]"] for index in range(count)], axis=1)


def layers(*phases):
    """The algorithm of such phases, one on top of the other."""

    def features(network, batch):
        x, made = batch.inputs, []
        for weights in network:
            x = jnp.tanh(x @ weights)
            made.append(x)
        return tuple(made)

    def predict(network, batch):
        sources = (batch.inputs, *features(network, batch))
        return tuple(x @ weights for x, weights in zip(sources, network, strict=False))

    return Algorithm(phases, predict, features)


def experiment(*phases, dataset=None, seed=0, **changes):
    """An experiment on vectors that no config has made."""
    dataset = dataset or vectors()
    usual = Experiment(
        dataset=dataset,
        common=dataset.kind.common(dataset.train),
        task=classification(num_classes=CLASSES),
        algorithm=layers(*(phases or (layer(0), layer(1, 3)))),
        key=jax.random.key(seed),
        batch_size=8,
        augment=None,
        cache=Cache(),
        streams=False,
        mesh=mesh_of(jax.devices()[:1]),
        about={"dataset": "vectors", "algorithm": "layers", "seed": seed},
        config={"seed": seed},
    )
    return usual._replace(**changes)
