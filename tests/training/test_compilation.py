"""The compiled epoch: order of samples, one trace, shared programs, figures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import CLASSES, experiment, joined, layer, one_by_one, vectors

from dib_jax.algorithms import Parts
from dib_jax.algorithms.sequential import sequential
from dib_jax.data import Dataset
from dib_jax.data.augment import augment
from dib_jax.models.cnn import cnn
from dib_jax.models.heads.linear import linear
from dib_jax.objectives.dib import dib
from dib_jax.tasks.classification import classification
from dib_jax.training.compilation import (
    compile_epoch,
    compiler_figures,
    epoch_rows,
    keys_of,
    lower_step,
)
from dib_jax.training.position import initial_state
from dib_jax.training.storage import store
from dib_jax.training.train import train

FIGURES = True  # of the compiler, for one step
pytestmark = pytest.mark.once


def stored_of(made, index=0, network=(), split=None):
    """The training split as a phase reads it, nothing cached."""
    data = made.data(made.dataset.train if split is None else split)
    data = data.replace(samples=jax.tree.map(jnp.asarray, data.samples))
    return store(
        made, index, network, data,
        augment=None, place="none", folder=None, key=made.key,
    )  # fmt: skip


def epochs_of(made, count=2):
    """Terms of the first phase in so many epochs, and the epoch."""
    stored, state = stored_of(made), initial_state(made, made.phases[0], ())
    epoch = compile_epoch(made, 0, state, (), stored)
    terms = []
    for number in range(count):
        state, recorded = epoch.run(state, (), stored, number * epoch.steps)
        terms.append(recorded[0])
    return terms, epoch


def test_an_epoch_sees_each_sample_at_most_once_and_orders_differ():
    def remember(state, network, batch, key):
        terms = one_by_one(label=batch.targets)
        return state, {0: {**terms, "key": jax.random.bits(key)}}

    dataset = vectors(train=35)
    dataset.train["labels"] = np.arange(35, dtype=np.int32)  # a name for each
    made = experiment(layer(0, step=remember), dataset=dataset)
    (first, second), epoch = epochs_of(made)
    assert epoch.steps == 4
    one, other = joined(first, "label"), joined(second, "label")
    for labels in (one, other):
        seen = labels.ravel().tolist()
        assert len(seen) == len(set(seen)) == 32
    assert (one != other).any()
    # No two steps have the same key.
    keys = np.concatenate([first["key"], second["key"]])
    assert len(np.unique(keys)) == 8
    # They are what `epoch_rows` says.
    order = keys_of(made, made.phases[0]).order
    for labels, begun in ((one, 0), (other, 4)):
        rows = epoch_rows(order, begun, samples=35, batch_size=8)
        np.testing.assert_array_equal(labels, rows)


def test_epochs_take_the_copies_in_turn():
    key, count = jax.random.key(4), 35
    rows = [
        epoch_rows(key, 4 * epoch, samples=count, batch_size=8, copies=3)
        for epoch in range(4)
    ]
    for epoch, found in enumerate(rows):
        assert found.shape == (4, 8)
        assert set(np.unique(found // count)) == {epoch % 3}
    alone = epoch_rows(key, 4, samples=count, batch_size=8)
    np.testing.assert_array_equal(rows[1] % count, alone)


def test_a_step_is_traced_no_more_often_for_more_epochs(tmp_path):
    """Once for the epoch and once for the compiler's figures."""

    def traces(epochs):
        count = {"step": 0, "outputs": 0}
        plain = layer(0)

        def counted(name, function, *arguments):
            count[name] += 1
            return function(*arguments)

        functions = {
            name: functools.partial(counted, name, getattr(plain, name))
            for name in count
        }
        train(experiment(layer(0, epochs, **functions)), tmp_path / str(epochs))
        return count

    assert traces(1) == traces(4) == {"step": 2, "outputs": 1}


