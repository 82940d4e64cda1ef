import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dib_jax.data.split import split_rows


def test_each_class_gives_its_share():
    labels = np.random.default_rng(0).permutation(np.repeat([3, 5, 8], [500, 100, 40]))
    kept, held = split_rows(labels, fraction=0.1, seed=0)
    assert [np.sum(labels[held] == label) for label in (3, 5, 8)] == [50, 10, 4]
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), range(640))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()


def test_many_small_classes_still_give_the_whole_share():
    labels = np.repeat(np.arange(50), 4)  # 0.4 of a row each
    _, held = split_rows(labels, fraction=0.1, seed=1)
    assert abs(len(held) - 20) <= 1
    assert np.bincount(labels[held]).max() == 1


def test_the_seed_decides():
    labels = np.arange(200) % 10
    rows = [split_rows(labels, fraction=0.2, seed=seed)[1] for seed in (0, 0, 1, -1)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    assert not np.array_equal(rows[0], rows[3])


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=8, max_size=40),
    classes=st.integers(2, 4),
    fraction=st.floats(0.2, 0.6),
    seed=st.integers(0, 10**6),
)
def test_groups_stay_together_and_the_share_is_near(sizes, classes, fraction, seed):
    groups = np.repeat(np.arange(len(sizes)) * 7 - 3, sizes)
    labels = np.repeat(np.arange(len(sizes)) % classes, sizes)
    shuffle = np.random.default_rng(seed).permutation(len(groups))
    groups, labels = groups[shuffle], labels[shuffle]
    kept, held = split_rows(labels, groups, fraction=fraction, seed=seed)
    assert not set(groups[kept]) & set(groups[held])
    assert set(labels[kept]) == set(labels)
    assert len(kept) + len(held) == len(groups)
    assert len(held) <= fraction * len(groups) + max(sizes) / 2 + 1e-6


def test_tracks_of_one_class_give_about_their_share():
    groups = np.repeat(np.arange(100), 30)  # like the 30 frames of a traffic sign
    labels = groups // 10
    _, held = split_rows(labels, groups, fraction=0.2, seed=0)
    assert len(held) == 600
    assert set(np.bincount(labels[held])) == {60}


def test_a_group_of_several_labels_stays_whole():
    groups = np.repeat(np.arange(40), 5)
    labels = np.random.default_rng(0).integers(0, 3, 200)
    kept, held = split_rows(labels, groups, fraction=0.3, seed=0)
    assert not set(groups[kept]) & set(groups[held])
    assert abs(len(held) - 60) <= 5


def test_a_group_counts_for_its_most_frequent_label():
    # Ten groups of label 0, ten of label 1, and in every one a stray row of label 2.
    groups = np.repeat(np.arange(20), 5)
    labels = np.where(np.arange(100) % 5 == 0, 2, groups // 10)
    for seed in range(5):
        _, held = split_rows(labels, groups, fraction=0.2, seed=seed)
        assert sorted(np.unique(groups[held]) // 10) == [0, 0, 1, 1]


def test_nothing_is_held_out_at_zero():
    kept, held = split_rows(np.arange(10) % 2, fraction=0, seed=0)
    assert (len(kept), len(held)) == (10, 0)


def test_every_class_keeps_a_row_whatever_the_fraction():
    labels = np.arange(60) % 6
    kept, held = split_rows(labels, fraction=0.99, seed=0)
    assert sorted(labels[kept]) == [0, 1, 2, 3, 4, 5]
    assert len(held) == 54


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, np.nan, "0.1", None, True])
def test_an_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match="val_fraction must be a number from 0 up to"):
        split_rows(np.arange(10) % 2, fraction=fraction, seed=0)


def test_a_fraction_that_would_hold_out_nothing_is_refused_with_a_better_one():
    labels = np.arange(20) % 2
    with pytest.raises(ValueError, match="of 20 samples .* or at least 0.025"):
        split_rows(labels, fraction=0.02, seed=0)
    assert len(split_rows(labels, fraction=0.025, seed=0)[1]) == 1


def test_one_group_a_class_cannot_be_split():
    labels = np.repeat([0, 1], 10)
    with pytest.raises(ValueError, match="with two groups in a class"):
        split_rows(labels, labels, fraction=0.5, seed=0)
