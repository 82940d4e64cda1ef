"""What a step of blocks does, and what it leaves alone."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_blocks import (
    CLASSES,
    KEY,
    STAGES,
    batch_of,
    largest_changes,
    parts_of,
    start,
    steps_of,
)

from dib_jax.algorithms import blocks
from dib_jax.algorithms.blocks import Network, block, local, update
from dib_jax.algorithms.end_to_end import end_to_end
from dib_jax.algorithms.end_to_end_penalized import end_to_end_penalized
from dib_jax.algorithms.parallel import parallel
from dib_jax.algorithms.parallel_readout import parallel_readout
from dib_jax.algorithms.sequential import sequential
from dib_jax.models.cnn import cnn
from dib_jax.models.heads.linear import linear
from dib_jax.objectives import WithModules
from dib_jax.objectives.cross_entropy import cross_entropy
from dib_jax.training.compilation import compiler_figures

pytestmark = pytest.mark.once


def remembering(signals):
    """Task and features at known weights; what the stage saw is recorded."""
    seen = ("network_input", "stage_input", "features", "progress")
    loss = 3 * signals.task_loss + 0.01 * jnp.sum(signals.features**2)
    return loss, {name: getattr(signals, name) for name in seen}


# Stages in turn -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_turn():
    """Two stages trained, copies of them, and the last stage before and after."""
    algorithm = sequential(parts_of(objective=remembering))
    batch, network = batch_of(), algorithm.network
    for phase in algorithm.phases[:2]:
        if phase.given:
            batch = batch._replace(given=phase.given(network, batch))
        state, _ = steps_of(phase, network, batch, steps=2)
        network = phase.read(state, network)
    before = jax.tree.map(lambda leaf: np.array(leaf, copy=True), network)
    phase = algorithm.phases[2]
    given = phase.given(network, batch)
    initial = start(phase, network, batch)
    state, terms = steps_of(phase, network, batch._replace(given=given), state=initial)
    return algorithm, batch, network, before, (initial, state, terms)


def test_the_trunk_is_bit_equal_after_later_stages_have_trained(in_turn):
    algorithm, _, network, before, (initial, state, _) = in_turn
    whole = algorithm.phases[2].read(state, network)
    chex.assert_trees_all_equal(whole.stages[:2], before.stages)
    chex.assert_trees_all_equal(whole.heads[:2], before.heads)
    paths = [str(path) for path, _ in jax.tree.leaves_with_path(before.stages)]
    assert any("mean" in path for path in paths)
    # Something was trained at all.
    assert max(largest_changes(state[0].params, initial[0].params)) > 0
    assert len(whole.stages) == len(whole.heads) == 3


def test_the_trunk_runs_on_its_own_statistics_not_those_of_the_batch(in_turn):
    _, batch, network, _, (_, _, terms) = in_turn
    x = STAGES[0].apply(network.stages[0], batch.inputs, train=False)
    np.testing.assert_allclose(batch.given, x, atol=1e-6)
    want = STAGES[1].apply(network.stages[1], x, train=False)
    np.testing.assert_allclose(terms[2]["stage_input"], want, atol=1e-6)
    np.testing.assert_array_equal(terms[2]["network_input"], batch.inputs)
    on_the_batch, _ = STAGES[1].apply(
        network.stages[1], x, train=True, mutable=["batch_stats"]
    )
    assert float(jnp.abs(on_the_batch - want).max()) > 1e-3


def test_no_gradient_crosses_into_the_trunk(in_turn):
    algorithm, batch, network, _, (initial, *_) = in_turn
    _, second, third = algorithm.phases

    def loss_after(network):
        x = batch._replace(given=None)
        for phase in (second, third):
            x = x._replace(given=phase.given(network, x))
        return third.step(initial, network, x, KEY)[1][2]["loss"]

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss_after))(network)):
        np.testing.assert_array_equal(leaf, 0)


def test_outputs_from_what_the_trunk_gives_are_those_from_the_inputs(in_turn):
    algorithm, batch, network, _, (_, state, _) = in_turn
    phase = algorithm.phases[2]
    whole = phase.read(state, network)
    given = phase.given(network, batch)
    (found,) = phase.outputs(whole, batch._replace(given=given, targets=None))
    want = algorithm.predict(whole, batch._replace(given=None, targets=None))
    assert len(want) == 3
    np.testing.assert_allclose(found, want[-1], atol=1e-6)
    assert found.dtype == jnp.float32
    # Of a network in training, the exits that are there.
    before = algorithm.predict(network, batch._replace(given=None))
    chex.assert_trees_all_equal(before, want[:2])
    features = algorithm.features(whole, batch._replace(given=None))
    assert [x.shape for x in features] == [(8, 6), (8, 5), (8, 4)]
    np.testing.assert_array_equal(features[1], given)


def test_an_update_depends_on_nothing_after_the_stage():
    """A network that goes on behind a stage changes no bit of the stage's update."""
    batch, (phase, *_) = batch_of(), sequential(parts_of()).phases
    state = start(phase)
    later = STAGES[1].init(jax.random.key(7), jnp.zeros((2, 6)), train=False)

    @jax.jit
    def step_beside(scale):
        new, terms = phase.step(state, Network(), batch, KEY)
        features = STAGES[0].apply(new[0].variables()[0], batch.inputs, train=False)
        behind = jax.tree.map(lambda leaf: leaf * scale, later)
        return new, terms, STAGES[1].apply(behind, features, train=False)

    first, second = step_beside(1.0), step_beside(50.0)
    chex.assert_trees_all_equal(first[:2], second[:2])
    assert float(jnp.abs(first[2] - second[2]).max()) > 0  # it was perturbed


