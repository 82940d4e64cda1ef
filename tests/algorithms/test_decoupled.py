"""Blocks on stores of their inputs: what is stored, drawn, and depends on it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_blocks import KEY, batch_of, parts_of, start

from dib_jax.algorithms.blocks import Network
from dib_jax.algorithms.decoupled import decoupled
from dib_jax.algorithms.parallel import parallel

pytestmark = pytest.mark.once


def with_mean_target(signals):
    return signals.task_loss, {"target": jnp.mean(signals.targets)}


def phase_of(**options):
    (phase,) = decoupled(parts_of(objective=with_mean_target), **options).phases
    return phase


@pytest.fixture(scope="module")
def stepped():
    """A phase with stores of 20 samples, its start, and three steps on batches of 8."""
    phase = phase_of(buffer=20)
    step, states = jax.jit(phase.step), [start(phase)]
    batches = [
        batch_of(seed=seed)._replace(targets=jnp.full(8, 2)) for seed in (0, 1, 2)
    ]
    terms = []
    for number, batch in enumerate(batches):
        key = jax.random.fold_in(KEY, number)
        state, recorded = step(states[-1], Network(), batch, key)
        states.append(state)
        terms.append(recorded)
    return step, states, batches, terms


def test_the_first_block_trains_as_where_all_train_at_once(stepped):
    _, states, batches, _ = stepped
    (phase,) = parallel(parts_of(objective=with_mean_target)).phases
    state = start(phase)
    chex.assert_trees_all_equal(states[0].states, state)
    state, _ = jax.jit(phase.step)(state, Network(), batches[0], KEY)
    chex.assert_trees_all_close(states[1].states[0], state[0], rtol=1e-6, atol=1e-7)


def test_only_what_was_written_is_drawn(stepped):
    # An empty slot's target is 0.
    for recorded in stepped[3]:
        assert [float(terms["target"]) for terms in recorded.values()] == [2, 2, 2]


def test_the_newest_samples_stand_where_the_oldest_stood(stepped):
    _, states, batches, _ = stepped
    store = states[-1].stores[0]
    assert int(states[-1].written) == 24
    written = np.concatenate([batch.inputs for batch in batches])
    np.testing.assert_array_equal(store.inputs[:4], written[20:24])
    np.testing.assert_array_equal(store.inputs[4:20], written[4:20])
    assert not np.asarray(states[1].stores[0].inputs[8:]).any()


def test_no_block_depends_on_a_later_one(stepped):
    step, states, batches, _ = stepped
    changed = jax.tree.map(lambda x: x * 2, states[1].states[2])
    other = states[1]._replace(states=(*states[1].states[:2], changed))
    key = jax.random.fold_in(KEY, 1)
    moved, _ = step(other, Network(), batches[1], key)
    chex.assert_trees_all_equal(moved.states[:2], states[2].states[:2])
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(moved.states[2], states[2].states[2])


def test_a_store_without_room_is_refused():
    with pytest.raises(ValueError, match="buffer must be an integer from 1, got 0"):
        phase_of(buffer=0)
    phase = phase_of(buffer=7)
    with pytest.raises(ValueError, match="algorithm.buffer: got 7, fewer than the 8"):
        phase.step(start(phase), Network(), batch_of(), KEY)
