"""TRGL, and the control with random features."""

import jax.numpy as jnp
import numpy as np
import pytest
from example_signals import compiled, drawn, with_slope

from dib_jax.objectives.random_features import random_features
from dib_jax.objectives.trgl import trgl

pytestmark = pytest.mark.once


def test_the_price_is_the_mean_squared_step_over_twice_tau(make_signals):
    given = make_signals()
    step = np.asarray(given.features, np.float64) - np.asarray(given.stage_input)
    for tau in (0.5, 3.0):
        loss, terms = compiled(trgl(tau=tau))(given)
        np.testing.assert_allclose(terms["transport"], np.mean(step**2), rtol=1e-5)
        np.testing.assert_allclose(loss, 1.25 + np.mean(step**2) / (2 * tau), rtol=1e-5)


def test_one_step_of_it_alone_is_that_of_minimising_movements(make_signals):
    """argmin of ℓ(T) + |T − x|²/(2τ) for a linear ℓ is x − τ ∇ℓ."""
    tau, x = 0.3, make_signals().stage_input
    slope = drawn(*x.shape)

    def loss(given):
        linear = jnp.mean(given.features * slope)
        return trgl(tau=tau)(given._replace(task_loss=linear))

    step = jnp.asarray(x - tau * slope)
    np.testing.assert_allclose(
        with_slope(loss)(make_signals(features=step))[1], 0, atol=1e-8
    )


def test_where_the_shape_changes_the_task_alone_counts(make_signals):
    loss, terms = trgl(tau=0.1)(make_signals(features=jnp.ones((20, 2, 2, 12))))
    assert (loss, terms["transport"]) == (1.25, 0)


def test_tau_may_be_one_number_for_each_stage(make_signals):
    for stage, tau in enumerate((0.5, 1.0)):
        given = make_signals(stage=stage)
        each, one = (compiled(trgl(tau=value))(given) for value in ((0.5, 1.0), tau))
        assert each[0] == one[0]
    with pytest.raises(ValueError, match="tau has 2 numbers, none for stage 2"):
        trgl(tau=(0.5, 1.0))(make_signals(stage=2))


@pytest.mark.parametrize("tau", [0.0, -1.0, (1.0, 0.0), float("nan")])
def test_a_tau_that_is_not_above_zero_is_refused(tau):
    with pytest.raises(ValueError, match="tau must be > 0, got"):
        trgl(tau=tau)


def test_random_features_train_the_head_alone(make_signals):
    assert random_features()(make_signals()) == (0.75, {})