def test_blocks_of_neighbours_have_epochs_of_their_own():
    phases = sequential(parts_of(epochs=(1, 4)), blocks=2).phases
    assert [phase.exits for phase in phases] == [(1,), (2,)]
    assert [phase.trains for phase in phases] == [(0, 1), (2,)]
    assert [phase.epochs for phase in phases] == [1, 4]
    with pytest.raises(ValueError, match=r"epochs: got \(1, 4\), 2 numbers for 3"):
        sequential(parts_of(epochs=(1, 4)))


# Stages at once -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def at_once():
    """Three blocks in the middle of training, and the function that steps them."""
    (phase,) = parallel(parts_of(objective=remembering)).phases
    batch, step = batch_of(), jax.jit(phase.step)
    states, _ = step(start(phase), Network(), batch, KEY)
    return states, lambda states: step(states, Network(), batch, KEY)


@pytest.mark.parametrize("perturbed", [1, 2])
def test_of_blocks_trained_at_once_none_depends_on_a_later_one(at_once, perturbed):
    states, step = at_once
    one = step(states)
    later = jax.tree.map(lambda leaf: leaf * 2 + 1, states[perturbed])
    later = later.replace(step=states[perturbed].step)
    other = step((*states[:perturbed], later, *states[perturbed + 1 :]))
    chex.assert_trees_all_equal(one[0][:perturbed], other[0][:perturbed])
    for stage in range(perturbed):
        chex.assert_trees_all_equal(one[1][stage], other[1][stage])
    # It was perturbed, and what comes after it feels it.
    for stage in range(perturbed, 3):
        assert one[1][stage]["loss"] != other[1][stage]["loss"]


def test_a_block_trained_at_once_learns_on_the_features_of_the_one_before(at_once):
    states, step = at_once
    _, terms = step(states)
    assert list(terms) == [0, 1, 2]
    for before, after in itertools.pairwise(terms.values()):
        # In one program what is recorded may be computed apart from what is handed on.
        np.testing.assert_allclose(after["stage_input"], before["features"], rtol=1e-6)
        np.testing.assert_array_equal(after["network_input"], before["network_input"])
    assert float(jnp.abs(terms[2]["features"]).max()) > 0


