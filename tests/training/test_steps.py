import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dib_jax.training.steps import (
    TRUNK_OUTPUT,
    Block,
    apply_frozen,
    epoch_rows,
    frozen,
    initial_state,
    predict,
    train_step,
    train_steps,
)

from dib_jax.data.augment import augment
from dib_jax.models.cnn import cnn
from dib_jax.models.heads.linear import linear
from dib_jax.objectives import WithModules
from dib_jax.objectives.dib import dib
from dib_jax.tasks.classification import classification
from dib_jax.training import steps
from dib_jax.training.compilation import compiler_figures

pytestmark = pytest.mark.once

STAGES = cnn(widths=(4, 6, 8), convolutions=1, pools=2)


def block_at(first, size=1, **changes):
    fields = {
        "trunk": STAGES[:first],
        "stages": STAGES[first : first + size],
        "head": linear(num_outputs=3),
        "stage": first + size - 1,
        "task": classification(num_classes=3),
        "objective": dib(alpha=1.01, beta=0.1, compress="input", every=1),
        "optimizer": optax.sgd(0.1, momentum=0.9),
        "prepare": lambda images: images.astype(jnp.float32) / 255,
        "augment": augment(""),
        "compute_dtype": jnp.float32,
        "batch_size": 8,
    }
    return Block(**{**fields, **changes})


def step_of(block, state, trunk, batch, *, key):
    """One step of a block that trains alone."""
    (state,), (terms,) = train_step((block,), (state,), trunk, batch, keys=(key,))
    return state, terms


def epoch_of(block, state, trunk, data, *, key):
    """One epoch of a block that trains alone."""
    rows = epoch_rows(block, key, state.step, samples=len(data["images"]))
    (state,), (terms,) = train_steps(
        (block,), (state,), trunk, data, rows, {}, keys=(key,)
    )
    return state, terms


@pytest.fixture(scope="module")
def data():
    key = jax.random.key(0)
    return {
        "images": jax.random.randint(key, (35, 8, 8, 1), 0, 256).astype(jnp.uint8),
        "labels": jax.random.randint(jax.random.key(1), (35,), 0, 3),
    }


def trained_trunk(data, stages=1):
    """Variables of a trunk whose batch statistics are not the initial ones."""
    trunk = ()
    for first in range(stages):
        block = block_at(first)
        state = initial_state(block, jax.random.key(first), data["images"])
        run = jax.jit(functools.partial(epoch_of, block))
        state, _ = run(state, trunk, data, key=jax.random.key(2))
        trunk += frozen(state)[0]
    return trunk


def test_the_trunk_is_bit_equal_after_later_stages_have_trained(data):
    trunk = trained_trunk(data, stages=2)
    before = jax.tree.map(lambda leaf: np.array(leaf, copy=True), trunk)
    block = block_at(2)
    state = initial_state(block, jax.random.key(5), data["images"])
    after, _ = jax.jit(functools.partial(epoch_of, block))(
        state, trunk, data, key=jax.random.key(6)
    )
    chex.assert_trees_all_equal(trunk, before)
    assert any("mean" in str(path) for path, _ in jax.tree.leaves_with_path(before))
    # Something was trained at all.
    change = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), after.params, state.params)
    assert max(jax.tree.leaves(change)) > 0


def test_the_trunk_runs_on_its_own_statistics_not_those_of_the_batch(data):
    trunk = trained_trunk(data)
    block = block_at(1)
    state = initial_state(block, jax.random.key(5), data["images"])
    alone = jax.tree.map(lambda leaf: leaf[:8], data)

    def objective(signals):
        return signals.task_loss, {"stage_input": signals.stage_input}

    _, terms = step_of(
        block._replace(objective=objective), state, trunk, alone, key=jax.random.key(0)
    )
    x = block.prepare(alone["images"])
    want = STAGES[0].apply(trunk[0], x, train=False)
    np.testing.assert_allclose(terms["stage_input"], want, atol=1e-6)
    on_the_batch, _ = STAGES[0].apply(trunk[0], x, train=True, mutable=["batch_stats"])
    assert float(jnp.abs(on_the_batch - want).max()) > 1e-3


