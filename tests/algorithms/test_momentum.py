"""Heads that follow the next stage: what they compute and what moves them."""

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
)

from dib_jax.algorithms.blocks import Network
from dib_jax.algorithms.end_to_end import end_to_end
from dib_jax.algorithms.momentum import momentum
from dib_jax.algorithms.parallel import parallel
from dib_jax.algorithms.parallel_readout import parallel_readout
from dib_jax.algorithms.sequential import sequential
from dib_jax.models.heads.linear import linear
from dib_jax.models.heads.momentum import momentum as momentum_head
from dib_jax.models.mlp import mlp

pytestmark = pytest.mark.once


def head_of(stages=STAGES, **options):
    return lambda stage: momentum_head(
        num_outputs=CLASSES, stage=stage, stages=stages, **options
    )


@pytest.fixture(scope="module")
def trained():
    """Three stages: at the start, before and after a step, and what steps them."""
    (phase,) = momentum(parts_of(head=head_of()), decay=0.9).phases
    step, batch, initial = jax.jit(phase.step), batch_of(), start(phase)
    before, _ = step(initial, Network(), batch, KEY)

    def stepped(states):
        return step(states, Network(), batch, KEY)[0]

    return initial, before, stepped(before), stepped


def follower(state):
    return state.head["follower"]["params"]


def test_the_follower_starts_as_the_next_stage(trained):
    initial, *_ = trained
    for state, following in itertools.pairwise(initial):
        chex.assert_trees_all_equal(follower(state), following.params[0])
    assert head_of()(2) == linear(num_outputs=CLASSES)
    assert "follower" not in initial[-1].head


def test_a_heads_outputs_can_be_softened_and_read_from_maxima():
    options = {"pooling": "max", "output_scale": 0.25}
    x, key = batch_of().inputs, jax.random.key(0)
    plain, soft = head_of()(0), head_of(**options)(0)
    variables = plain.init(key, x, train=False)
    want, found = (one.apply(variables, x, train=False) for one in (plain, soft))
    np.testing.assert_allclose(found, 0.25 * want, rtol=1e-5)
    assert head_of(**options)(2) == linear(num_outputs=CLASSES, **options)
    with pytest.raises(ValueError, match="pooling"):
        head_of(pooling="least")(0)


def test_each_step_takes_the_follower_a_tenth_of_the_way_to_the_next_stages_new_weights(
    trained,
):
    _, before, after, _ = trained
    for index in (0, 1):
        wanted = jax.tree.map(
            lambda old, new: 0.9 * old + 0.1 * new,
            follower(before[index]),
            after[index + 1].params[0],
        )
        chex.assert_trees_all_close(follower(after[index]), wanted, rtol=1e-5)
        moved = largest_changes(follower(before[index]), follower(after[index]))
        assert max(moved) > 0


def test_what_is_trained_of_the_head_is_its_bias_and_its_output_layer(trained):
    _, before, after, _ = trained
    assert set(before[0].head["params"]) == {"following", "Dense_0"}
    for name, old in before[0].head["params"].items():
        assert min(largest_changes(old, after[0].head["params"][name])) > 0, name


def test_the_next_stages_update_does_not_see_the_follower(trained):
    _, before, after, stepped = trained
    changed = jax.tree.map(lambda leaf: 2 * leaf + 1, before[0].head)
    other = stepped((before[0].replace(head=changed), *before[1:]))
    for name in ("params", "opt_state", "head"):
        # Of the first stage its own loss has changed, but its weights only after it.
        chex.assert_trees_all_equal(getattr(other[2], name), getattr(after[2], name))
    features = [jax.tree.leaves(state.params)[0] for state in (other[0], after[0])]
    assert (features[0] != features[1]).any()
    chex.assert_trees_all_equal(other[1].params, after[1].params)


def test_of_the_next_block_the_first_stage_is_followed():
    parts = parts_of(head=head_of())
    (phase,) = momentum(parts, blocks=2).phases
    assert phase.exits == (1, 2)
    states = jax.eval_shape(phase.init, KEY, Network(), batch_of())
    chex.assert_trees_all_equal_shapes(follower(states[0]), states[1].params[0])


@pytest.mark.parametrize("bias", ["stage", "channels", "none"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_output_is_that_of_the_follower_plus_the_bias(bias, batch_norm):
    stages = mlp(widths=(5, 4), batch_norm=batch_norm)
    head = head_of(stages, bias=bias)(0)
    x = jax.random.normal(jax.random.key(0), (6, 5))
    variables = head.init(jax.random.key(1), x, train=False)
    _, changed = head.apply(variables, 2 * x + 1, train=True, mutable=["batch_stats"])
    variables = jax.tree.map(lambda leaf: leaf + 0.1, {**variables, **changed})

    def stage(params, statistics):
        entry = {"params": params}
        if batch_norm:
            entry["batch_stats"] = variables["batch_stats"][statistics]
        return stages[1].apply(entry, x, train=False)

    wanted = stage(variables["follower"]["params"], "follower")
    if bias == "stage":
        wanted += stage(variables["params"]["following"], "following")
    elif bias == "channels":
        wanted += variables["params"]["bias"]
    dense = variables["params"]["Dense_0"]
    np.testing.assert_allclose(
        head.apply(variables, x, train=False),
        wanted @ dense["kernel"] + dense["bias"],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bias": "all"}, "bias must be one of"), ({"pool": -1}, "pool must be")],
)
def test_an_impossible_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        head_of(**options)(0)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_an_impossible_decay_is_named(decay):
    with pytest.raises(ValueError, match="decay must be 0 to 1"):
        momentum(parts_of(head=head_of()), decay=decay)


@pytest.mark.parametrize(
    "algorithm", [sequential, parallel, parallel_readout, end_to_end]
)
def test_a_head_that_follows_is_refused_where_nothing_would_move_it(algorithm):
    one_block = algorithm is end_to_end  # the last stage has no next one to follow
    head = head_of(mlp(widths=(6, 5, 4, 3))) if one_block else head_of()
    with pytest.raises(ValueError, match=r"head.name: .* use algorithm.name=momentum"):
        algorithm(parts_of(head=head))


def test_the_algorithm_is_refused_where_no_head_follows():
    with pytest.raises(ValueError, match="'momentum', but no head follows the next"):
        momentum(parts_of())
    assert jnp.isfinite(momentum(parts_of(head=head_of())).phases[0].epochs)
