import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.models import matrix_unit
from dib_jax.models.convolution import (
    Convolution,
    average_pool_to,
    convolve,
    direct_convolutions,
    patches,
)

pytestmark = pytest.mark.once


def noise(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def direct(x, kernel, stride):
    margin = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((margin, margin), (margin, margin)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def drawn(count, side, size, dtype=jnp.float32, channels=(3, 4)):
    """Pictures of 3 channels and a kernel to 4."""
    shapes = (count, side, side, channels[0]), (size, size, *channels)
    return tuple(jnp.asarray(noise(*shape), dtype) for shape in shapes)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("side", [1, 7, 8])
def test_all_forms_of_a_convolution_agree_with_their_gradients(size, stride, side):
    x, kernel = drawn(2, side, size)

    def by_patches(x, kernel):
        return patches(x, size=size, stride=stride) @ kernel.reshape(-1, 4)

    def with_gradients(form):
        def both(x, kernel):
            y, pull = jax.vjp(form, x, kernel)
            return y, pull(noise(*y.shape))

        return jax.jit(both)(x, kernel)

    want, want_slopes = with_gradients(lambda x, kernel: direct(x, kernel, stride))
    for form in (by_patches, lambda x, kernel: convolve(x, kernel, stride)):
        got, slopes = with_gradients(form)
        np.testing.assert_allclose(got, want, atol=2e-5)
        for ours, theirs in zip(slopes, want_slopes, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


# One picture; no group left over; one, and more than one, picture left over; a picture
# of one pixel, of which a group holds eight.
@pytest.mark.parametrize(("count", "side"), [(1, 6), (4, 6), (37, 1), (9, 1), (7, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_hold_every_picture_once_to_the_last_digits(count, side, stride):
    with jax.enable_x64(True):
        x, kernel = drawn(count, side, 3, jnp.float64)

        def gradients(form):
            def loss(x, kernel):
                return jnp.sum(jnp.sin(form(x, kernel, stride)))

            return jax.jit(jax.grad(loss, argnums=(0, 1)))(x, kernel)

        for ours, theirs in zip(gradients(convolve), gradients(direct), strict=True):
            assert ours.dtype == jnp.float64
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.fixture(params=[False, True], ids=["no unit", "unit"])
def unit(request, monkeypatch):
    """With and without a processor that has a matrix unit: any computes its form."""
    monkeypatch.setattr(matrix_unit, "available", lambda: request.param)
    return request.param


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(("side", "stride"), [(1, 1), (2, 2), (7, 1), (8, 2), (8, 3)])
@pytest.mark.parametrize("count", [2, 37])
def test_the_form_for_a_matrix_unit_is_a_convolution(count, side, stride, size):
    """2 pictures are one group. 37 are several, or several and some left over."""
    x, kernel = drawn(count, side, size, jnp.bfloat16)
    wide = x.astype(jnp.float32), kernel.astype(jnp.float32)
    want, pull = jax.vjp(lambda *both: direct(*both, stride), *wide)
    change = jnp.asarray(noise(*want.shape), jnp.bfloat16)

    @jax.jit
    def ours(x, kernel, change):
        y = matrix_unit.convolve(x, kernel, stride=stride)
        return y, *matrix_unit.gradients(x, kernel, change, stride=stride)

    slopes = pull(change.astype(jnp.float32))
    for got, wanted in zip(ours(x, kernel, change), (want, *slopes), strict=True):
        assert got.dtype == jnp.bfloat16
        assert got.shape == wanted.shape
        # Rounded once, at the end, to eight binary digits.
        atol = 1e-5 * float(jnp.max(jnp.abs(wanted)))
        np.testing.assert_allclose(
            got.astype(jnp.float32), wanted, rtol=2**-8, atol=atol
        )


@pytest.mark.parametrize(
    ("dtype", "channels", "wins"),
    [
        (jnp.bfloat16, (16, 16), True),
        (jnp.bfloat16, (3, 64), False),
        (jnp.float32, (16, 16), False),
    ],
)
def test_many_channels_in_bfloat16_take_the_form_for_a_unit(
    unit, dtype, channels, wins
):
    x, kernel = drawn(2, 8, 3, dtype, channels)

    def both(x, kernel):
        y, pull = jax.vjp(convolve, x, kernel)
        return y, pull(y)

    program = jax.jit(both).lower(x, kernel).as_text()
    assert ("stablehlo.convolution" not in program) is (unit and wins)


def test_no_loop_in_bfloat16_turns_all_pictures_into_float32():
    # XLA would, to write the slice of one group, and as often as there are groups.
    x, kernel = drawn(512, 8, 3, jnp.bfloat16)

    def all_three(x, kernel):
        y = matrix_unit.convolve(x, kernel, stride=1)
        return y, *matrix_unit.gradients(x, kernel, y, stride=1)

    program = jax.jit(all_three).lower(x, kernel).compile().as_text()
    slices = re.findall(r"= (\w+)\[[^=]* dynamic-(?:update-)?slice\(", program)
    assert slices
    assert set(slices) == {"u16"}


@pytest.mark.parametrize("channels", [(3, 4), (16, 16)])
def test_gradients_in_bfloat16_add_up_in_float32(unit, channels):
    x, kernel = drawn(64, 4, 3, jnp.bfloat16, channels)

    def gradients(dtype):
        def loss(x, kernel):
            return jnp.sum(convolve(x, kernel).astype(jnp.float32))

        return jax.grad(loss, argnums=(0, 1))(x.astype(dtype), kernel.astype(dtype))

    wide = gradients(jnp.float32)
    for ours, theirs in zip(gradients(jnp.bfloat16), wide, strict=True):
        assert ours.dtype == jnp.bfloat16
        # Rounded once, at the end, to eight binary digits.
        largest = float(jnp.max(jnp.abs(theirs)))
        np.testing.assert_allclose(
            ours.astype(jnp.float32), theirs, rtol=2**-8, atol=1e-5 * largest
        )


def test_gradients_pass_through_loops_maps_recomputation_and_another_gradient():
    x, kernel = drawn(5, 6, 3)

    @functools.partial(jax.jit, static_argnums=0)
    def results(form):
        def loss(kernel, x):
            return jnp.sum(form(x, kernel, 2) ** 2)

        def step(kernel, x):
            return kernel - 1e-3 * jax.grad(loss)(kernel, x), None

        kernels = jnp.stack([kernel, -kernel])
        return (
            jax.lax.scan(step, kernel, jnp.stack([x, 2 * x]))[0],
            jax.vmap(jax.grad(loss), in_axes=(0, None))(kernels, x),
            jax.vmap(jax.grad(loss), in_axes=(None, 0))(kernel, x[:, None]),
            jax.grad(jax.checkpoint(loss), argnums=1)(kernel, x),
            jax.grad(lambda k: jnp.sum(jax.grad(loss)(k, x) ** 2))(kernel),
        )

    for ours, theirs in zip(results(convolve), results(direct), strict=True):
        scale = float(jnp.max(jnp.abs(theirs)))
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale)


@pytest.mark.parametrize("argument", [0, 1], ids=["kernel", "pictures"])
def test_gradients_of_a_gradient_are_those_of_a_convolution(unit, argument):
    x, kernel = drawn(5, 6, 3, jnp.bfloat16, channels=(16, 16))

    def penalty(form):
        def size(k, x):
            change = jax.grad(lambda x: jnp.sum(form(x, k, 1).astype(float) ** 2))(x)
            return jnp.sum(change.astype(float) ** 2)

        return jax.grad(size, argnums=argument)(kernel, x).astype(jnp.float32)

    ours, theirs = penalty(convolve), penalty(direct)
    assert jnp.linalg.norm(theirs) > 0
    assert jnp.linalg.norm(ours - theirs) < 0.02 * jnp.linalg.norm(theirs)


def test_a_gradient_of_no_pictures_is_nothing(unit):
    x, kernel = (
        jnp.zeros(shape, jnp.bfloat16) for shape in ((0, 6, 6, 16), (3, 3, 16, 16))
    )
    change = jax.grad(lambda k: convolve(x, k).astype(float).sum())(kernel)
    np.testing.assert_array_equal(change.astype(float), 0)


def test_a_kernel_that_is_not_square_and_odd_is_refused():
    x = jnp.zeros((1, 6, 6, 2))
    for sides in ((2, 2), (1, 3)):
        with pytest.raises(ValueError, match="must be square and odd, got shape"):
            convolve(x, jnp.zeros((*sides, 2, 4)))
    with pytest.raises(ValueError, match="must have one type, got float32 and bfloat"):
        convolve(x, jnp.zeros((3, 3, 2, 4), jnp.bfloat16))


def gradient_of_kernel(x):
    return jax.jit(jax.grad(lambda kernel: convolve(x, kernel).sum()))


def test_the_form_of_the_gradients_follows_the_platform_that_is_compiled_for():
    x, kernel = drawn(2, 8, 3)
    traced = gradient_of_kernel(x).trace(kernel)
    # Products of matrices here; there, none and nine copies of no input.
    assert "dot_general" in traced.lower(lowering_platforms=("cpu",)).as_text()
    tpu = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.convolution" in tpu
    assert "dot_general" not in tpu
    assert "x27x" not in tpu


@pytest.mark.parametrize(("side", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)])
def test_no_kernel_and_map_are_exchanged_where_that_is_slow(side, stride):
    x, kernel = drawn(2, side, 3)

    def both(x, kernel):
        y, pull = jax.vjp(lambda *both: convolve(*both, stride), x, kernel)
        return y, pull(y)

    # XLA does so where the kernel is the larger; batch and channels change places.
    exchanged = "->f01b"
    program = jax.jit(both).lower(x, kernel).compile().as_text()
    assert exchanged not in program
    with direct_convolutions():
        plain = jax.jit(lambda *both: convolve(*both, stride)).lower(x, kernel)
    assert (exchanged in plain.compile().as_text()) is (side < 3)


def test_where_figures_for_accelerators_are_wanted_a_cpu_has_the_plain_form_too():
    x, kernel = drawn(2, 8, 3)
    with direct_convolutions():
        assert "dot_general" not in gradient_of_kernel(x).lower(kernel).as_text()
    assert "dot_general" in gradient_of_kernel(x).lower(kernel).as_text()


def test_no_gradient_holds_the_patches_of_all_pictures():
    x, kernel = drawn(256, 8, 3)

    def gradients(x, kernel):
        return jax.grad(lambda *both: convolve(*both).sum(), argnums=(0, 1))(x, kernel)

    memory = jax.jit(gradients).lower(x, kernel).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 9 * x.nbytes / 2


@pytest.mark.parametrize(("side", "size"), [(8, 2), (7, 2), (5, 3), (4, 4), (1, 2)])
def test_average_pooling_takes_the_means_of_adaptive_cells(side, size):
    x = noise(2, side, side, 3)
    pool = jax.jit(lambda x: average_pool_to(x, size))
    got = pool(x)
    count = min(size, side)
    assert got.shape == (2, count, count, 3)
    for row in range(count):
        top, bottom = row * side // count, -(-(row + 1) * side // count)
        want = x[:, top:bottom, : bottom - top].mean(axis=(1, 2)) if row == 0 else None
        if want is not None:
            np.testing.assert_allclose(got[:, 0, 0], want, atol=1e-6)
    # A constant picture stays constant: the weights of each cell sum to 1.
    np.testing.assert_allclose(pool(np.ones_like(x)), 1.0, atol=1e-6)


def test_samples_that_are_no_pictures_are_refused_in_a_line():
    with pytest.raises(ValueError, match=r"needs pictures .* got shape \(4, 13\); use"):
        Convolution(3).init(jax.random.key(0), jnp.zeros((4, 13)))
