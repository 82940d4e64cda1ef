import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.models.convolution import (
    average_pool_to,
    convolve,
    direct_convolutions,
    patches,
)

pytestmark = pytest.mark.once


def drawn(*shape):
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


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("side", [1, 7, 8])
def test_both_forms_of_a_convolution_agree_with_their_gradients(size, stride, side):
    x, kernel = drawn(2, side, side, 3), drawn(size, size, 3, 4)

    def by_patches(x, kernel):
        return patches(x, size=size, stride=stride) @ kernel.reshape(-1, 4)

    def with_gradients(form):
        def both(x, kernel):
            y, pull = jax.vjp(form, x, kernel)
            return y, pull(drawn(*y.shape))

        return jax.jit(both)(x, kernel)

    want, want_slopes = with_gradients(lambda x, kernel: direct(x, kernel, stride))
    for form in (by_patches, lambda x, kernel: convolve(x, kernel, stride)):
        got, slopes = with_gradients(form)
        np.testing.assert_allclose(got, want, atol=2e-5)
        for ours, theirs in zip(slopes, want_slopes, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_form_follows_the_platform_that_is_compiled_for():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    traced = jax.jit(jax.grad(lambda k: convolve(x, k).sum())).trace(kernel)
    assert "convolution" not in traced.lower(lowering_platforms=("cpu",)).as_text()
    tpu = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.convolution" in tpu
    # Nine copies of the input would be the patches.
    assert "x27x" not in tpu


def test_where_figures_for_accelerators_are_wanted_a_cpu_has_the_plain_form_too():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    def lowered():
        jitted = jax.jit(jax.grad(lambda k: convolve(x, k).sum()))
        return jitted.lower(kernel).as_text()

    with direct_convolutions():
        assert "stablehlo.convolution" in lowered()
    assert "stablehlo.convolution" not in lowered()


@pytest.mark.parametrize(("side", "size"), [(8, 2), (7, 2), (5, 3), (4, 4), (1, 2)])
def test_average_pooling_takes_the_means_of_adaptive_cells(side, size):
    x = drawn(2, side, side, 3)
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