def test_an_update_depends_on_nothing_after_the_stage(data):
    """A network that goes on behind a stage changes no bit of the stage's update."""
    batch = jax.tree.map(lambda leaf: leaf[:8], data)
    block = block_at(0)
    state = initial_state(block, jax.random.key(5), data["images"])

    def step_beside(scale):
        @jax.jit
        def step(state, later):
            new, terms = step_of(block, state, (), batch, key=jax.random.key(0))
            features = STAGES[0].apply(
                frozen(new)[0][0], block.prepare(batch["images"]), train=False
            )
            return new, terms, STAGES[1].apply(later, features, train=False)

        features = jnp.zeros((2, 4, 4, 4))
        later = STAGES[1].init(jax.random.key(7), features, train=False)
        return step(state, jax.tree.map(lambda leaf: leaf * scale, later))

    first, second = step_beside(1.0), step_beside(50.0)
    chex.assert_trees_all_equal(first[:2], second[:2])
    assert float(jnp.abs(first[2] - second[2]).max()) > 0  # it was perturbed


def test_no_gradient_crosses_into_the_trunk(data):
    trunk = trained_trunk(data)
    block = block_at(1)
    state = initial_state(block, jax.random.key(5), data["images"])
    batch = jax.tree.map(lambda leaf: leaf[:8], data)

    def loss_after(trunk):
        _, terms = step_of(block, state, trunk, batch, key=jax.random.key(0))
        return terms["loss"]

    for leaf in jax.tree.leaves(jax.grad(loss_after)(trunk)):
        np.testing.assert_array_equal(leaf, 0)


def test_an_epoch_sees_each_sample_at_most_once_and_orders_differ(data):
    seen = []

    def remember(key, batch):
        jax.debug.callback(lambda rows: seen.append(np.array(rows)), batch["index"])
        return batch

    block = block_at(0, augment=remember)
    data = {**data, "index": jnp.arange(35)}
    state = initial_state(block, jax.random.key(5), data["images"])
    run = jax.jit(functools.partial(epoch_of, block, key=jax.random.key(6)))
    orders = []
    for _ in range(2):
        seen.clear()
        state, terms = run(state, (), data)
        jax.block_until_ready(state)
        jax.effects_barrier()
        orders.append(np.concatenate(seen))
        assert len(orders[-1]) == len(set(orders[-1])) == 32
        assert terms["loss"].shape == (4,)
    assert (orders[0] != orders[1]).any()


def test_the_step_is_traced_once_for_all_epochs(data):
    block = block_at(0)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(state):
        return epoch_of(block, state, (), data, key=jax.random.key(6))[0]

    chex.clear_trace_counter()
    state = initial_state(block, jax.random.key(5), data["images"])
    for _ in range(3):
        state = run(state)
    assert int(state.step) == 12


def test_stages_that_are_alike_are_one_program_for_the_compilation_cache(data):
    stages = cnn(widths=(4, 4, 4, 5), convolutions=1, pools=0)
    size = 8

    def program(index):
        block = block_at(0, stages=(stages[index],), stage=index, objective=dib())
        images = jnp.zeros((size, 8, 8, 4), jnp.uint8)  # what the others put out
        state = jax.eval_shape(
            functools.partial(initial_state, block), jax.random.key(0), images
        )
        batch = {
            "images": data["images"][:size],
            "labels": data["labels"][:size],
            TRUNK_OUTPUT: jnp.zeros((size, 8, 8, 4)),
        }
        run = jax.jit(functools.partial(step_of, block))
        return run.lower(state, (), batch, key=jax.random.key(index)).as_text()

    assert program(1) == program(2)
    assert program(2) != program(3)


