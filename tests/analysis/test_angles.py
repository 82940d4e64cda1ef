"""Angles of feedback weights, from the lines of a run to a figure."""

import numpy as np
import pytest

from dib_jax.algorithms.feedback import GRADIENT_ANGLE, WEIGHT_ANGLE
from dib_jax.analysis import angles, figures
from dib_jax.analysis.comparison import Entry
from dib_jax.commands.comparison_report import notes


def rows_of(shift):
    """Two epochs of a network of eleven layers; only the last two have a B."""
    names = [f"stage{n}_Dense_0{GRADIENT_ANGLE}" for n in (10, 0)]
    names += [f"head{GRADIENT_ANGLE}", f"head{WEIGHT_ANGLE}"]
    return [
        {"split": "train", "stage": 10, "epoch": epoch, "loss": 1.0}
        | {name: 10.0 * n + epoch + shift for n, name in enumerate(names)}
        for epoch in (1, 2)
    ]


def test_angles_are_means_over_seeds_and_in_the_order_of_the_network():
    found = angles.courses([rows_of(0), rows_of(2)], GRADIENT_ANGLE)
    assert list(found) == ["stage0_Dense_0", "stage10_Dense_0", "head"]
    epochs, degrees = found["stage0_Dense_0"]
    np.testing.assert_array_equal(epochs, [1, 2])
    np.testing.assert_array_equal(degrees, [12, 13])
    assert list(angles.courses([rows_of(0)], WEIGHT_ANGLE)) == ["head"]


def test_an_angle_is_no_term_of_the_loss():
    assert figures.terms(rows_of(0), {}) == ("loss",)


@pytest.mark.parametrize("width", [8.3, 3.7])
def test_each_layer_has_a_line_in_a_run_and_a_panel_in_a_comparison(width):
    both = angles.layers_figure(rows_of(0), width=width).axes[:2]
    assert [len(axes.get_lines()) - 1 for axes in both] == [1, 3]
    runs = {"alignment": [rows_of(0), rows_of(1)], "mirror": [rows_of(3)]}
    figure = angles.methods_figure(runs, width=width)
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_visible()]
    assert titles == [
        "output layer: B, Wᵀ",
        "stage 0: gradients",
        "stage 10: gradients",
    ]
    line = figure.axes[1].get_lines()[1]
    np.testing.assert_allclose(line.get_ydata(), [14, 15])


def test_a_comparison_says_what_the_angles_were_at_the_end():
    results = {"hardware": "a machine", "versions": {}}
    entries = [
        Entry("d", "m", 0, {**results, "angles": [80.0, 10.0]}),
        Entry("d", "m", 1, {**results, "angles": [82.0, 11.0]}),
        Entry("d", "end_to_end", 0, results),
    ]
    first, last = notes(entries, {}, "end_to_end")
    assert "degrees" not in first
    assert last.startswith("d, m: at the end")
    assert "are 81.0, 10.5 degrees" in last
