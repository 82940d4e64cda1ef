import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.models.airbench import airbench, dirac
from dib_jax.models.cnn import cnn
from dib_jax.models.heads.averaged import averaged
from dib_jax.models.heads.conv import conv
from dib_jax.models.heads.grid import grid
from dib_jax.models.heads.linear import linear
from dib_jax.models.heads.mlp import mlp as mlp_head
from dib_jax.models.heads.winner import winner
from dib_jax.models.mlp import mlp
from dib_jax.models.resnet import resnet
from dib_jax.models.vgg import vgg

pytestmark = pytest.mark.once


def drawn(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def init(module, key, x, *, train=False):
    """Variables, by one compiled program."""
    return jax.jit(functools.partial(module.init, train=train))(jax.random.key(key), x)


def apply(module, variables, x, *, train=False):
    return jax.jit(functools.partial(module.apply, train=train))(variables, x)


def shapes(stages, x):
    """Output shape and number of parameters of each stage, nothing computed."""
    found = []
    for stage in stages:
        x, variables = jax.eval_shape(
            lambda x, stage=stage: stage.init_with_output(
                jax.random.key(0), x, train=False
            ),
            x,
        )
        size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        found.append((x.shape, size))
    return found


picture = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)


@pytest.mark.parametrize(("depth", "stages"), [(11, 8), (13, 10), (16, 13), (19, 16)])
def test_vgg_has_a_stage_for_each_convolution_and_ends_in_one_pixel(depth, stages):
    found = shapes(vgg(depth=depth), picture)
    assert len(found) == stages
    assert found[-1][0] == (4, 1, 1, 512)


@pytest.mark.parametrize(
    ("depth", "stages", "shape", "millions"),
    # Parameters without the output layer, from the papers' tables.
    [
        (18, 9, (4, 4, 4, 512), 11.17),
        (34, 17, (4, 4, 4, 512), 21.28),
        (20, 10, (4, 8, 8, 64), 0.27),
        (110, 55, (4, 8, 8, 64), 1.73),
    ],
)
def test_resnets_have_a_stem_and_a_stage_for_each_block(depth, stages, shape, millions):
    found = shapes(resnet(depth=depth), picture)
    assert len(found) == stages
    assert found[-1][0] == shape
    assert sum(size for _, size in found) / 1e6 == pytest.approx(millions, rel=0.02)


def test_an_mlp_flattens_pictures_and_a_cnn_halves_them_where_it_pools():
    assert [s for s, _ in shapes(mlp(widths=(7, 5)), picture)] == [(4, 7), (4, 5)]
    found = shapes(cnn(widths=(6, 8), convolutions=2, pools=1), picture)
    assert [shape for shape, _ in found] == [(4, 16, 16, 6), (4, 16, 16, 8)]


def test_pooling_after_the_last_convolution_is_that_of_the_unpooled_stage():
    (whole,) = cnn(widths=(6,), convolutions=2, pools=0)
    (pooled,) = cnn(widths=(6,), convolutions=2, pools=1, pool_after="last")
    x = drawn(4, 8, 8, 3)
    variables = init(whole, 1, x)
    want = nn.max_pool(apply(whole, variables, x), (2, 2), (2, 2))
    found = apply(pooled, variables, x)
    np.testing.assert_allclose(found, want, atol=1e-6)
    assert float(want.max()) > 0


@pytest.mark.parametrize(
    "head",
    [
        linear(num_outputs=10, pool=2),
        linear(num_outputs=10, pool=0),
        mlp_head(num_outputs=10, layers=2, width=16),
        conv(num_outputs=10, stage=0, layers=1),
    ],
)
def test_every_head_gives_one_row_of_outputs_for_each_sample(head):
    features = drawn(4, 8, 8, 6)
    variables = init(head, 1, features)
    assert apply(head, variables, features).shape == (4, 10)


@pytest.mark.parametrize(("layers", "places"), [(0, 4), (1, 3), (2, 16)])
def test_the_grid_head_answers_for_places_that_keep_their_place(layers, places):
    """A place's answer depends on the part of the picture that it lies in."""
    head = grid(num_outputs=5, places=places, layers=layers)
    features = drawn(2, 12, 12, 6)
    variables = init(head, 1, features)
    outputs = np.asarray(apply(head, variables, features))
    side = min(places, 12)
    assert outputs.shape == (2, side, side, 5)
    features[:, :1, :1] += 3
    other = apply(head, variables, features)
    changed = np.asarray(outputs != other).any(axis=(0, 3))
    reach = layers + 1
    assert changed[:reach, :reach].any()
    assert not changed[reach:].any()
    assert not changed[:, reach:].any()


