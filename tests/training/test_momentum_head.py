"""A head that follows the next stage: what it computes and what moves it."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dib_jax.training.config import complete
from dib_jax.training.steps import Block, initial_states, train_step
from experiments.command_line import load_config
from test_train import stop_at

from dib_jax.models.cnn import cnn
from dib_jax.models.heads.linear import linear
from dib_jax.models.heads.momentum import momentum
from dib_jax.models.mlp import mlp
from dib_jax.objectives.dib import dib
from dib_jax.tasks.classification import classification
from dib_jax.training.train import train

STAGES = cnn(widths=(4, 6, 8), convolutions=1, pools=2)
KEYS = tuple(jax.random.split(jax.random.key(3), 3))


def blocks_of(stages, **options):
    return tuple(
        Block(
            trunk=stages[:index],
            stages=(stage,),
            head=momentum(num_outputs=3, stage=index, stages=stages, **options),
            stage=index,
            task=classification(num_classes=3),
            objective=dib(alpha=2.0, beta=0.1, every=1),
            optimizer=optax.sgd(0.1, momentum=0.9),
            prepare=lambda images: images.astype(jnp.float32) / 255,
            augment=None,
            compute_dtype=jnp.float32,
            batch_size=8,
        )
        for index, stage in enumerate(stages)
    )


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (8, 8, 8, 1), np.uint8)
    return {"images": jnp.asarray(images), "labels": jnp.arange(8) % 3}


@pytest.fixture(scope="module")
def trained(batch):
    """Three stages before and after a step, and the function that steps them."""
    blocks = blocks_of(STAGES, decay=0.9)
    step = jax.jit(functools.partial(train_step, blocks, keys=KEYS))
    before = jax.jit(functools.partial(initial_states, blocks))(KEYS, batch["images"])
    before, _ = step(before, (), batch)
    return before, step(before, (), batch)[0], step


def follower(state):
    return state.head["follower"]["params"]


def test_the_follower_starts_as_the_next_stage(batch):
    blocks = blocks_of(STAGES)
    states = jax.jit(functools.partial(initial_states, blocks))(KEYS, batch["images"])
    for state, following in itertools.pairwise(states):
        chex.assert_trees_all_equal(follower(state), following.params[0])
    assert blocks[-1].head == linear(num_outputs=3)
    assert "follower" not in states[-1].head


def test_each_step_takes_the_follower_a_tenth_of_the_way_to_the_next_stages_new_weights(
    trained,
):
    before, after, _ = trained
    for index in (0, 1):
        wanted = jax.tree.map(
            lambda old, new: 0.9 * old + 0.1 * new,
            follower(before[index]),
            after[index + 1].params[0],
        )
        chex.assert_trees_all_close(follower(after[index]), wanted, rtol=1e-5)
        moved = jax.tree.map(
            lambda a, b: float(jnp.abs(a - b).max()),
            follower(before[index]),
            follower(after[index]),
        )
        assert max(jax.tree.leaves(moved)) > 0


def test_what_is_trained_of_the_head_is_its_bias_and_its_output_layer(trained):
    before, after, _ = trained
    assert set(before[0].head["params"]) == {"following", "Dense_0"}
    for name, old in before[0].head["params"].items():
        new = after[0].head["params"][name]
        moved = [
            float(jnp.abs(a - b).max())
            for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
        ]
        assert min(moved) > 0, name


def test_the_next_stages_update_does_not_see_the_follower(trained, batch):
    before, after, step = trained
    changed = jax.tree.map(lambda leaf: 2 * leaf + 1, before[0].head)
    other, _ = step((before[0].replace(head=changed), *before[1:]), (), batch)
    for name in ("params", "opt_state", "head"):
        # Of the first stage its own loss has changed, but its weights only after it.
        chex.assert_trees_all_equal(getattr(other[2], name), getattr(after[2], name))
    features = [jax.tree.leaves(state.params)[0] for state in (other[0], after[0])]
    assert (features[0] != features[1]).any()
    chex.assert_trees_all_equal(other[1].params, after[1].params)


@pytest.mark.parametrize("bias", ["stage", "channels", "none"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_output_is_that_of_the_follower_plus_the_bias(bias, batch_norm):
    stages = mlp(widths=(5, 4), batch_norm=batch_norm)
    head = momentum(num_outputs=3, stage=0, stages=stages, bias=bias)
    x = jax.random.normal(jax.random.key(0), (6, 5))
    variables = head.init(jax.random.key(1), x, train=False)
    _, changed = head.apply(variables, 2 * x + 1, train=True, mutable=["batch_stats"])
    variables = jax.tree.map(lambda leaf: leaf + 0.1, {**variables, **changed})

    def stage(params, statistics):
        own = {"params": params}
        if batch_norm:
            own["batch_stats"] = variables["batch_stats"][statistics]
        return stages[1].apply(own, x, train=False)

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
    [
        ({"decay": 1.0}, "decay must be 0 to 1"),
        ({"bias": "all"}, "bias must be one of"),
        ({"pool": -1}, "pool must be"),
    ],
)
def test_an_impossible_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        momentum(num_outputs=2, stage=0, stages=STAGES, **options)


def small(schedule="parallel", **changes):
    config = load_config("configs/digits_cnn.py:quick").config
    with config.ignore_type():
        config.head = {"name": "momentum", "decay": 0.9}
        config.model = {"name": "mlp", "widths": (6, 5, 4)}
        config.objective.alpha = 2.0
        config.objective.samples = 16
        config.schedule.name = schedule
        config.epochs = 2
        config.batch_size = 256
        config.update(changes)
    return config


@pytest.mark.parametrize("schedule", ["sequential", "end_to_end"])
def test_it_is_refused_where_the_next_stage_does_not_train_meanwhile(schedule):
    with pytest.raises(ValueError, match=f"schedule.name: got '{schedule}', but"):
        complete(small(schedule))
    complete(small("parallel_readout"))


def test_with_blocks_it_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    config = complete(small(precision={"compute": "bfloat16"}))
    config.schedule.blocks = 2
    whole = train(config, tmp_path / "whole", config_name="digits_cnn")
    # Of the second block the first stage is followed.
    shapes = jax.tree.map(jnp.shape, whole.network.stages[2]["params"])
    assert jax.tree.map(jnp.shape, whole.network.heads[0]["follower"]["params"]) == (
        shapes
    )
    assert whole.results["head"] == "momentum"
    stop_at(1, config, tmp_path / "stopped", monkeypatch)
    resumed = train(config, tmp_path / "stopped", config_name="digits_cnn")
    chex.assert_trees_all_equal(resumed.network, whole.network)
