"""Comparisons of methods: statistics against known values, and tables in order."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from scipy import stats

from dib_jax.analysis import comparison, figures


def entry(method, seed, value, *, dataset="digits", stages=(0.5,)):
    results = {
        "metric": "accuracy",
        "measures": {"accuracy": {"label": "Accuracy", "unit": "%"}},
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


def with_exits(own, *validation):
    """The run with exits of 0.8, 0.81, … on the test split."""
    stages = [
        {"stage": i, "test": {"accuracy": 0.8 + i / 100}, "validation": value}
        for i, value in enumerate(validation)
    ]
    return own._replace(results={**own.results, "stages": stages})


def test_the_best_exit_is_chosen_on_the_validation_split():
    validated = [{"accuracy": value} for value in (0.7, 0.9, 0.9)]
    first, second = (with_exits(own, *validated) for own in ENTRIES[:2])
    assert comparison.best_exit(first.results)["stage"] == 1
    second = with_exits(second, *validated[::-1])
    table = comparison.rows([first, second, *ENTRIES[3:]], reference="base")
    found = {row.method: (row.best_exit, row.best_exit_std) for row in table}
    values = (0.81, 0.80)
    np.testing.assert_allclose(found["base"], (np.mean(values), np.std(values, ddof=1)))
    # Of one exit, without a validation split, or of stages that put nothing out.
    assert found["good"] == found["same"] == found["late"] == (None, None)
    assert comparison.best_exit(with_exits(first, *validated[:1]).results) is None
    assert comparison.best_exit(with_exits(first, {}, None).results) is None


def with_boxes(own):
    results = {**own.results, "metric": "mean_iou"}
    return own._replace(method="boxes", results=results)


def test_methods_with_another_metric_are_not_compared():
    entries = [*(with_boxes(own) for own in ENTRIES[:3]), *ENTRIES[:6]]
    table = comparison.rows(entries, reference="base")
    assert [row.method for row in table] == ["boxes", "good", "base"]
    assert table[0].difference is None
    assert table[1].difference is not None
    found = comparison.told_apart(entries)
    assert {name: contrasts.methods for name, contrasts in found.items()} == {
        "digits, mean_iou": ("boxes",),
        "digits, accuracy": ("base", "good"),
    }
    figure = comparison.methods_figure(table, entries)
    assert len(figure.axes) == 2


def test_methods_with_one_seed_do_not_keep_others_from_being_told_apart():
    late = [entry(name, 0, 0.5) for name in ("c", "d", "e")]
    found = comparison.told_apart([*ENTRIES[:6], *late])["digits"]
    assert (found.methods, found.seeds) == (("base", "good"), (0, 1, 2))


def test_two_runs_of_one_seed_are_refused():
    with pytest.raises(ValueError, match="two runs of base on digits have seed 0"):
        comparison.rows([*ENTRIES, entry("base", 0, 0.5)], reference="base")


def entries_of(**values):
    return [
        entry(method, seed, value)
        for method, own in values.items()
        for seed, value in enumerate(own)
    ]


def test_two_methods_are_told_apart_as_by_a_paired_t_test():
    one, other = np.array([0.90, 0.92, 0.91]), np.array([0.93, 0.96, 0.94])
    found = comparison.told_apart(entries_of(one=one, other=other))["digits"]
    interval = stats.ttest_rel(other, one).confidence_interval(0.95)
    np.testing.assert_allclose(found.least, (interval.high - interval.low) / 2)
    assert found.pairs == (("one", "other"),)


def test_of_several_methods_the_least_difference_is_tukeys():
    values = {"a": (0.1, 0.2, 0.3), "b": (0.2, 0.3, 0.4), "c": (0.9, 1.0, 0.8)}
    found = comparison.told_apart(entries_of(**values))["digits"]
    # Without the means of seeds, a and b have -0.033, -0.033 and 0.067 left,
    # c twice as much with the other sign: 0.04 by 4 degrees of freedom. The studentized
    # range of three means has 5.04 as its 95 % quantile in every table.
    np.testing.assert_allclose(found.least, 5.04 * 0.1 / 3**0.5, rtol=1e-3)
    assert found.pairs == (("a", "c"), ("b", "c"))
    assert found.seeds == (0, 1, 2)
    # What all methods share in a seed is no spread.
    shifted = {name: np.add(own, (0.0, 5.0, 9.0)) for name, own in values.items()}
    same = comparison.told_apart(entries_of(**shifted))["digits"]
    np.testing.assert_allclose(same.least, found.least)


def test_seeds_that_differ_by_the_same_few_pictures_prove_nothing():
    pictures = np.array([320, 328, 325])
    one, other = ((pictures + own) / np.float32(359) for own in (0, 1))
    found = comparison.told_apart(entries_of(one=one, other=other))["digits"]
    assert (found.least, found.pairs) == (None, ())


def test_who_lacks_a_seed_takes_no_part_and_one_seed_tells_nothing():
    values = {"a": (0.1, 0.2), "b": (0.5, 0.61), "unfinished": (0.9,)}
    found = comparison.told_apart(entries_of(**values))["digits"]
    assert (found.methods, found.seeds) == (("a", "b"), (0, 1))
    once = comparison.told_apart(entries_of(a=(0.1,), b=(0.9,)))["digits"]
    assert (once.least, once.pairs) == (None, ())


def test_figures_are_drawn_for_several_data_sets():
    entries = [*ENTRIES, entry("base", 0, 0.7, dataset="mnist")]
    table = comparison.rows(entries, reference="base")
    for drawn in (
        comparison.methods_figure(table, entries),
        comparison.stages_figure(table, entries),
    ):
        assert len(drawn.axes) == 2
        assert drawn.axes[0].get_xlabel() == "Test Accuracy (%)"
        values = drawn.axes[0].get_lines()[0].get_xdata()
        assert 40 <= min(values) <= 100  # in per cent
        assert figures.png(drawn).startswith(b"\x89PNG")


def test_each_data_set_has_the_label_and_the_scale_of_its_own_metric():
    other = entry("base", 0, 0.7, dataset="pieces")
    other.results["metric"] = "fit"
    other.results["measures"] = {"fit": {"label": "Fit", "unit": ""}}
    other.results["test"] = {"fit": 0.7}
    other.results["stages"] = [{"stage": 0, "test": {"fit": 0.7}}]
    entries = [*ENTRIES, other]
    table = comparison.rows(entries, reference="base")
    for drawn in (
        comparison.methods_figure(table, entries),
        comparison.stages_figure(table, entries),
    ):
        labels = [axes.get_xlabel() for axes in drawn.axes]
        assert labels == ["Test Accuracy (%)", "Test Fit"]
        assert drawn.axes[1].get_lines()[0].get_xdata()[0] == 0.7


def test_a_dot_after_a_block_has_the_name_and_the_colour_of_its_stage():
    blocks = entry("blocks", 0, 0.9, stages=(0.6, 0.9))
    for exit, stage in zip(blocks.results["stages"], (1, 3), strict=True):
        exit["stage"] = stage
    each = entry("each", 0, 0.8, stages=(0.5, 0.6, 0.7, 0.8))

    def drawn(*entries):
        """Words and colours of the legend, and colours of the dots of each method."""
        table = comparison.rows(entries, reference="blocks")
        figure = comparison.stages_figure(table, entries)
        marks = figure.legends[0].legend_handles
        legend = {mark.get_label(): to_rgba(mark.get_color()) for mark in marks}
        (axes,) = figure.axes
        dots = [list(map(tuple, x.get_facecolors())) for x in axes.collections]
        return legend, dict(zip([row.method for row in table[::-1]], dots, strict=True))

    legend, dots = drawn(blocks)
    assert list(legend) == ["stage 1", "stage 3"]
    assert comparison.rows([blocks], reference="blocks")[0].exits == (1, 3)
    assert dots["blocks"] == list(legend.values())
    legend, dots = drawn(blocks, each)
    assert list(legend) == ["stage 0", "stage 1", "stage 2", "stage 3"]
    assert dots["blocks"] == [legend["stage 1"], legend["stage 3"]]
    assert dots["each"] == list(legend.values())