def test_predictions_of_a_split_do_not_depend_on_the_batch_size(data):
    trunk = trained_trunk(data)
    block = block_at(1)
    stages, head = frozen(initial_state(block, jax.random.key(5), data["images"]))
    outputs = [
        predict((block,), trunk, stages, (head,), data["images"], batch_size=size)[0]
        for size in (1, 8, 35, 500)
    ]
    for other in outputs:
        assert other.shape == (35, 3)
        np.testing.assert_allclose(other, outputs[0], atol=1e-5)


def test_bfloat16_compute_keeps_parameters_statistics_and_losses_in_float32(data):
    block = block_at(0, compute_dtype=jnp.bfloat16)
    state = initial_state(block, jax.random.key(5), data["images"])
    batch = jax.tree.map(lambda leaf: leaf[:8], data)
    new, terms = step_of(block, state, (), batch, key=jax.random.key(0))
    chex.assert_trees_all_equal_dtypes(new, state)
    for leaf in jax.tree.leaves(terms):
        assert leaf.dtype == jnp.float32
    exact = step_of(block_at(0), state, (), batch, key=jax.random.key(0))[1]
    assert terms["task_loss"] != exact["task_loss"]  # it did compute in bfloat16
    np.testing.assert_allclose(terms["task_loss"], exact["task_loss"], rtol=0.05)


def test_neighbouring_stages_of_a_block_train_together(data):
    block = block_at(0, size=3)
    state = initial_state(block, jax.random.key(5), data["images"])
    batch = jax.tree.map(lambda leaf: leaf[:8], data)
    new, _ = step_of(block, state, (), batch, key=jax.random.key(0))
    for before, after in zip(state.params, new.params, strict=True):
        kernel = before["Convolution_0"]["kernel"] - after["Convolution_0"]["kernel"]
        assert float(jnp.abs(kernel).max()) > 0


def at_once(data):
    """Three blocks in the middle of training, and the function that steps them."""
    blocks = tuple(block_at(first) for first in range(3))
    keys = tuple(jax.random.split(jax.random.key(3), 3))
    states = tuple(
        initial_state(block, key, data["images"])
        for block, key in zip(blocks, keys, strict=True)
    )
    batch = jax.tree.map(lambda leaf: leaf[:8], data)
    step = jax.jit(functools.partial(train_step, blocks, keys=keys))
    states, _ = step(states, (), batch)
    return blocks, states, keys, lambda states: step(states, (), batch)


@pytest.mark.parametrize("perturbed", [1, 2])
def test_of_blocks_trained_at_once_none_depends_on_a_later_one(data, perturbed):
    _, states, _, step = at_once(data)
    one = step(states)
    later = jax.tree.map(lambda leaf: leaf * 2 + 1, states[perturbed])
    later = later.replace(step=states[perturbed].step)
    other = step((*states[:perturbed], later, *states[perturbed + 1 :]))
    for a, b in zip(one, other, strict=True):
        chex.assert_trees_all_equal(a[:perturbed], b[:perturbed])
    # It was perturbed, and what comes after it feels it.
    for index in range(perturbed, 3):
        assert one[1][index]["loss"] != other[1][index]["loss"]


def test_a_block_trained_at_once_learns_on_the_features_of_the_one_before(data):
    def remember(signals):
        names = ("network_input", "stage_input", "features")
        return signals.task_loss, {name: getattr(signals, name) for name in names}

    blocks, states, keys, _ = at_once(data)
    blocks = tuple(block._replace(objective=remember) for block in blocks)
    batch = jax.tree.map(lambda leaf: leaf[:8], data)
    _, terms = train_step(blocks, states, (), batch, keys=keys)
    for before, after in itertools.pairwise(terms):
        np.testing.assert_array_equal(after["stage_input"], before["features"])
        np.testing.assert_array_equal(after["network_input"], before["network_input"])
    assert float(jnp.abs(terms[-1]["features"]).max()) > 0