def test_the_first_of_blocks_trained_at_once_is_updated_as_if_alone(at_once):
    states, step = at_once
    together, _ = step(states)
    parts = parts_of(objective=remembering)
    alone = jax.jit(functools.partial(update, block(parts, [0], 2)))
    # Two programs: equal to rounding.
    chex.assert_trees_all_close(
        alone(states[0], batch_of(), KEY)[0], together[0], rtol=1e-4, atol=1e-6
    )


def test_stages_start_alike_whether_in_turn_or_at_once(at_once):
    (together,) = parallel(parts_of()).phases
    states = start(together)
    for phase, state in zip(sequential(parts_of()).phases, states, strict=True):
        chex.assert_trees_all_equal(start(phase)[0], state)


def test_the_gradients_of_task_and_penalty_are_recorded_apart(at_once):
    states, step = at_once
    _, terms = step(states)
    for index, (state, given) in enumerate(zip(states, terms.values(), strict=True)):
        features, _ = STAGES[index].apply(
            state.variables()[0],
            given["stage_input"],
            train=True,
            mutable=["batch_stats"],
        )
        np.testing.assert_allclose(given["features"], features, atol=1e-5)

        def task_loss(features, head=state.head["params"]):
            outputs = linear(num_outputs=CLASSES).apply(
                {"params": head}, features, train=True
            )
            return parts_of().task.loss(outputs, batch_of().targets)[0]

        want = 3 * jnp.linalg.norm(jax.grad(task_loss)(features))
        np.testing.assert_allclose(given["task_gradient"], want, rtol=1e-5)
        # That of half the sum of squares are the features themselves.
        norm = 0.02 * jnp.linalg.norm(features)
        np.testing.assert_allclose(given["local_gradient"], norm, rtol=1e-5)
        assert float(want) > 0


def test_the_progress_of_a_training_runs_from_zero_to_its_last_step(at_once):
    """Two epochs of two steps."""
    states, step = at_once
    seen = []
    for _ in range(3):
        states, terms = step(states)
        seen.append([float(terms[stage]["progress"]) for stage in range(3)])
    np.testing.assert_allclose(np.transpose(seen), [[0.25, 0.5, 0.75]] * 3)
    assert int(states[2].step) == 4


def test_blocks_trained_at_once_hold_no_more_the_more_they_are():
    def held(count):
        stages = cnn(widths=(16,) * count, pools=0)
        (phase,) = parallel(parts_of(stages, objective=cross_entropy())).phases
        return figures_of(phase, batch_of(shape=(8, 8, 1)))["temp_bytes"]

    assert held(5) < 1.2 * held(2)


def figures_of(phase, batch):
    state = jax.eval_shape(phase.init, KEY, Network(), batch)
    step = jax.jit(phase.step, donate_argnums=0)
    return compiler_figures(step.lower(state, Network(), batch, KEY).compile())


def test_a_loss_without_an_information_term_is_the_tasks_in_blocks_too():
    parts = parts_of(objective=cross_entropy())
    (phase,) = parallel(parts, blocks=2).phases
    assert (phase.exits, phase.trains) == ((1, 2), (0, 1, 2))
    _, terms = steps_of(phase, Network(), batch_of())
    for stage in (1, 2):
        assert terms[stage]["loss"] == terms[stage]["task_loss"]
    assert terms[1]["loss"] != terms[2]["loss"]


def test_stages_that_train_at_once_take_one_number_of_epochs():
    with pytest.raises(ValueError, match=r"epochs: got \(1, 2, 3\), 3 numbers for 1"):
        parallel(parts_of(epochs=(1, 2, 3)))
    assert parallel(parts_of(epochs=(2,))).phases[0].epochs == 2


