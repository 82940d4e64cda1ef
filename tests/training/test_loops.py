import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.models import matrix_unit
from dib_jax.models.convolution import convolve
from dib_jax.training.compilation import compiler_figures
from dib_jax.training.loops import flops_of_loops

N = 16
X = np.ones((N, N), np.float32)
PRODUCT = 2 * N**3


def turned(times, inner=lambda x: x @ X):
    return lambda x: jax.lax.scan(lambda x, _: (inner(x), None), x, length=times)[0]


def either(one, other):
    return lambda x: jax.lax.cond(x[0, 0] > 0, one, other, x)


def branched(x):
    return jax.lax.cond(x[0, 0] > 0, turned(3), jnp.tanh, x)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (lambda x: x @ X @ X, 0),
        (turned(7), 6),
        (turned(5, turned(4)), 19),
        (lambda x: turned(3)(x) @ turned(4)(x), 5),
        (branched, 2),
        (turned(7, either(lambda x: x @ X, lambda x: X @ x)), 6),
        (turned(7, either(lambda x: x @ X @ X @ X, jnp.tanh)), 18),
        (lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ X, x), 0),
    ],
    ids=[
        "none",
        "one",
        "nested",
        "two",
        "in a branch",
        "branches",
        "largest branch",
        "unknown",
    ],
)
def test_each_turn_of_a_loop_but_one_is_what_the_compiler_leaves_out(
    function, products
):
    compiled = jax.jit(function).lower(X).compile()
    assert flops_of_loops(compiled.as_text()) == products * PRODUCT


@pytest.mark.parametrize("unit", [False, True], ids=["no unit", "unit"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_convolution_has_its_flops_in_every_form(dtype, unit, monkeypatch):
    monkeypatch.setattr(matrix_unit, "available", lambda: unit)
    x, kernel = jnp.zeros((50, 16, 16, 32), dtype), jnp.zeros((3, 3, 32, 64), dtype)

    def all_three(x, kernel):
        y, pull = jax.vjp(convolve, x, kernel)
        return y, pull(y)

    compiled = jax.jit(all_three).lower(x, kernel).compile()
    wanted = 3 * 2 * (50 * 16 * 16) * (9 * 32 * 64)
    # Zeros beyond the border count in some forms.
    assert 0.92 < compiler_figures(compiled)["flops"] / wanted < 1.02