def test_a_step_neither_augments_nor_passes_what_is_frozen_where_that_is_given():
    def must_not_run(*arguments):
        raise AssertionError

    phase = layer(1, given=must_not_run)
    made = experiment(layer(0), phase, augment=must_not_run)
    network = (jnp.zeros((5, CLASSES)),)
    plain = stored_of(made, 1, network)
    given = plain._replace(
        leaves={**plain.leaves, "2": jnp.ones((40, CLASSES))},
        tree=jax.tree.structure((made.dataset.train, 0)),
    )
    state = initial_state(made, phase, network)
    lower_step(made, 1, given, state, network)
    with pytest.raises(AssertionError):
        lower_step(made, 1, plain, state, network)


def test_terms_must_be_of_the_phases_exits():
    def flat(state, network, batch, key):
        return state, {"loss": jnp.zeros(())}

    made = experiment(layer(0, step=flat))
    with pytest.raises(
        ValueError, match="'layers' has a step with terms for 'loss'; it"
    ):
        epochs_of(made)


def of_pictures(stages, objective, *, shape=(8, 8, 4), augmentation=None, size=8):
    """An experiment that trains such stages in turn on grey noise."""
    draw = np.random.default_rng(0)
    split = {
        "images": draw.integers(0, 256, (size, *shape), np.uint8),
        "labels": np.arange(size, dtype=np.int32) % CLASSES,
    }
    task = classification(num_classes=CLASSES)
    parts = Parts(
        stages=stages,
        head=lambda stage: linear(num_outputs=CLASSES),
        task=task,
        objective=objective,
        optimizer=lambda epochs: optax.sgd(0.1, momentum=0.9),
        epochs=1,
    )
    return experiment(
        dataset=Dataset("noise", split, split, split, tuple("abc"), ""),
        algorithm=sequential(parts),
        augment=augmentation,
        task=task,
    )


def lowered_of(made, index):
    """The step of a phase on what it is given, nothing computed."""
    network, example = made.algorithm.network, made.example()
    for phase in made.phases[:index]:
        state = jax.eval_shape(phase.init, made.key, network, example)
        network = phase.read(state, network)
    state = jax.eval_shape(made.phases[index].init, made.key, network, example)
    stored = stored_of(made)
    if index:
        size = len(made.dataset.train["labels"])
        stored = stored._replace(
            leaves={**stored.leaves, "2": jnp.zeros((size, 8, 8, 4))},
            tree=jax.tree.structure((made.dataset.train, 0)),
        )
    return lower_step(made, index, stored, state, ())


def test_stages_that_are_alike_are_one_program_for_the_compilation_cache():
    def noisy(signals):
        return signals.task_loss + jax.random.normal(signals.key), {}

    stages = cnn(widths=(4, 4, 4, 5), convolutions=1, pools=0)
    made = of_pictures(stages, noisy)
    texts = [lowered_of(made, index).as_text() for index in (1, 2, 3)]
    assert texts[0] == texts[1]
    assert texts[1] != texts[2]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of the form for a CPU")
def test_pictures_are_resampled_once_whatever_reads_them():
    shape, affine = (32, 32, 3), augment("affine")
    stages = cnn(widths=(4,), convolutions=1, pools=1)

    def flops(program):
        return program.compile().cost_analysis()["flops"]

    def step(augmentation):
        made = of_pictures(
            stages, dib(alpha=2.0), shape=shape, augmentation=augmentation
        )
        return made, flops(lowered_of(made, 0))

    made, plain = step(None)
    samples = {name: jnp.asarray(x) for name, x in made.dataset.train.items()}
    alone = flops(jax.jit(affine).lower(jax.random.key(0), samples))
    added = step(affine)[1] - plain
    assert alone / 2 < added < 2 * alone


def test_the_figures_are_the_compilers_of_one_step():
    def product(x):
        return x @ x

    compiled = jax.jit(product).lower(np.ones((64, 64), np.float32)).compile()
    figures = compiler_figures(compiled)
    assert figures["flops"] == 2 * 64**3
    assert set(figures) == {"temp_bytes", "peak_bytes", "flops"}
    # Of an epoch those of a step, however many it has.
    few, many = (
        epochs_of(experiment(layer(0), dataset=vectors(train=count)), 1)[1]
        for count in (16, 80)
    )
    assert (few.steps, many.steps) == (2, 10)
    assert few.figures["flops"] == many.figures["flops"] > 0
