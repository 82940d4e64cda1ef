"""Measures of features through their linear Gram: linear CKA, effective rank."""

import jax
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once

linear_cka = jax.jit(info.linear_cka)
linear_gram = jax.jit(info.linear_gram)
effective_rank = jax.jit(info.effective_rank)
cka_matrix = jax.jit(info.cka_matrix)

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(30, 4)).astype(np.float32)
Y = (X @ RANDOM.normal(size=(4, 7)) + RANDOM.normal(size=(30, 7))).astype(np.float32)


def test_linear_cka_is_its_formula_in_features():
    x, y = X - X.mean(0), Y - Y.mean(0)
    norm = np.linalg.norm
    wanted = norm(x.T @ y) ** 2 / norm(x.T @ x) / norm(y.T @ y)
    assert linear_cka(X, Y) == pytest.approx(wanted, rel=1e-4)


def test_linear_cka_does_not_see_rotation_shift_and_scale():
    turned, _ = np.linalg.qr(RANDOM.normal(size=(4, 4)))
    for scale in (1e-20, 1.0, 1e20):
        moved = (scale * (X @ turned + 3)).astype(np.float32)
        assert linear_cka(X, moved) == pytest.approx(1, abs=1e-4)
    assert linear_cka(X, np.ones_like(X)) == 0


def test_the_linear_gram_has_the_spectrum_of_the_covariance():
    gram = linear_gram(X)
    assert np.trace(gram) == pytest.approx(1, abs=1e-6)
    shares = np.linalg.eigvalsh(np.cov(X.T))
    found = np.linalg.eigvalsh(gram)[-4:]
    np.testing.assert_allclose(found, shares / shares.sum(), atol=1e-6)
    alike = linear_gram(np.full((5, 2), 7.0))
    np.testing.assert_allclose(alike, np.full((5, 5), 0.2), atol=1e-7)


def test_the_effective_rank_counts_even_dimensions():
    # Columns orthogonal to each other and to the constant, equally long.
    columns = np.linalg.qr(np.c_[np.ones(30), RANDOM.normal(size=(30, 6))])[0][:, 1:]
    for count in (1, 3, 6):
        gram = linear_gram(columns[:, :count])
        assert effective_rank(gram) == pytest.approx(count, rel=1e-3)
    # Of shares p it is exp(−Σ p ln p): between the count and 1 for uneven ones.
    uneven = linear_gram(columns[:, :2] * np.sqrt([0.9, 0.1]))
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert effective_rank(uneven) == pytest.approx(np.exp(entropy), rel=1e-3)


def test_the_matrix_of_alignments_has_the_single_ones():
    gaussian = jax.jit(info.gaussian_gram, static_argnames="sigma")
    grams = np.stack(
        [
            gaussian(X, sigma=2.0),
            linear_gram(Y),
            gaussian(np.zeros((30, 2)), sigma=1.0),
        ]
    )
    cka = jax.jit(info.cka)
    wanted = [[cka(a, b) for b in grams] for a in grams]
    np.testing.assert_allclose(cka_matrix(grams), wanted, atol=1e-5)
    assert wanted[2] == [0, 0, 0]
    with pytest.raises(ValueError, match=r"grams must have shape \(l, n, n\), got"):
        cka_matrix(grams[0])