def test_an_output_layer_is_trained_alone_on_the_frozen_network():
    """It has epochs of its own, and its stage hands on what it gets."""
    algorithm = parallel_readout(parts_of(objective=remembering, epochs=(2, 5)))
    stages, readout = algorithm.phases
    assert (stages.exits, readout.exits) == ((0, 1, 2), (3,))
    assert (stages.epochs, readout.epochs) == (2, 5)
    batch = batch_of()
    network = stages.read(start(stages), Network())
    before = jax.tree.map(lambda leaf: np.array(leaf, copy=True), network)
    batch = batch._replace(given=readout.given(network, batch))
    initial = start(readout, network)
    state, terms = steps_of(readout, network, batch, state=initial)
    assert terms[3]["loss"] == terms[3]["task_loss"]  # not the objective's
    whole = readout.read(state, network)
    chex.assert_trees_all_equal(whole.stages[:3], before.stages)
    assert whole.stages[3] == {"params": {}, "batch_stats": {}}
    # It starts with weights of its own, and moves.
    kernels = [head["params"]["Dense_0"]["kernel"] for head in whole.heads]
    assert kernels[3].shape == kernels[2].shape
    assert (initial[0].head["params"]["Dense_0"]["kernel"] != kernels[2]).any()
    assert min(largest_changes(state[0].head, initial[0].head)) > 0
    features = algorithm.features(whole, batch._replace(given=None))
    np.testing.assert_array_equal(features[3], features[2])
    with pytest.raises(ValueError, match="epochs: .* 3 numbers for 2 phases"):
        parallel_readout(parts_of(epochs=(2, 5, 1)))


# Blocks of several stages -------------------------------------------------------------


def test_recomputed_stages_have_the_same_gradient_and_do_the_forward_pass_twice():
    batch, results, flops = batch_of(), [], []
    for remat in (False, True):
        (phase,) = end_to_end(parts_of(), remat=remat).phases
        state = start(phase)
        lowered = jax.jit(phase.step).lower(state, Network(), batch, KEY)
        flops.append(lowered.cost_analysis()["flops"])  # as written, not yet optimised
        results.append(lowered.compile()(state, Network(), batch, KEY))
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)
    assert flops[1] > 1.2 * flops[0]
    # They train together, on the task's loss.
    ((after,), terms), before = results[0], state[0]
    for old, new in zip(before.params, after.params, strict=True):
        kernel = old["Dense_0"]["kernel"] - new["Dense_0"]["kernel"]
        assert float(jnp.abs(kernel).max()) > 0
    assert terms[2]["loss"] == terms[2]["task_loss"]


def test_a_penalty_at_every_stage_counts_beside_one_loss_of_the_task():
    batch = batch_of()

    def objective(signals):
        size = jnp.mean(signals.features**2) - jnp.mean(signals.stage_input**2)
        return signals.task_loss + 0.5 * size, {"size": size}

    (phase,) = end_to_end_penalized(parts_of(objective=objective)).phases
    (state,) = start(phase)
    _, terms = steps_of(phase, Network(), batch, state=(state,))
    terms = terms[2]
    names = ("stage0_size", "stage1_size", "size")
    penalty = 0.5 * sum(terms[name] for name in names)
    np.testing.assert_allclose(terms["loss"], terms["task_loss"] + penalty, rtol=1e-5)
    # Each is of its own stage: what they see runs from the input to the last features.
    x = batch.inputs
    for module, entry in zip(STAGES, state.variables(), strict=True):
        x, _ = module.apply(entry, x, train=True, mutable=["batch_stats"])
    ends = jnp.mean(x**2) - jnp.mean(batch.inputs**2)
    np.testing.assert_allclose(sum(terms[name] for name in names), ends, rtol=1e-4)


