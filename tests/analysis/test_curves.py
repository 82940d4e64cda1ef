"""Curves over a setting: what is taken from a run, and what is drawn of several."""

import json

import numpy as np
import pytest

from dib_jax.analysis import curves, figures
from dib_jax.analysis.curves import Measured
from dib_jax.tasks import Measure

RUNS = {
    "none": [Measured((0, 1), (0.5, 0.6), (0.0, 0.0), (5.0, 4.0))],
    "less": [
        Measured((0, 1), (0.4, 0.7), (0.1, None), (4.0, 3.0)),
        Measured((0, 1), (0.6, 0.9), (0.3, None), (3.0, 2.0)),
    ],
    "more": [Measured((0, 1), (0.7, 0.5), (0.2, 0.4), ())],
}
CURVES = {"input": {"less": 0.01, "none": 0.0, "more": -1.0, "unfinished": 1.0}}


def test_points_are_means_over_seeds_in_the_order_of_the_setting():
    points = curves.table(CURVES, RUNS)
    assert [(point["value"], point["stage"]) for point in points] == [
        (-1.0, 0), (-1.0, 1), (0.0, 0), (0.0, 1), (0.01, 0), (0.01, 1)
    ]  # fmt: skip
    first, second = points[4:]
    np.testing.assert_allclose(first["metric"], 0.5)
    np.testing.assert_allclose(second["metric_std"], np.std([0.7, 0.9], ddof=1))
    np.testing.assert_allclose(first["pull"], 0.2)
    assert (second["pull"], second["pull_std"]) == (None, None)
    np.testing.assert_allclose(second["kept"], 2.5)
    assert points[0]["kept"] is None
    assert points[0]["metric_std"] is None


def test_the_pull_is_that_of_the_whole_training_of_a_stage(tmp_path):
    lines = [
        {"stage": stage, "epoch": epoch, "split": split, **gradients}
        for stage in (0, 1)
        for epoch, (task, local) in enumerate([(1.0, 0.5), (0.2, 0.1 * stage)])
        for split, gradients in (
            ("train", {"task_gradient": task, "local_gradient": local}),
            ("validation", {}),
        )
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    stages = [{"stage": stage, "test": {"accuracy": 0.5}} for stage in (0, 1)]
    results = {"metric": "accuracy", "stages": stages}
    found = curves.measured(tmp_path, results)
    np.testing.assert_allclose(found.pull, (0.5 / 1.2, 0.6 / 1.2))
    assert found.metric == (0.5, 0.5)
    assert found.kept == ()


def test_exits_of_blocks_have_the_number_and_the_information_of_their_stage(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    bits = np.array([[9.0, 9.0, 9.0, 9.0], [8.0, 7.0, 6.0, 5.0]])  # a row a probe
    np.savez(tmp_path / "information.npz", **{"train/input_stage": bits})
    exits = [{"stage": stage, "test": {"accuracy": 0.1 * stage}} for stage in (1, 3)]
    found = curves.measured(tmp_path, {"metric": "accuracy", "stages": exits})
    assert (found.stages, found.kept) == ((1, 3), (7.0, 5.0))
    points = curves.table({"input": {"blocks": 0.1}}, {"blocks": [found]})
    assert [(p["stage"], p["kept"]) for p in points] == [(1, 7.0), (3, 5.0)]
    drawn = curves.curves_figure(points, "kept", axis="β", measure=Measure("A"))
    shown = [axes.get_title(loc="left") for axes in drawn.axes if axes.get_visible()]
    assert shown == ["stage 1", "stage 3"]


@pytest.mark.parametrize("quantity", curves.QUANTITIES)
@pytest.mark.parametrize("width", [8.3, 3.6])
def test_a_figure_has_a_panel_for_each_stage(quantity, width):
    points = curves.table(CURVES, RUNS)
    drawn = curves.curves_figure(
        points,
        quantity,
        axis="β",
        measure=Measure("Accuracy", "%"),
        reference=("end_to_end", 0.8),
        width=width,
    )
    shown = [axes for axes in drawn.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["stage 0", "stage 1"]
    assert shown[-1].get_xlabel() == "β"
    assert shown[0].get_xscale() == "symlog"
    if quantity == "metric":
        assert shown[0].get_ylabel() == "Test Accuracy (%)"
        assert shown[-1].get_lines()[-1].get_ydata()[0] == 80
    assert figures.png(drawn).startswith(b"\x89PNG")


def test_what_no_run_has_is_not_drawn():
    points = curves.table({"input": {"more": -1.0}}, RUNS)
    with pytest.raises(ValueError, match="kept"):
        curves.curves_figure(points, "kept", axis="β", measure=Measure("A"))