def test_the_first_of_blocks_trained_at_once_is_updated_as_if_alone(data):
    blocks, states, keys, step = at_once(data)
    batch = jax.tree.map(lambda leaf: leaf[:8], data)
    alone = jax.jit(functools.partial(step_of, blocks[0], key=keys[0]))
    together, _ = step(states)
    # Two programs: equal to rounding.
    chex.assert_trees_all_close(
        alone(states[0], (), batch)[0], together[0], rtol=1e-4, atol=1e-6
    )


def test_recomputed_stages_have_the_same_gradient_and_do_the_forward_pass_twice(data):
    batch = jax.tree.map(lambda leaf: leaf[:8], data)
    results, flops = [], []
    for remat in (False, True):
        block = block_at(0, size=3, remat=remat)
        state = initial_state(block, jax.random.key(5), data["images"])
        step = jax.jit(functools.partial(step_of, block, key=jax.random.key(0)))
        lowered = step.lower(state, (), batch)
        flops.append(lowered.cost_analysis()["flops"])  # as written, not yet optimised
        results.append(lowered.compile()(state, (), batch))
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)
    assert flops[1] > 1.2 * flops[0]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of the form for a CPU")
def test_pictures_are_resampled_once_whatever_reads_them():
    images = jnp.zeros((8, 32, 32, 3), jnp.uint8)
    batch = {"images": images, "labels": jnp.zeros(8, jnp.int32)}
    affine = augment("affine")

    def flops(function, *args):
        return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

    def step(block):
        state = initial_state(block, jax.random.key(5), images)
        run = functools.partial(step_of, block, key=jax.random.key(0))
        return flops(lambda state, batch: run(state, (), batch), state, batch)

    alone = flops(affine, jax.random.key(0), batch)
    added = step(block_at(0, augment=affine)) - step(block_at(0, augment=None))
    assert added < 2 * alone


def test_a_loss_of_the_head_alone_leaves_the_stage_as_it_is(data):
    block = block_at(0, objective=lambda signals: (signals.head_loss, {}))
    state = initial_state(block, jax.random.key(0), data["images"])
    run = jax.jit(functools.partial(epoch_of, block))
    after, terms = run(state, (), data, key=jax.random.key(2))
    chex.assert_trees_all_equal(after.params, state.params)
    moved = jax.tree.map(
        lambda a, b: jnp.max(jnp.abs(a - b)), after.head["params"], state.head["params"]
    )
    assert min(jax.tree.leaves(moved)) > 1e-4
    np.testing.assert_allclose(terms["loss"], terms["task_loss"], rtol=1e-6)


def test_predictions_from_the_trunks_output_are_those_from_the_pictures(data):
    trunk = trained_trunk(data, stages=2)
    blocks = (block_at(2),)
    state = initial_state(blocks[0], jax.random.key(5), data["images"])
    stages, head = frozen(state)
    images = data["images"]
    want = predict(blocks, trunk, stages, (head,), images, batch_size=8)
    x = apply_frozen(STAGES[:2], trunk, blocks[0].prepare(images))[-1]
    got = predict(blocks, (), stages, (head,), x, batch_size=8, trunk_done=True)
    np.testing.assert_allclose(got[0], want[0], atol=1e-5)


def compiled_figures(blocks, data):
    states = tuple(
        jax.eval_shape(
            functools.partial(initial_state, block), jax.random.key(0), data["images"]
        )
        for block in blocks
    )
    keys = (jax.random.key(0),) * len(blocks)
    step = jax.jit(functools.partial(train_step, blocks))
    batch = {name: leaf[:8] for name, leaf in data.items()}
    return compiler_figures(step.lower(states, (), batch, keys=keys).compile())


def test_blocks_trained_at_once_hold_no_more_the_more_they_are(data):
    def held(count):
        stages = cnn(widths=(16,) * count, pools=0)
        blocks = [
            block_at(0)._replace(
                trunk=stages[:i], stages=stages[i : i + 1], stage=i, objective=plain
            )
            for i in range(count)
        ]
        return compiled_figures(blocks, data)["temp_bytes"]

    assert held(5) < 1.2 * held(2)