def test_coarser_scales_of_the_grid_head_see_farther():
    """A change at one corner reaches places as far as the coarsest grid's reach."""
    reaches = []
    for scales in (1, 2, 3):
        head = grid(num_outputs=5, places=32, scales=scales, layers=0)
        features = drawn(2, 32, 32, 6)
        variables = init(head, 1, features)
        outputs = np.asarray(apply(head, variables, features))
        assert outputs.shape == (2, 32, 32, 5)
        features[:, :1, :1] += 3
        changed = np.asarray(outputs != apply(head, variables, features))
        reaches.append(np.flatnonzero(changed.any(axis=(0, 2, 3))).max() + 1)
    # One place; a cell of two, which interpolation spreads; then a cell of four.
    assert reaches == [1, 3, 6]


def test_more_scales_of_the_grid_head_than_places_are_refused():
    head = grid(num_outputs=2, places=4, scales=4)
    with pytest.raises(ValueError, match="4 × 4 places has at most 3 scales, got"):
        head.init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), train=False)
    with pytest.raises(ValueError, match="scales"):
        grid(num_outputs=2, scales=0)


def test_the_grid_head_refuses_vectors():
    with pytest.raises(ValueError, match="the grid head needs feature maps"):
        grid(num_outputs=2).init(jax.random.key(0), jnp.zeros((2, 5)), train=False)


def test_the_cells_of_a_head_may_be_maxima_and_its_outputs_scaled():
    features = drawn(4, 5, 8, 6)
    plain = linear(num_outputs=10, pool=2)
    head = linear(num_outputs=10, pool=2, pooling="max", output_scale=0.25)
    variables = init(head, 1, features)
    cells = np.array(
        [
            [features[:, i, j].max((1, 2)) for j in (slice(4), slice(4, 8))]
            for i in (slice(2), slice(2, 5))
        ]
    ).transpose(2, 0, 1, 3)
    wanted = np.asarray(apply(plain, variables, cells)) / 4
    np.testing.assert_allclose(apply(head, variables, features), wanted, atol=1e-5)


def test_the_record_network_begins_as_one_that_repeats_its_input():
    """Where a group has as many outputs as inputs, each convolution is the identity."""
    kernel = np.asarray(dirac(jax.random.key(0), (3, 3, 4, 6)))
    wanted = np.zeros((3, 3, 4, 4))
    wanted[1, 1] = np.eye(4)
    np.testing.assert_array_equal(kernel[..., :4], wanted)
    assert 0.1 < np.abs(kernel[..., 4:]).max() < 1 / 6
    assert len(np.unique(kernel[..., 4:])) == 72
    less = np.asarray(dirac(jax.random.key(0), (1, 1, 4, 2)))
    np.testing.assert_array_equal(less[0, 0], np.eye(4)[:, :2])


def test_the_record_network_halves_maps_and_has_no_scales():
    stages = airbench(widths=(5, 7), convolutions=3)
    found = shapes(stages, jax.ShapeDtypeStruct((2, 31, 31, 24), jnp.float32))
    first, second = 9 * 5 * (24 + 5 + 5) + 3 * 5, 9 * 7 * (5 + 7 + 7) + 3 * 7
    assert found == [((2, 15, 15, 5), first), ((2, 7, 7, 7), second)]
    late = airbench(widths=(5, 7), convolutions=3, pool_after="last")
    assert shapes(late, jax.ShapeDtypeStruct((2, 31, 31, 24), jnp.float32)) == found


