"""Statistics of probes, against cases whose answer is known."""

import math

import numpy as np
import pytest

from dib_jax.analysis.statistics import (
    chain,
    chain_at_width,
    convergence_epochs,
    convergence_order,
    data_processing_violations,
    deviation,
    difference_interval,
    estimator_bias,
    mean_interval,
    role_differentiation,
)
from dib_jax.information import gaussian_gram, mutual_information


def test_a_stage_converges_where_it_comes_near_its_end_to_stay():
    epochs = np.array([0, 5, 10, 15])
    away = np.array([[0.5, 0.01, 0.5], [0.04, 0.2, 0.5], [0.02, 0.04, 0.5], [0, 0, 0]])
    # The second is near at first, then leaves: that does not count.
    np.testing.assert_array_equal(convergence_epochs(away, epochs), [5, 10, 15])
    np.testing.assert_array_equal(
        convergence_epochs(np.zeros((4, 3)), epochs), [0, 0, 0]
    )


def test_a_deviation_is_a_share_of_the_last_value_or_of_the_whole_change():
    values = np.array([[2.0, 1.0, 0.0], [3.0, 1.0, 1.0], [4.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        deviation(values), [[0.5, 0, 0], [0.25, 0, np.inf], [0, 0, 0]]
    )
    np.testing.assert_allclose(
        deviation(values, of="change"), [[1, 0, 0], [0.5, 0, np.inf], [0, 0, 0]]
    )
    with pytest.raises(ValueError, match="of must be 'final' or 'change', got 'end'"):
        deviation(values, of="end")


def test_the_order_is_kendalls_tau_with_an_interval_over_runs():
    up, down, level = [0, 5, 10, 20], [20, 10, 5, 0], [5, 5, 5, 5]
    assert convergence_order(np.array([up, up, up]))[:3] == (1, 1, 1)
    assert convergence_order(np.array([down])).mean == -1
    assert math.isnan(convergence_order(np.array([down])).low)
    assert convergence_order(np.array([level, level])).mean == 0
    # 5 concordant pairs of 6 and 1 discordant one.
    swapped = convergence_order(np.array([[0, 10, 5, 20], up]))
    assert swapped.mean == pytest.approx((4 / 6 + 1) / 2)
    # Two runs tell next to nothing, and no τ is outside −1 and 1.
    assert (swapped.low, swapped.high) == (-1, 1)
    with pytest.raises(ValueError, match="at least 2 stages, got 1"):
        convergence_order(np.array([[3], [4]]))


@pytest.mark.parametrize("runs", [2, 3, 5, 40])
def test_of_a_hundred_intervals_ninety_five_hold_the_truth(runs):
    random = np.random.default_rng(0)
    _, low, high = mean_interval(random.normal(2, 3, (runs, 4000)))
    assert np.mean((low < 2) & (high > 2)) == pytest.approx(0.95, abs=0.012)
    groups = random.normal(size=(400, runs)), random.normal(1, 2, (400, runs))
    found = [difference_interval(*pair) for pair in zip(*groups, strict=True)]
    held = np.mean([one.low < -1 < one.high for one in found])
    assert held > 0.92  # Welch's is no less than that


def test_runs_that_are_all_alike_have_an_interval_without_width():
    mean, low, high = mean_interval(np.full((3, 2), 0.1))
    np.testing.assert_array_equal([mean, low, high], 0.1)
    assert difference_interval(np.ones(2), np.zeros(3)) == (1, 1, 1)


def test_violations_of_the_inequality_are_counted_and_sized():
    markov = np.array([[9, 3, 2, 1], [3, 9, 2.5, 2], [2, 2.5, 9, 3], [1, 2, 3, 9.0]])
    none = data_processing_violations(markov)
    assert (none.triples, none.violated, none.mean) == (4, 0, 0)
    broken = markov.copy()
    broken[0, 3] = broken[3, 0] = 2.4  # above I(0;2) = 2 and I(1;3) = 2
    found = data_processing_violations(np.stack([broken, markov]))
    assert (found.triples, found.violated) == (8, 2)
    assert found.mean == pytest.approx(0.4)
    assert found.largest == pytest.approx(0.4)
    assert found.worst in ((0, 1, 3), (0, 2, 3))
    assert data_processing_violations(broken, tolerance=0.5).violated == 0
    with pytest.raises(ValueError, match="at least 3 variables, got 2"):
        data_processing_violations(np.eye(2))


def test_the_chain_has_target_and_input_before_the_stages():
    found = {
        "train/stage_stage": np.array([[[9.0, 3], [3, 9]]]),
        "train/stage_target": np.array([[1.0, 2]]),
        "train/input_stage": np.array([[4.0, 5]]),
        "train/input_target": np.float64(6),
    }
    nan = np.nan
    wanted = [[nan, 6, 1, 2], [6, nan, 4, 5], [1, 4, nan, 3], [2, 5, 3, nan]]
    np.testing.assert_array_equal(chain(found, "train"), [wanted])


def test_wider_kernels_are_powers_of_the_grams_there_are():
    x = np.random.default_rng(1).normal(size=(3, 20, 4)).astype(np.float32)
    target, *nodes = (gaussian_gram(own, sigma=2.0) for own in x)
    found = chain_at_width(np.asarray(target), np.stack(nodes), factor=1.5, alpha=1.01)
    wider = [gaussian_gram(own, sigma=3.0) for own in x[1:]]
    of_nodes = mutual_information(*wider, alpha=1.01)
    with_target = mutual_information(target, wider[0], alpha=1.01)
    np.testing.assert_allclose(found[1, 2], of_nodes, atol=1e-3)
    np.testing.assert_allclose(found[0, 1], with_target, atol=1e-3)


def test_the_bias_of_the_estimator_grows_with_dimension_and_with_narrow_kernels():
    rows = estimator_bias(
        alpha=1.01,
        bandwidth="median",
        samples=(40,),
        dimensions=(1, 16),
        factors=(0.3, 1.0),
        repeats=2,
    )
    assert len(rows) == 8
    found = {(r["dimension"], r["factor"], r["truth"]): r for r in rows}
    for row in rows:
        assert row["bias"] == pytest.approx(row["estimate"] - row["truth"])
    assert found[1, 1.0, 2.0]["estimate"] > found[1, 1.0, 0.0]["estimate"] + 0.3
    assert found[16, 0.3, 0.0]["bias"] > found[16, 1.0, 0.0]["bias"] + 1
    assert found[16, 1.0, 0.0]["bias"] > found[1, 1.0, 0.0]["bias"] > 0


def test_stages_that_change_alike_are_not_differentiated_whatever_their_values():
    start = np.array([[1.0, 5.0, 2.0]])
    alike = np.stack([start, start + 0.5, start - 0.7], axis=1)
    np.testing.assert_allclose(role_differentiation(alike), 0.0, atol=1e-12)
    # One falls by 1, one stays, one rises by 1: only first and last probe count.
    apart = np.stack([start, start + 9, start + np.array([-1, 0, 1])], axis=1)
    np.testing.assert_allclose(role_differentiation(apart), math.sqrt(2 / 3))
    with pytest.raises(ValueError, match="at least 2 stages, got 1"):
        role_differentiation(np.ones((2, 3, 1)))


def test_a_difference_of_means_has_an_interval_that_is_as_wide_as_students():
    random = np.random.default_rng(0)
    one, other = random.normal(2, 1, 200), random.normal(1, 2, 100)
    found = difference_interval(one, other)
    error = math.sqrt(one.var() / 200 + other.var() / 100)
    assert found.mean == pytest.approx(one.mean() - other.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.02)
    assert found.low < found.mean < found.high
    assert math.isnan(difference_interval(one, other[:1]).low)
