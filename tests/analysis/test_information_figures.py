"""What is in the figures of the information: points, labels and colours, not pixels."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from dib_jax.analysis import information_figures as drawn
from dib_jax.analysis.figures import render, save
from dib_jax.analysis.findings import Probed
from dib_jax.analysis.statistics import mean_interval


def information(probes=4, stages=3, *, seed=0, split="train", trained=None):
    """What a run of `probes` probes at epochs 0, 2, 4, … recorded."""
    random = np.random.default_rng(seed)
    epochs = 2 * np.arange(probes)
    if trained is None:
        trained = np.repeat(epochs[:, None], stages, axis=1)
    keys = ("input_stage", "stage_target", "previous_stage", "stage_target_shuffled")
    keys += ("cka_final", "linear_cka_final", "sigma")
    keys += ("nhsic_input", "nhsic_target")
    values = {key: random.uniform(0.5, 1, (probes, stages)) for key in keys}
    between = random.uniform(0.5, 1, (probes, stages, stages))
    values |= {
        "epoch": epochs,
        "trained": trained,
        "stage_stage": between + between.transpose(0, 2, 1),
        "input_target": np.array(1.0),
        "samples": np.array(32),
    }
    return {f"{split}/{key}": value for key, value in values.items()}


def run(name="run0", algorithm="sequential", *, dataset="digits", **options):
    config = {
        "dataset.name": dataset,
        "algorithm.name": algorithm,
        "objective.name": "dib",
    }
    return Probed(pathlib.Path(name), config, information(**options), 1.0)


def visible(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def panels(figure):
    """Axes that are no colour bars."""
    return [axes for axes in visible(figure) if axes.get_label() != "<colorbar>"]


def points(axes):
    return np.asarray(axes.collections[0].get_offsets())


@pytest.mark.parametrize("width", [8.3, 3.7])
@pytest.mark.parametrize("modified", [False, True])
def test_a_stage_has_a_point_for_each_probe_in_its_plane(width, modified):
    found = information(4, 3)
    figure = drawn.information_plane({"a": [found]}, modified=modified, width=width)
    own = panels(figure)
    key = "previous_stage" if modified else "input_stage"
    assert len(own) == 3
    for stage, axes in enumerate(own):
        wanted = [found[f"train/{k}"][:, stage] for k in (key, "stage_target")]
        np.testing.assert_allclose(points(axes), np.stack(wanted, axis=1))
        for label in (axes.get_xlabel(), axes.get_ylabel()):
            assert label.endswith("(bits)")
    before = "I(T_{1};T_{2})" if modified else "I(X;T_{2})"
    assert before in own[2].get_xlabel()
    assert ("I(X;T_{0})" in own[0].get_xlabel()) or not modified
    assert [a.get_xlabel() for a in visible(figure) if a not in own] == ["Epoch"]


def test_points_are_coloured_by_epoch_and_hollow_where_a_stage_is_untrained():
    trained = np.array([[0, 0], [2, 0], [2, 2]])  # one after the other
    found = information(3, 2, trained=trained)
    first, second = panels(drawn.information_plane({"a": [found]}))
    for axes, hollow in ((first, [True, False, False]), (second, [True, True, False])):
        edges = axes.collections[0].get_edgecolors()
        assert len({tuple(color) for color in edges}) == 3
        inside = axes.collections[0].get_facecolors()
        np.testing.assert_array_equal((inside == 1).all(axis=1), hollow)
        # Later is lighter, so that it shows in grey print too.
        assert np.all(np.diff(edges[:, :3] @ (0.299, 0.587, 0.114)) > 0)


def test_planes_side_by_side_have_the_same_axes_for_a_stage():
    methods = {"greedy": [information(4, 2)], "whole": [information(3, 2, seed=1)]}
    figure = drawn.information_plane(methods)
    own = panels(figure)
    titles = [axes.get_title(loc="left") for axes in own]
    assert titles == [f"stage {k}\n{m}" for m in methods for k in (0, 1)]
    for stage in (0, 1):
        assert own[stage].get_xlim() == own[2 + stage].get_xlim()
        assert own[stage].get_ylim() == own[2 + stage].get_ylim()
    assert [len(points(axes)) for axes in own] == [4, 4, 3, 3]


def test_of_sixteen_stages_eight_are_drawn_the_first_and_last_among_them():
    made = drawn.drawings([run(stages=16, probes=2)])
    own = panels(made[0].draw(width=8.3))
    titles = [axes.get_title(loc="left") for axes in own]
    assert (len(titles), titles[0], titles[-1]) == (8, "stage 0", "stage 15")
    assert "8 of 16 stages" in made[0].caption
    figure = drawn.convergence_curves([information(2, 16)])
    assert "Stage" in [axes.get_xlabel() for axes in figure.axes]  # of the colour bar


def test_curves_are_means_over_runs_with_students_interval():
    group = [information(4, 2, seed=seed) for seed in range(5)]
    figure = drawn.convergence_curves(group)
    axes = figure.axes[0]
    values = np.stack([own["train/input_stage"] for own in group])
    np.testing.assert_allclose(axes.get_lines()[1].get_ydata(), values.mean(0)[:, 0])
    _, low, high = mean_interval(values)
    assert np.all((low < values.mean(0)) & (values.mean(0) < high))
    wanted = mean_interval(values[:, 1, 0])
    np.testing.assert_allclose([low[1, 0], high[1, 0]], wanted[1:])
    band = axes.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(
        [band[:, 1].min(), band[:, 1].max()], [low[:, 0].min(), high[:, 0].max()]
    )
    labels = [(a.get_xlabel(), a.get_ylabel()) for a in figure.axes]
    assert [label[0] for label in labels] == ["Epoch"] * 4
    assert sum("(bits)" in label[1] for label in labels) == 2
    # Of one run there is none.
    assert not drawn.convergence_curves(group[:1]).axes[0].collections
    assert np.isnan(mean_interval(values[:1])[1:]).all()


def test_bands_end_where_values_do():
    # Two runs that differ have intervals far beyond 0 and 1.
    group = [information(4, 2, seed=seed) for seed in range(2)]
    for axes in drawn.convergence_curves(group).axes:
        (first, *_) = axes.collections
        band = first.get_paths()[0].vertices[:, 1]
        assert band.min() >= 0
        assert band.max() <= 1 or "CKA" not in axes.get_ylabel()


def test_a_curve_is_thin_until_its_stage_trains():
    trained = np.array([[0, 0], [2, 0], [2, 2]])
    axes = drawn.convergence_curves([information(3, 2, trained=trained)]).axes[0]
    thin, thick = axes.get_lines()[2:4]  # of stage 1
    assert (list(thin.get_xdata()), list(thick.get_xdata())) == ([0, 2], [2, 4])
    assert thin.get_linewidth() < thick.get_linewidth()


def test_a_map_has_a_cell_for_each_stage_and_probe():
    found = information(4, 3)
    own = panels(drawn.stage_epoch_map([found]))
    mesh = own[0].collections[0]
    np.testing.assert_allclose(mesh.get_array(), found["train/input_stage"].T)
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [-0.5, 1, 3, 5, 6.5])
    assert [(a.get_xlabel(), a.get_ylabel()) for a in own] == [("Epoch", "Stage")] * 4
    assert sum("(bits)" in axes.get_title(loc="left") for axes in own) == 3


def test_the_film_strip_begins_and_ends_with_the_run():
    found = information(9, 2)
    figure = drawn.matrices([found])
    own = panels(figure)
    assert len(own) == 10  # five probes, and how each differs from the first
    titles = [axes.get_title(loc="left") for axes in own[:5]]
    assert (titles[0], titles[-1]) == ("epoch 0", "epoch 16")
    last = own[4].collections[0].get_array()
    assert last.shape == (4, 4)  # Y, X, T0, T1
    assert last[0, 3] == found["train/stage_target"][-1, 1]
    assert np.ma.getmaskarray(last).diagonal().all()
    change = own[9].collections[0].get_array()
    np.testing.assert_allclose(change, last - own[0].collections[0].get_array())
    units = [a.get_ylabel() for a in figure.axes if a not in own]
    assert units == ["I(A;B) (bits)", "Change (bits)"]


def test_the_animation_has_a_frame_for_each_probe_and_rests_on_the_last():
    film = Image.open(io.BytesIO(drawn.matrices_animation([information(3, 2)])))
    assert (film.n_frames, film.info["loop"]) == (3, 0)
    durations = []
    for frame in range(3):
        film.seek(frame)
        durations.append(film.info["duration"])
    assert durations == [400, 400, 2000]


def test_profiles_have_a_line_for_each_method_and_its_untrained_network():
    methods = {"a": [information(3, 4)], "b": [information(2, 4, seed=1)]}
    figure = drawn.depth_profiles(methods)
    for axes in figure.axes:
        assert len(axes.get_lines()) == 4
        assert axes.get_xlabel() == "Stage"
        assert axes.get_ylabel().endswith("(bits)")
    values = methods["b"][0]["train/input_stage"]
    np.testing.assert_allclose(figure.axes[0].get_lines()[2].get_ydata(), values[-1])
    np.testing.assert_allclose(figure.axes[0].get_lines()[3].get_ydata(), values[0])


@pytest.mark.parametrize(("probes", "stages"), [(1, 2), (1, 1), (3, 1)])
def test_one_probe_or_one_stage_is_enough_for_all_figures(probes, stages):
    made = drawn.drawings([run(probes=probes, stages=stages)])
    for drawing in made:
        figure = drawing.draw(width=8.3)
        figure.canvas.draw()  # warnings are errors
        assert panels(figure)
    assert [d.name for d in made if d.animate] == (
        ["information_matrices"] if probes > 1 else []
    )


def test_the_plane_of_normalised_hsic_has_its_points_and_no_unit():
    found = information(4, 2)
    figure = drawn.information_plane({"a": [found]}, measure="nhsic")
    for stage, axes in enumerate(panels(figure)):
        keys = ("nhsic_input", "nhsic_target")
        wanted = [found[f"train/{key}"][:, stage] for key in keys]
        np.testing.assert_allclose(points(axes), np.stack(wanted, axis=1))
        assert axes.get_xlabel() == f"nHSIC$(X;T_{{{stage}}})$"
        assert axes.get_ylabel() == f"nHSIC$(T_{{{stage}}};Y)$"
    with pytest.raises(ValueError, match="must be 'information' or 'nhsic', got 'hs'"):
        drawn.information_plane({"a": [found]}, measure="hs")
    with pytest.raises(ValueError, match="normalised HSIC is not modified"):
        drawn.information_plane({"a": [found]}, measure="nhsic", modified=True)


def test_what_is_not_comparable_is_not_drawn_beside():
    others = [
        [run("b", "end_to_end", probes=2)],
        [run("c", "parallel", dataset="mnist")],
        [run("d", "parallel", stages=2)],
    ]
    made = {d.name: d for d in drawn.drawings([run()], others)}
    rows = made["beside_depth"].table.rows
    assert {row[0] for row in rows} == {"sequential, dib", "end_to_end"}
    assert len(rows) == 6
    assert "beside_plane" in made
    names = [d.name for d in drawn.drawings([run()], others[1:])]
    assert not [name for name in names if name.startswith("beside")]


def test_two_groups_of_one_name_are_told_apart_by_their_folders():
    made = drawn.drawings([run()], [[run("other", seed=1)]])[-1]
    assert {row[0] for row in made.table.rows} == {
        "sequential, dib",
        "sequential, dib (other)",
    }


def test_the_table_has_every_point():
    own = run()
    table = drawn.drawings([own])[0].table
    assert len(table.rows) == 4 * 3
    column = table.header.index("I(T;Y)")
    np.testing.assert_allclose(
        [row[column] for row in table.rows],
        own.information["train/stage_target"].ravel(),
    )
    assert [row[:3] for row in table.rows[3:5]] == [(2, 0, 2), (2, 1, 2)]


def test_the_validation_split_can_be_drawn_too():
    found = information(2, 2, split="validation")
    assert len(panels(drawn.information_plane({"a": [found]}, split="validation"))) == 2


def test_files_are_written_in_pixels_and_as_vectors(tmp_path):
    (drawing,) = (d for d in drawn.drawings([run(probes=2)]) if d.animate)
    save(tmp_path, [render(drawing)])
    begin = {p.name: p.read_bytes()[:5] for p in (tmp_path / "figures").iterdir()}
    assert begin == {
        "information_matrices.png": b"\x89PNG\r",
        "information_matrices.svg": b"<?xml",
        "information_matrices.gif": b"GIF89",
    }