def plain(signals):
    return signals.task_loss, {}


def test_a_loss_of_the_head_alone_costs_nothing_where_it_is_not_asked_for(data):
    def work(objective):
        block = block_at(0)._replace(objective=objective)
        return compiled_figures((block,), data)["flops"]

    def nothing_more(signals):
        return plain(signals._replace(head_loss=None, target_gram=None))

    assert work(plain) == work(nothing_more)
    assert work(plain) < work(lambda s: (s.task_loss + s.head_loss, {}))


def test_modules_of_an_objective_see_the_features_and_train_beside_the_head(data):
    batch = jax.tree.map(lambda leaf: leaf[:8], data)

    def loss(signals):
        guess = signals.modules["guess"]
        return jnp.mean((guess - 1) ** 2) + signals.head_loss, {"guess": guess}

    objective = WithModules(loss, lambda stage, shape: {"guess": linear(num_outputs=2)})
    block = block_at(0, objective=objective, modules=objective.modules(0, (8, 8, 1)))
    plain = block_at(0, objective=lambda signals: (signals.head_loss, {}))
    start, without = (
        initial_state(b, jax.random.key(5), data["images"]) for b in (block, plain)
    )
    # A module more draws no other weights for the stage and its head.
    chex.assert_trees_all_equal(start.params, without.params)
    chex.assert_trees_all_equal(start.head, without.head)
    step = jax.jit(functools.partial(step_of, block, key=jax.random.key(0)))
    state, terms = step(start, (), batch)
    features, _ = STAGES[0].apply(
        {"params": start.params[0], "batch_stats": start.batch_stats[0]},
        block.prepare(batch["images"]),
        train=True,
        mutable=["batch_stats"],
    )
    params = start.modules["params"]["guess"]
    want = linear(num_outputs=2).apply({"params": params}, features, train=True)
    np.testing.assert_allclose(terms["guess"], want, atol=1e-5)
    for _ in range(100):
        state, later = step(state, (), batch)
    # It has learned, and so has the stage through it.
    assert jnp.mean((later["guess"] - 1) ** 2) < 0.1 * jnp.mean((want - 1) ** 2)
    other, _ = step_of(plain, without, (), batch, key=jax.random.key(0))
    chex.assert_trees_all_equal(other.params, without.params)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(state.params, start.params)


def test_a_penalty_at_every_stage_counts_beside_one_loss_of_the_task(data):
    batch = jax.tree.map(lambda leaf: leaf[:8], data)

    def objective(signals):
        size = jnp.mean(signals.features**2) - jnp.mean(signals.stage_input**2)
        return signals.task_loss + 0.5 * size, {"size": size}

    block = block_at(0, size=3, objective=objective, every_stage=True)
    state = initial_state(block, jax.random.key(5), data["images"])
    _, terms = step_of(block, state, (), batch, key=jax.random.key(0))
    names = ("stage0_size", "stage1_size", "size")
    penalty = 0.5 * sum(terms[name] for name in names)
    np.testing.assert_allclose(terms["loss"], terms["task_loss"] + penalty, rtol=1e-5)
    # Each is of its own stage: what they see runs from the input to the last features.
    ends = objective_ends(block, state, batch)
    np.testing.assert_allclose(sum(terms[name] for name in names), ends, rtol=1e-4)


def objective_ends(block, state, batch):
    """Mean square of a block's features minus that of its input."""
    x = first = block.prepare(batch["images"])
    for module, entry in zip(block.stages, frozen(state)[0], strict=True):
        x, _ = module.apply(entry, x, train=True, mutable=["batch_stats"])
    return jnp.mean(x**2) - jnp.mean(first**2)