def test_the_penalty_of_a_late_stage_reaches_the_early_ones():
    def objective(signals):
        return (signals.stage == 1) * jnp.mean(signals.features**2), {}

    (phase,) = end_to_end_penalized(parts_of(objective=objective)).phases
    (before,) = start(phase)
    (after,), _ = steps_of(phase, Network(), batch_of(), state=(before,))
    moved = [
        largest_changes(old["Dense_0"]["kernel"], new["Dense_0"]["kernel"])[0]
        for old, new in zip(before.params, after.params, strict=True)
    ]
    assert moved[0] > 0
    assert moved[2] == 0


def test_modules_of_an_objective_are_not_for_penalties_end_to_end():
    objective = WithModules(cross_entropy(), lambda stage, shape: {})
    with pytest.raises(ValueError, match="algorithm.name: .* modules of this object"):
        end_to_end_penalized(parts_of(objective=objective))


# Losses, heads and numbers ------------------------------------------------------------


def test_bfloat16_compute_keeps_parameters_statistics_and_losses_in_float32():
    results = []
    for dtype in (jnp.bfloat16, jnp.float32):
        phase, *_ = sequential(parts_of(compute_dtype=dtype)).phases
        state = start(phase)
        new, terms = steps_of(phase, Network(), batch_of(), state=state)
        chex.assert_trees_all_equal_dtypes(new, state)
        for leaf in jax.tree.leaves(terms):
            assert leaf.dtype == jnp.float32
        results.append(terms[0]["task_loss"])
    assert results[0] != results[1]  # it did compute in bfloat16
    np.testing.assert_allclose(*results, rtol=0.05)


def test_a_loss_of_the_head_alone_leaves_the_stage_as_it_is():
    objective = lambda signals: (signals.head_loss, {})  # noqa: E731
    phase, *_ = sequential(parts_of(objective=objective)).phases
    before = start(phase)
    after, terms = steps_of(phase, Network(), batch_of(), steps=4, state=before)
    chex.assert_trees_all_equal(after[0].params, before[0].params)
    heads = (after[0].head["params"], before[0].head["params"])
    assert min(largest_changes(*heads)) > 1e-4
    np.testing.assert_allclose(terms[0]["loss"], terms[0]["task_loss"], rtol=1e-6)


def test_a_loss_of_the_head_alone_costs_nothing_where_it_is_not_asked_for():
    def work(objective):
        phase, *_ = sequential(parts_of(objective=objective)).phases
        return figures_of(phase, batch_of())["flops"]

    def plain(signals):
        return signals.task_loss, {}

    def nothing_more(signals):
        return plain(signals._replace(head_loss=None, target_gram=None))

    assert work(plain) == work(nothing_more)
    assert work(plain) < work(lambda s: (s.task_loss + s.head_loss, {}))


def test_modules_of_an_objective_see_the_features_and_train_beside_the_head():
    batch = batch_of()

    def loss(signals):
        guess = signals.modules["guess"]
        return jnp.mean((guess - 1) ** 2) + signals.head_loss, {"guess": guess}

    def modules(stage, shape):
        assert (stage, shape) == (0, (4, 4, 1))
        return {"guess": linear(num_outputs=2)}

    objective = WithModules(loss, modules)
    phase, *_ = sequential(parts_of(objective=objective)).phases
    plain, *_ = sequential(parts_of()).phases
    (begun,), (without,) = start(phase), start(plain)
    # A module more draws no other weights for the stage and its head.
    chex.assert_trees_all_equal(begun.params, without.params)
    chex.assert_trees_all_equal(begun.head, without.head)
    step = jax.jit(phase.step)
    state, terms = step((begun,), Network(), batch, KEY)
    features, _ = STAGES[0].apply(
        begun.variables()[0], batch.inputs, train=True, mutable=["batch_stats"]
    )
    params = begun.modules["params"]["guess"]
    want = linear(num_outputs=2).apply({"params": params}, features, train=True)
    np.testing.assert_allclose(terms[0]["guess"], want, atol=1e-5)
    for _ in range(100):
        state, later = step(state, Network(), batch, KEY)
    # It has learned, and so has the stage through it.
    before, after = (jnp.mean((x - 1) ** 2) for x in (want, later[0]["guess"]))
    assert after < 0.1 * before
    assert min(largest_changes(state[0].params[0], begun.params[0])) > 0


