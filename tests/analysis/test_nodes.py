"""What a report shows of nodes."""

import numpy as np
import pytest

from dib_jax.analysis.report.nodes import mean_cosine, principal


def test_the_mean_cosine_is_that_of_all_pairs():
    x = np.random.default_rng(0).normal(size=(7, 3))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(7, 1)]
    assert mean_cosine(x) == pytest.approx(pairs.mean())


@pytest.mark.parametrize(
    ("x", "cosine"),
    [
        ([[1, 2], [2, 4], [3, 6]], 1),
        ([[1, 0], [-1, 0]], -1),
        ([[0, 0], [0, 0]], 0),
        ([[1, 0], [0, 0], [1, 0]], 1 / 3),
    ],
)
def test_nodes_of_one_direction_have_the_cosine_1(x, cosine):
    assert mean_cosine(np.array(x)) == pytest.approx(cosine)


def test_the_first_directions_hold_the_most_variance():
    draw = np.random.default_rng(0)
    flat = draw.normal(size=(50, 2)) * [3, 1]
    turn, _ = np.linalg.qr(draw.normal(size=(5, 5)))
    places, shares = principal(flat @ turn[:2])
    assert shares.sum() == pytest.approx(1)
    assert shares[0] > 0.8
    centred = flat - flat.mean(axis=0)
    np.testing.assert_allclose((places**2).sum(), (centred**2).sum())


@pytest.mark.parametrize("x", [np.ones((4, 3)), np.ones((4, 1))])
def test_features_that_are_all_alike_lie_in_one_place(x):
    places, shares = principal(x)
    np.testing.assert_allclose(places, 0, atol=1e-12)
    np.testing.assert_array_equal(shares, 0)