@pytest.mark.parametrize("pool_after", ["first", "last"])
def test_the_record_network_norms_what_it_has_pooled(pool_after):
    (group,) = airbench(widths=(4,), convolutions=2, pool_after=pool_after)
    x = drawn(2, 8, 8, 3)
    variables = init(group, 1, x)
    want = nn.gelu(x)
    for index, name in enumerate(("first", "last")):
        kernel = variables["params"][f"Convolution_{index}"]["kernel"]
        want = jax.lax.conv_general_dilated(
            want, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if name == pool_after:
            want = nn.max_pool(want, (2, 2), (2, 2))
        mean, deviation = want.mean((0, 1, 2)), want.std((0, 1, 2))
        want = nn.gelu((want - mean) / deviation)
    found, _ = group.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_the_linear_head_is_linear():
    head = linear(num_outputs=3)
    a, b = drawn(2, 4, 8, 8, 6)
    variables = init(head, 1, a)
    outputs = {
        name: np.asarray(apply(head, variables, x))
        for name, x in {"a": a, "b": b, "both": a + b, "none": np.zeros_like(a)}.items()
    }
    np.testing.assert_allclose(
        outputs["both"] - outputs["b"], outputs["a"] - outputs["none"], atol=1e-5
    )


def test_a_convolutional_head_on_vectors_says_which_head_to_use():
    with pytest.raises(ValueError, match=r"needs feature maps .* head.name=mlp"):
        conv(num_outputs=10, stage=0).init(
            jax.random.key(0), jnp.ones((4, 6)), train=False
        )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: vgg(depth=12), r"depth must be one of \[11, 13, 16, 19\], got 12"),
        (lambda: vgg(pools=6), "pools must be 0 to 5, got 6"),
        (lambda: resnet(depth=21), "got 21"),
        (lambda: cnn(widths=()), "widths must be"),
        (lambda: cnn(widths=(4,), pools=2), "pools must be 0 to 1, got 2"),
        (lambda: cnn(pool_after="end"), r"one of \['first', 'last'\], got 'end'"),
        (lambda: airbench(pool_after="end"), r"'last'\], got 'end'"),
        (lambda: mlp(widths=(4, 0)), "widths must be"),
        (lambda: linear(num_outputs=2, pool=-1), "pool must be ≥ 0, got -1"),
        (lambda: conv(num_outputs=2, stage=0, layers=-1), "layers must be ≥ 0, got -1"),
        (lambda: conv(num_outputs=2, stage=2, layers=(1, 0)), "none for stage 2"),
        (lambda: mlp_head(num_outputs=2, layers=0), "must be ≥ 1"),
        (lambda: linear(num_outputs=2, pooling="sum"), "pooling must be .*'sum'"),
        (lambda: linear(num_outputs=2, output_scale=0.0), "output_scale must be"),
        (lambda: airbench(widths=(4, 0)), "widths must be"),
        (lambda: airbench(convolutions=0), "convolutions must be ≥ 1, got 0"),
    ],
)
def test_an_impossible_option_is_named_with_its_value(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_networks_side_by_side_have_only_their_input_in_common():
    stages = mlp(widths=(5, 3), batch_norm=True, parts=2)
    first, second = stages

    @functools.partial(jax.jit, static_argnums=0)
    def outputs(stage, variables, x):
        return stage.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    x = drawn(6, 2, 2, 1)
    hidden = np.array(outputs(first, init(first, 1, x, train=True), x))
    assert hidden.shape == (6, 10)
    variables = init(second, 2, hidden, train=True)
    before = np.asarray(outputs(second, variables, hidden))
    replaced = hidden.copy()
    replaced[:, 5:] = 0.5
    changed = np.asarray(outputs(second, variables, replaced))
    np.testing.assert_allclose(changed[:, :3], before[:, :3], atol=1e-6)
    assert np.abs(changed - before).max() > 0.1
    # Each is a network as it would be alone.
    kernel, bias = (
        np.asarray(variables["params"][name]) for name in ("kernel", "bias")
    )
    alone = {"params": {"Dense_0": {"kernel": kernel[1], "bias": bias[3:]}}}
    (single,) = mlp(widths=(3,), batch_norm=False)
    plain = mlp(widths=(5, 3), batch_norm=False, parts=2)[1]
    both = apply(plain, {"params": variables["params"]}, hidden, train=True)
    np.testing.assert_allclose(
        np.asarray(both)[:, 3:],
        apply(single, alone, hidden[:, 5:], train=True),
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="parts must be ≥ 1, got 0"):
        mlp(parts=0)


def test_the_winner_head_reads_the_greatest_unit_and_passes_no_gradient():
    head = winner(num_outputs=3)
    x = np.float32([[0.1, 0.9, 0.3, 0.0], [2.0, 1.0, 1.0, 1.0]])
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    variables = {"params": {"table": jnp.asarray(table)}}
    np.testing.assert_array_equal(apply(head, variables, x), table[[1, 0]])
    slope = jax.jit(jax.grad(lambda x: head.apply(variables, x, train=True).sum()))(x)
    np.testing.assert_array_equal(slope, 0)
    with pytest.raises(ValueError, match="pool must be ≥ 0, got -1"):
        winner(num_outputs=3, pool=-1)


def test_the_averaged_head_sees_the_mean_of_the_networks():
    head = averaged(num_outputs=3, parts=2)
    x = drawn(4, 6)
    variables = init(head, 1, x, train=True)
    out = apply(head, variables, x, train=True)
    swapped = np.concatenate([x[:, 3:], x[:, :3]], axis=1)
    np.testing.assert_allclose(apply(head, variables, swapped, train=True), out)
    assert variables["params"]["Dense_0"]["kernel"].shape == (3, 3)
    with pytest.raises(ValueError, match=r"7 features cannot .* head.parts 2"):
        head.init(jax.random.key(1), jnp.ones((4, 7)), train=True)
    with pytest.raises(ValueError, match="parts must be ≥ 1, got 0"):
        averaged(num_outputs=3, parts=0)


def test_the_gain_of_a_plain_network_is_the_factor_by_which_each_layer_shrinks():
    x = drawn(64, 400)
    sizes = []
    for stage in mlp(widths=(400,) * 4, batch_norm=False, gain=0.5):
        run = jax.jit(functools.partial(stage.init_with_output, train=True))
        x, _ = run(jax.random.key(len(sizes)), x)
        sizes.append(np.sqrt(np.mean(np.square(x))))
    np.testing.assert_allclose(np.divide(sizes[1:], sizes[:-1]), 0.5, rtol=0.1)
    with pytest.raises(ValueError, match="gain must be a number > 0, got 0"):
        mlp(gain=0.0)