@pytest.mark.parametrize("scale", [1.0, 1e25])
def test_the_spread_is_the_share_of_features_that_differs_between_samples(scale):
    spread = blocks._spread
    constant = jnp.broadcast_to(jnp.array([0.3, -2.0, 0.0]), (8, 3)) * scale
    signs = jnp.where(jnp.arange(8) % 2, 1.0, -1.0)[:, None] * jnp.ones(3) * scale
    before = jnp.linspace(-1, 1, 16).reshape(8, 2)
    assert float(spread(0 * constant, before)) == 0
    assert float(spread(0 * constant, 0 * before)) == 0
    assert float(spread(constant, before)) < 1e-12
    np.testing.assert_allclose(spread(signs, 1e-3 * before), 1.0, rtol=1e-6)
    half = jnp.concatenate([signs, jnp.ones((8, 3)) * scale], axis=1)
    np.testing.assert_allclose(spread(half, 1e-3 * before), 0.5, rtol=1e-6)


def test_features_that_are_next_to_nothing_beside_the_input_have_no_spread():
    spread = blocks._spread
    before = jax.random.normal(jax.random.key(0), (8, 5))
    features = jax.random.normal(jax.random.key(1), (8, 3))
    usual = float(spread(features, before))
    assert usual > 0.5
    np.testing.assert_allclose(spread(0.1 * features, before), usual, rtol=0.05)
    assert float(spread(3e-5 * features, before)) < 1e-4
    # Small features of small features are as good as large ones of large ones.
    np.testing.assert_allclose(spread(1e-6 * features, 1e-6 * before), usual, rtol=1e-3)


def test_a_block_says_when_its_features_have_collapsed():
    (phase,) = parallel(parts_of()).phases
    assert phase.notices({"spread": 2e-4}) == {}
    notices = phase.notices({"spread": 0.5e-4})
    assert list(notices) == ["collapsed"]
    assert "its features have collapsed" in notices["collapsed"]


def test_a_block_has_a_stage_or_more():
    for algorithm in (sequential, parallel, parallel_readout):
        for size in (0, 99):
            with pytest.raises(ValueError, match=rf"must be 1 to .*; got {size}"):
                algorithm(parts_of(), blocks=size)
    assert blocks.neighbours(5, 2) == ((0, 1), (2, 3), (4,))
    assert local(block(parts_of(), [1, 2], 3), 3).exits == (2,)


def test_stages_that_a_phase_leaves_out_are_trained_anew_by_a_later_one():
    parts, batch = parts_of(), batch_of()
    singles = [block(parts, (number,), 1) for number in range(3)]
    late = block(parts, (1, 2), 1)
    first = blocks.at_once(singles, 1, stay=1)
    second = local(late, 1, trunk=parts.stages[:1])
    algorithm = blocks.stack([first, second], [singles[0], late])
    states, terms = steps_of(first, Network(), batch)
    assert (len(states), first.exits, first.trains, set(terms)) == (3, (0,), (0,), {0})
    network = first.read(states, Network())
    assert (len(network.stages), len(network.heads)) == (1, 1)
    chex.assert_shape(first.outputs(network, batch), (8, CLASSES))
    batch = batch._replace(given=second.given(network, batch))
    state, _ = steps_of(second, network, batch)
    whole = second.read(state, network)
    assert (len(whole.stages), len(whole.heads)) == (3, 2)
    chex.assert_trees_all_equal(whole.stages[0], network.stages[0])
    predicted = algorithm.predict(whole, batch._replace(given=None))
    assert [outputs.shape for outputs in predicted] == [(8, CLASSES)] * 2
