"""A cascade: which samples each block trains on, what it answers, where it ends."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_blocks import KEY, STAGES, batch_of, largest_changes, parts_of

from dib_jax.algorithms import Batch, Data
from dib_jax.algorithms.cascade import Network, cascade
from dib_jax.algorithms.exits import confidence_logit, right_of
from dib_jax.objectives.cross_entropy import cross_entropy

pytestmark = pytest.mark.once

COUNT = 40


def prepare(samples, common):
    return Batch(samples["x"], samples["label"], common=common)


def data_of(labels=None, **changes):
    batch = batch_of(COUNT, seed=5)
    samples = {"x": batch.inputs, "label": batch.targets if labels is None else labels}
    return Data(samples, {}, prepare, **changes)


def algorithm_of(**options):
    parts = parts_of(objective=cross_entropy())
    return cascade(parts, **{"tau": 0.5, "held_out": 0.25, **options})


def read_all(algorithm, count=None):
    """The network after so many phases, each as its `init` makes it."""
    network = algorithm.network
    for number, phase in enumerate(algorithm.phases[:count]):
        key = jax.random.fold_in(KEY, number)
        state = jax.jit(phase.init)(key, network, batch_of())
        network = phase.read(state, network)
    return network


@pytest.fixture(scope="module")
def whole():
    algorithm = algorithm_of()
    return algorithm, read_all(algorithm)


def at_exits(algorithm, network, inputs):
    x, found = inputs, []
    for piece in algorithm.pieces:
        found.append(piece(network, x))
        x = found[-1].carried
    return found


def entered(algorithm, number, network, data):
    """The rows that a phase takes, by the numbers that their first pixel has."""
    inputs = data.samples["x"].at[:, 0, 0, 0].set(jnp.arange(len(data)))
    marked = data.replace(samples={**data.samples, "mark": inputs[:, 0, 0, 0]})
    enter = algorithm.phases[number].enter
    return enter(network, marked).samples["mark"].astype(int).tolist()


def test_the_held_out_rows_train_commitments_and_no_exit(whole):
    algorithm, network = whole
    data = data_of()
    first = entered(algorithm, 0, algorithm.network, data)
    others = [entered(algorithm, n, network, data) for n in (2, 4)]
    held = [entered(algorithm, n, network, data) for n in (1, 3)]
    assert len(held[0]) == COUNT // 4
    assert sorted(first + held[0]) == list(range(COUNT))
    assert all(set(rows) <= set(first) for rows in others)
    assert set(held[1]) <= set(held[0])


def test_a_group_is_held_out_as_a_whole(whole):
    algorithm, _ = whole
    data, groups = data_of(), np.arange(COUNT) // 3
    data = data.replace(samples={**data.samples, "groups": groups})
    held, others = (
        set(groups[entered(algorithm, phase, read_all(algorithm, 1), data)])
        for phase in (1, 0)
    )
    assert held
    assert held | others == set(groups)
    assert not held & others
    one = data.replace(samples={**data.samples, "groups": 0 * groups})
    with pytest.raises(ValueError, match="all samples are of one group"):
        algorithm.phases[0].enter(algorithm.network, one)


def test_a_block_trains_on_what_no_exit_is_right_about_and_stands_by(whole):
    algorithm, network = whole
    data = data_of()
    found = at_exits(algorithm, network, data.samples["x"])
    rows = entered(algorithm, 0, network, data)
    for number, phase in ((0, 2), (1, 4)):
        right = np.argmax(found[number].outputs, axis=1) == data.samples["label"]
        settled = np.asarray(right) & (np.asarray(found[number].commitment) >= 0.5)
        rows = [row for row in rows if not settled[row]]
        assert entered(algorithm, phase, network, data) == rows
    assert 0 < len(rows) < 30


def test_the_validation_split_stays_whole(whole):
    algorithm, network = whole
    data = data_of(validates=True)
    assert algorithm.phases[2].enter(network, data) is data


def test_a_sample_is_answered_by_the_first_exit_that_stands_by_it(whole):
    algorithm, network = whole
    data = data_of()
    found = at_exits(algorithm, network, data.samples["x"])
    answers = algorithm.predict(network, data.batch())
    for row in range(COUNT):
        stands = [bool(at.commitment[row] >= 0.5) for at in found[:-1]]
        for last in range(len(found)):
            first = next((n for n in range(last) if stands[n]), last)
            np.testing.assert_array_equal(answers[last][row], found[first].outputs[row])


def test_commitment_starts_as_confidence(whole):
    algorithm, network = whole
    found = at_exits(algorithm, network, data_of().samples["x"])
    for at in found[:-1]:
        confidence = jax.nn.softmax(at.outputs).max(axis=1)
        np.testing.assert_allclose(at.commitment, confidence, rtol=1e-5)
        np.testing.assert_allclose(
            jax.nn.sigmoid(confidence_logit(at.outputs)), confidence, rtol=1e-5
        )
    assert found[-1].commitment is None


def test_commitment_learns_where_the_exit_is_right_and_nothing_else_moves(whole):
    algorithm, network = whole
    phase = algorithm_of(commitment_rate=0.05).phases[1]
    before = network._replace(commitments=(), learnt=network.learnt[:1])
    data = phase.enter(before, data_of())
    batch = data.batch()
    batch = batch._replace(given=phase.given(before, batch))
    state = phase.init(KEY, before, batch_of())
    step, losses = jax.jit(phase.step), []
    for number in range(30):
        state, terms = step(state, before, batch, jax.random.fold_in(KEY, number))
        losses.append(float(terms[len(STAGES)]["commitment_loss"]))
    assert losses[-1] < 0.8 * losses[0]
    after = phase.read(state, before)
    chex.assert_trees_all_equal(after.blocks, before.blocks)
    # By its formula, from the exit's outputs.
    at = algorithm.pieces[0](network, data.samples["x"])
    right = np.asarray(right_of(parts_of().task)(at.outputs, batch.targets))
    c = np.asarray(jax.nn.softmax(at.outputs).max(axis=1), np.float64)
    entropy = -np.where(right, np.log(c), np.log1p(-c)).mean()
    np.testing.assert_allclose(losses[0], entropy, rtol=1e-4)


@pytest.mark.parametrize("kind", ["empty", "one class"])
def test_where_nothing_is_left_to_learn_the_cascade_ends_and_says_so(whole, kind):
    algorithm = algorithm_of(tau=0)
    _, network = whole
    first = at_exits(algorithm, network, data_of().samples["x"])[0]
    labels = jnp.argmax(first.outputs, axis=1)
    if kind == "one class":  # of samples that the first exit gets wrong
        labels = jnp.where(labels == 1, 2, labels)
        assert int((labels != jnp.argmax(first.outputs, axis=1)).sum()) > 0
    before = read_all(algorithm, 2)
    before = before._replace(blocks=network.blocks._replace(
        stages=network.blocks.stages[:1], heads=network.blocks.heads[:1]
    ))  # fmt: skip
    phase = algorithm.phases[2]
    data = phase.enter(before, data_of(labels))
    batch = data.batch()
    batch = batch._replace(given=algorithm.phases[1].given(before, batch))
    state = phase.init(KEY, before, batch_of())
    state, terms = jax.jit(phase.step)(state, before, batch, KEY)
    (line,) = phase.notices({n: float(x) for n, x in terms[1].items()}).values()
    assert line.startswith("the cascade has ended before this exit: ")
    after = phase.read(state, before)
    assert not after.learnt[1]
    # Nothing of the exit that has not trained is in an answer.
    answers = algorithm.predict(after, data_of().batch())
    np.testing.assert_array_equal(answers[1], answers[0])
    assert (algorithm.pieces[0](after, batch.inputs).commitment == 1).all()
    at = algorithm.pieces[1](after, algorithm.pieces[0](after, batch.inputs).carried)
    np.testing.assert_array_equal(
        at.outputs, algorithm.pieces[0](after, batch.inputs).outputs
    )


def test_a_step_trains_its_block_and_leaves_the_trunk(whole):
    algorithm, _ = whole
    before = read_all(algorithm, 2)
    phase = algorithm.phases[2]
    data = phase.enter(before, data_of())
    batch = data.batch()
    batch = batch._replace(given=algorithm.phases[1].given(before, batch))
    state = phase.init(KEY, before, batch_of())
    new, terms = jax.jit(phase.step)(state, before, batch, KEY)
    assert max(largest_changes(state.trained[0].params, new.trained[0].params)) > 0
    assert float(terms[1]["samples_share"]) == pytest.approx(len(data) / COUNT)
    chex.assert_trees_all_equal(
        phase.read(new, before).blocks.stages[:1], before.blocks.stages
    )


def test_a_rate_falls_within_the_updates_that_the_samples_left_allow():
    def rated(epochs, per_epoch=20):
        return optax.sgd(optax.linear_schedule(1.0, 0.0, epochs * per_epoch))

    parts = parts_of(objective=cross_entropy(), optimizer=rated)
    phase = cascade(parts, tau=0.5, held_out=0.25).phases[0].paced(2)
    state, step, batch = phase.init(KEY, Network(), batch_of()), phase.step, batch_of()
    moved = []
    for _ in range(2 * phase.epochs + 1):
        new, _ = jax.jit(step)(state, Network(), batch, KEY)
        changes = largest_changes(state.trained[0].params, new.trained[0].params)
        moved.append(max(changes) > 0)
        state = new
    assert moved == [True] * 2 * phase.epochs + [False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 1.5}, "tau must be 0 to 1, got 1.5"),
        ({"tau": float("nan")}, "tau must be 0 to 1, got nan"),
        ({"held_out": 0}, "held_out must be above 0 and below 1, got 0"),
        ({"held_out": 1}, "held_out must be above 0 and below 1, got 1"),
        ({"commitment_epochs": 0}, "commitment_epochs"),
        ({"commitment_rate": 0}, "commitment_rate"),
        ({"blocks": 0}, "blocks must be 1 to .*; got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        algorithm_of(**options)


def test_a_task_without_one_class_a_sample_is_refused():
    task = parts_of().task._replace(ensemble=None)
    with pytest.raises(ValueError, match="one class of each sample; use task.name"):
        cascade(parts_of(task=task))
