"""Comparisons of methods: statistics against known values, and tables in order."""

import numpy as np
import pytest
from scipy import stats

from dib_jax.analysis import comparison, figures


def entry(method, seed, value, *, dataset="digits", stages=(0.5,)):
    results = {
        "metric": "accuracy",
        "test": {"loss": 1.0, "mean_iou": value / 2, "accuracy": value},
        "validation": {"accuracy": value - 0.01},
        "stages": [{"stage": i, "test": {"accuracy": s}} for i, s in enumerate(stages)],
        "seconds": 10.0 + seed,
        "temp_bytes": 1000 * (seed + 1),
    }
    return comparison.Entry(dataset, method, seed, results)


ENTRIES = [
    *(entry("base", seed, value) for seed, value in enumerate((0.90, 0.92, 0.91))),
    *(entry("good", seed, value) for seed, value in enumerate((0.93, 0.96, 0.94))),
    *(entry("same", seed, value) for seed, value in enumerate((0.91, 0.91, 0.91))),
    entry("late", 7, 0.99, stages=(0.4, 0.99)),
]


def test_rows_have_the_statistics_of_their_seeds_the_best_first():
    table = comparison.rows(ENTRIES, reference="base")
    assert [row.method for row in table] == ["late", "good", "base", "same"] or (
        [row.method for row in table] == ["late", "good", "same", "base"]
    )
    good = next(row for row in table if row.method == "good")
    values = np.array([0.93, 0.96, 0.94])
    np.testing.assert_allclose(good.mean, values.mean())
    np.testing.assert_allclose(good.std, values.std(ddof=1))
    np.testing.assert_allclose(good.validation, values.mean() - 0.01)
    differences = values - np.array([0.90, 0.92, 0.91])
    wanted = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    np.testing.assert_allclose(good.difference, differences.mean())
    np.testing.assert_allclose((good.low, good.high), (wanted.low, wanted.high))
    assert (good.temp_bytes, good.seconds) == (3000, 11.0)
    assert list(good.others) == ["mean_iou"]
    np.testing.assert_allclose(good.others["mean_iou"], (good.mean / 2, good.std / 2))
    base = next(row for row in table if row.method == "base")
    assert (base.difference, base.low) == (None, None)
    late = next(row for row in table if row.method == "late")
    assert (late.std, late.difference, late.stages) == (None, None, (0.4, 0.99))


def test_an_ensemble_has_mean_and_std_where_every_run_has_one():
    with_ensemble = [
        own._replace(results={**own.results, "ensemble": {"accuracy": 0.9 + 0.01 * i}})
        for i, own in enumerate(ENTRIES[:5])
    ]
    table = comparison.rows([*with_ensemble, *ENTRIES[5:]], reference="base")
    found = {row.method: (row.ensemble, row.ensemble_std) for row in table}
    np.testing.assert_allclose(found["base"], (0.91, 0.01))
    assert found["good"] == found["same"] == found["late"] == (None, None)


def test_two_runs_of_one_seed_are_refused():
    with pytest.raises(ValueError, match="two runs of base on digits have seed 0"):
        comparison.rows([*ENTRIES, entry("base", 0, 0.5)], reference="base")


def test_methods_are_told_apart_only_where_the_seeds_allow_it():
    clear = [
        *(entry("low", seed, 0.80 + 0.01 * seed) for seed in range(4)),
        *(entry("high", seed, 0.90 + 0.0101 * seed) for seed in range(4)),
        *(
            entry("near", seed, 0.80 + 0.01 * seed + (-1) ** seed * 0.01)
            for seed in range(4)
        ),
    ]
    assert comparison.indistinct(clear)["digits"] == [("low", "near")]
    once = [entry("low", 0, 0.1), entry("high", 0, 0.9)]
    assert comparison.indistinct(once)["digits"] == [("low", "high")]


def test_two_seeds_that_differ_by_the_same_few_pictures_prove_nothing():
    alike = [
        entry(method, seed, value + (0.01 if method == "one" else 0.0))
        for method in ("one", "other")
        for seed, value in enumerate((0.91, 0.93))
    ]
    assert comparison.indistinct(alike)["digits"] == [("one", "other")]


def test_holms_correction_stops_at_the_first_that_fails():
    # By hand: 0.01 < 0.05/3, 0.03 > 0.05/2, and so 0.04 is not looked at.
    assert comparison._holm([0.04, 0.01, 0.03]) == [False, True, False]
    assert comparison._holm([0.01, 0.02, 0.04]) == [True, True, True]


def test_figures_are_drawn_for_several_data_sets():
    entries = [*ENTRIES, entry("base", 0, 0.7, dataset="mnist")]
    table = comparison.rows(entries, reference="base")
    for drawn in (
        comparison.methods_figure(table, entries),
        comparison.stages_figure(table),
    ):
        assert len(drawn.axes) == 2
        assert figures.png(drawn).startswith(b"\x89PNG")