def test_the_penalty_of_a_late_stage_reaches_the_early_ones(data):
    batch = jax.tree.map(lambda leaf: leaf[:8], data)

    def objective(signals):
        return (signals.stage == 1) * jnp.mean(signals.features**2), {}

    block = block_at(0, size=3, objective=objective, every_stage=True)
    state = initial_state(block, jax.random.key(5), data["images"])
    new, _ = step_of(block, state, (), batch, key=jax.random.key(0))
    moved = [
        float(
            jnp.abs(
                before["Convolution_0"]["kernel"] - after["Convolution_0"]["kernel"]
            ).max()
        )
        for before, after in zip(state.params, new.params, strict=True)
    ]
    assert moved[0] > 0
    assert moved[2] == 0


def test_the_gradients_of_task_and_penalty_are_recorded_apart(data):
    batch = jax.tree.map(lambda leaf: leaf[:8], data)

    def weighted(signals):
        return 3 * signals.task_loss + 0.5 * jnp.sum(signals.features**2), {}

    block = block_at(0, objective=weighted)
    state = initial_state(block, jax.random.key(5), data["images"])
    _, terms = step_of(block, state, (), batch, key=jax.random.key(0))
    stage = {"params": state.params[0], "batch_stats": state.batch_stats[0]}
    features, _ = STAGES[0].apply(
        stage, block.prepare(batch["images"]), train=True, mutable=["batch_stats"]
    )

    def task_loss(features):
        outputs = block.head.apply(
            {"params": state.head["params"]}, features, train=True
        )
        return block.task.loss(outputs, batch["labels"])[0]

    want = 3 * jnp.linalg.norm(jax.grad(task_loss)(features))
    np.testing.assert_allclose(terms["task_gradient"], want, rtol=1e-5)
    # That of half the sum of squares are the features themselves.
    norm = jnp.linalg.norm(features)
    np.testing.assert_allclose(terms["local_gradient"], norm, rtol=1e-5)
    assert float(want) > 0


def test_the_progress_of_a_training_runs_from_zero_to_its_last_step(data):
    def objective(signals):
        return signals.task_loss, {"progress": signals.progress}

    block = block_at(0, objective=objective, steps=4)
    state = initial_state(block, jax.random.key(0), data["images"])
    _, terms = epoch_of(block, state, (), data, key=jax.random.key(2))
    np.testing.assert_allclose(terms["progress"], [0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize("scale", [1.0, 1e25])
def test_the_spread_is_the_share_of_features_that_differs_between_samples(scale):
    constant = jnp.broadcast_to(jnp.array([0.3, -2.0, 0.0]), (8, 3)) * scale
    signs = jnp.where(jnp.arange(8) % 2, 1.0, -1.0)[:, None] * jnp.ones(3) * scale
    before = jnp.linspace(-1, 1, 16).reshape(8, 2)
    assert float(steps._spread(0 * constant, before)) == 0
    assert float(steps._spread(0 * constant, 0 * before)) == 0
    assert float(steps._spread(constant, before)) < 1e-12
    np.testing.assert_allclose(steps._spread(signs, 1e-3 * before), 1.0, rtol=1e-6)
    half = jnp.concatenate([signs, jnp.ones((8, 3)) * scale], axis=1)
    np.testing.assert_allclose(steps._spread(half, 1e-3 * before), 0.5, rtol=1e-6)


def test_features_that_are_next_to_nothing_beside_the_input_have_no_spread():
    before = jax.random.normal(jax.random.key(0), (8, 5))
    features = jax.random.normal(jax.random.key(1), (8, 3))
    usual = float(steps._spread(features, before))
    assert usual > 0.5
    np.testing.assert_allclose(steps._spread(0.1 * features, before), usual, rtol=0.05)
    assert float(steps._spread(3e-5 * features, before)) < 1e-4
    # Small features of small features are as good as large ones of large ones.
    np.testing.assert_allclose(
        steps._spread(1e-6 * features, 1e-6 * before), usual, rtol=1e-3
    )
