"""A head of the network's own later stages: which they are, and what they compute."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.models.cnn import cnn
from dib_jax.models.convolution import average_pool_to
from dib_jax.models.heads.augmented import augmented, evenly
from dib_jax.models.heads.linear import linear
from dib_jax.models.mlp import mlp
from dib_jax.models.resnet import resnet
from dib_jax.models.vgg import vgg

pytestmark = pytest.mark.once


def through(stages, variables, x):
    """`x` through stages that have the weights of a head, by their place in it."""
    for place, stage in stages.items():
        own = {kind: entry[f"later_{place}"] for kind, entry in variables.items()}
        x = jax.jit(functools.partial(stage.apply, train=False))(own, x)
    return x


def output_layer(variables, x):
    dense = variables["params"]["Dense_0"]
    x, dense = np.asarray(x), jax.tree.map(np.asarray, dict(dense))
    return x.reshape(len(x), -1) @ dense["kernel"] + dense["bias"]


def prepared(head, shape):
    """Variables with batch statistics that are no identity, and features."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    @jax.jit
    def initial(key):
        variables = head.init(key, x, train=False)
        _, changed = head.apply(
            variables, 2 * x + 1, train=True, mutable=["batch_stats"]
        )
        return {**variables, **changed}

    return initial(jax.random.key(1)), x


@pytest.mark.parametrize("count", [1, 2, 7, 54])
def test_a_depth_takes_so_many_evenly_spaced_stages_and_always_the_last(count):
    for depth in range(1, count + 1):
        chosen = evenly(count, depth)
        gaps = np.diff((-1, *chosen))
        assert (len(chosen), chosen[-1]) == (depth, count - 1)
        assert (np.abs(gaps - count / depth) <= 1).all()
        assert gaps.min() >= 1
    assert evenly(count, count + 3) == tuple(range(count))


def test_the_depth_falls_linearly_to_the_last_stage_but_one():
    stages = resnet(depth=32)
    heads = [
        augmented(num_outputs=10, stage=stage, stages=stages, depth=8, least=1)
        for stage in range(16)
    ]
    wanted = [
        min(round(8 - 7 * stage / 14), 15 - stage) if stage < 15 else 0
        for stage in range(16)
    ]
    assert [len(getattr(head, "chosen", ())) for head in heads] == wanted
    assert heads[-1] == linear(num_outputs=10)
    assert heads[3].later == stages[4:]
    none = augmented(num_outputs=10, stage=14, stages=stages, least=0)
    assert none == linear(num_outputs=10)
    (first, _) = mlp(widths=(4, 3))  # two stages, which have no slope
    assert augmented(num_outputs=2, stage=0, stages=(first, first)).chosen == (0,)


def test_with_all_later_stages_it_computes_what_the_rest_of_the_network_does():
    stages = cnn(widths=(3, 4, 5), pools=3)
    head = augmented(num_outputs=6, stage=0, stages=stages, depth=2, pool=0)
    variables, x = prepared(head, (4, 8, 12, 3))
    wanted = through(dict(enumerate(stages[1:])), variables, x)
    assert wanted.shape == (4, 2, 3, 5)
    np.testing.assert_allclose(
        jax.jit(functools.partial(head.apply, train=False))(variables, x),
        output_layer(variables, wanted),
        atol=1e-5,
    )


def test_its_output_layer_reads_maxima_and_scales_as_the_linear_one_does():
    stages = cnn(widths=(3, 4), pools=2)
    head = augmented(
        num_outputs=6, stage=0, stages=stages, pool=1, pooling="max", output_scale=0.5
    )
    variables, x = prepared(head, (4, 8, 8, 3))
    largest = np.max(through({0: stages[1]}, variables, x), (1, 2))
    np.testing.assert_allclose(
        jax.jit(functools.partial(head.apply, train=False))(variables, x),
        0.5 * output_layer(variables, largest),
        atol=1e-5,
    )


def test_a_stage_gets_maps_of_the_size_that_it_gets_in_the_network():
    """Two stages that halve the map are left out before the last one."""
    stages = cnn(widths=(3, 4, 5, 6), pools=3)
    head = augmented(num_outputs=2, stage=0, stages=stages, depth=1, pool=1)
    assert head.chosen == (2,)
    variables, x = prepared(head, (4, 8, 12, 3))
    cells = x.reshape(4, 2, 4, 3, 4, 3).mean((2, 4))
    wanted = np.mean(through({2: stages[3]}, variables, cells), (1, 2))
    np.testing.assert_allclose(
        jax.jit(functools.partial(head.apply, train=False))(variables, x),
        output_layer(variables, wanted),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("stages", "shape"),
    [
        (vgg(depth=11, width=2), (3, 32, 32, 2)),
        (resnet(depth=14, width=2), (3, 9, 7, 2)),
        (mlp(widths=(6, 5, 4, 3)), (3, 6)),
    ],
)
def test_it_fits_networks_of_every_kind_and_has_weights_of_its_chosen_stages_only(
    stages, shape
):
    head = augmented(num_outputs=7, stage=0, stages=stages)

    def run(x):
        return head.init_with_output(jax.random.key(0), x, train=False)

    outputs, variables = jax.eval_shape(run, jnp.zeros(shape))
    assert outputs.shape == (3, 7)
    names = {f"later_{index}" for index in head.chosen}
    assert set(variables["params"]) == names | {"Dense_0"}
    assert set(variables["batch_stats"]) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be ≥ 1, got 0"),
        ({"depth": 2, "least": 3}, "least must be 0 to depth = 2, got 3"),
        ({"least": -1}, "got -1"),
        ({"pool": -1}, "pool must be ≥ 0, got -1"),
        ({"pooling": "sum"}, "pooling must be .*'sum'"),
    ],
)
def test_an_impossible_depth_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        augmented(num_outputs=2, stage=0, stages=(nn.Dense(3),), **options)


def test_rows_and_columns_are_pooled_each_to_its_own_number():
    x = np.random.default_rng(0).normal(size=(2, 6, 9, 3)).astype(np.float32)
    pooled = jax.jit(average_pool_to, static_argnums=1)
    np.testing.assert_allclose(pooled(x, (3, 3)), pooled(x, 3), atol=1e-6)
    assert pooled(x, (4, 12)).shape == (2, 4, 9, 3)
    one_by_one = pooled(pooled(x, (4, 9)), (6, 2))
    np.testing.assert_allclose(pooled(x, (4, 2)), one_by_one, atol=1e-6)
