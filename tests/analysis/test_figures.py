import io
import json

import numpy as np
import pytest
from finished_run import make_workdir
from matplotlib.colors import to_rgb
from PIL import Image

from dib_jax.analysis import figures
from dib_jax.tasks import Measure, style
from dib_jax.tasks.answers import confusion_matrix
from dib_jax.tasks.classification import classification
from dib_jax.tasks.pictures import viewable

MEASURES = classification(num_classes=10).measures
ACCURACY = MEASURES["accuracy"]
METRIC = {"metric": "accuracy", "measures": MEASURES}


def rows_of(folder):
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def rows(workdir):
    return rows_of(workdir)


def labels_of(figure):
    return [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 16, 54])
def test_every_stage_has_a_colour_of_its_own_that_shows_on_white(count):
    colors = style.stage_colors(count)
    assert len(set(colors)) == count
    for color in colors:
        assert np.dot(to_rgb(color), (0.299, 0.587, 0.114)) < 0.8


def test_terms_begin_with_the_whole_loss_and_hold_no_metric(rows):
    names = figures.terms(rows, MEASURES)
    assert names == ("loss", "task_loss", "input_information", "sigma")


def test_a_loss_that_is_the_task_loss_is_named_once(tmp_path):
    folder = make_workdir(tmp_path / "run", information=False)
    assert figures.terms(rows_of(folder), MEASURES) == ("task_loss",)


def test_information_is_in_bits_and_the_task_loss_in_nats():
    def label(name, measures=MEASURES):
        return figures.term_of(name, measures).axis

    assert label("previous_information") == "Previous information (bits)"
    assert label("entropy") == "Entropy (bits)"
    assert label("task_loss") == "Task loss (nats)"
    assert label("task_loss", {}) == "Task loss"  # as of a class and a box
    assert label("similarity") == "Similarity"
    assert label("class_loss", {"class_loss": Measure("Loss of it", "nats")}) == (
        "Loss of it (nats)"
    )


def test_accuracy_after_each_stage_is_drawn_in_per_cent_beside_the_baseline():
    stages = [
        {"stage": 1, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}},
        {"stage": 3, "validation": {"accuracy": None}, "test": {"accuracy": 0.75}},
    ]
    figure = figures.stage_metric(stages, "accuracy", ACCURACY, baseline=0.875)
    (axes,) = figure.axes
    drawn = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_array_equal(drawn["test"].get_xdata(), [1, 3])
    np.testing.assert_array_equal(drawn["test"].get_ydata(), [25, 75])
    np.testing.assert_array_equal(drawn["validation"].get_ydata(), [50, np.nan])
    assert any(np.allclose(line.get_ydata(), 87.5) for line in axes.get_lines()[:3])
    assert labels_of(figure) == [("Stage", "Accuracy (%)")]


def test_without_validation_and_baseline_only_the_test_split_is_drawn():
    stages = [{"stage": k, "validation": {}, "test": {"accuracy": 0.5}} for k in (0, 1)]
    (axes,) = figures.stage_metric(stages, "accuracy", ACCURACY).axes
    assert [line.get_label() for line in axes.get_lines()] == ["test"]


def test_stages_in_sequence_are_laid_end_to_end_with_a_rule_between(rows):
    figure = figures.training_curves(rows, **METRIC)
    accuracy, loss = figure.axes
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == (
        "Accuracy (%)",
        "Task loss (nats)",
    )
    assert loss.get_xlabel() == "Epoch"
    assert [text.get_text() for text in accuracy.texts] == [
        "stage 0",
        "stage 1",
        "stage 2",
    ]
    # Training and validation of three stages, and the rules before the later two.
    assert len(accuracy.get_lines()) == 3 * 2 + 2
    assert {line.get_xdata()[0] for line in accuracy.get_lines()} >= {1, 21, 41}
    first = next(row for row in rows if row["split"] == "train")
    assert loss.get_lines()[0].get_ydata()[0] == first["task_loss"]


def test_stages_in_parallel_share_one_epoch_axis(rows):
    accuracy, loss = figures.training_curves(rows, **METRIC, overlapping=True).axes
    assert {line.get_xdata()[0] for line in accuracy.get_lines()} == {1}
    assert loss.get_xlabel() == "Epoch of every stage"


def test_every_term_has_a_labelled_panel(rows):
    figure = figures.loss_terms(rows, measures=MEASURES)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "Loss, all terms",
        "Task loss (nats)",
        "Input information (bits)",
        "Kernel width σ",
    ]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "Epoch", "Epoch"]


def test_no_term_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="no line of the train split"):
        figures.loss_terms([], measures=MEASURES)


@pytest.mark.parametrize("overlapping", [False, True])
def test_sixteen_stages_of_one_epoch_can_be_drawn_at_phone_width(tmp_path, overlapping):
    folder = make_workdir(tmp_path / "run", stages=tuple(range(16)), epochs=1)
    rows = rows_of(folder)
    figure = figures.training_curves(rows, **METRIC, overlapping=overlapping, width=3.7)
    figures.svg(figure)
    named = [text.get_text() for text in figure.axes[0].texts]
    assert len(named) < 16  # thinned: there is no room for all


@pytest.mark.parametrize("classes", [2, 10, 43, 100])
def test_confusions_are_drawn_for_any_number_of_classes(classes):
    counts = np.eye(classes, dtype=int) * 3
    counts[0, 1] = 1
    names = [f"a class with a $long$ name {k}" for k in range(classes)]
    figure = confusion_matrix(counts, names, width=3.7)
    axes, bar = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")
    assert bar.get_ylabel() == "Share of the true class (%)"
    assert len(axes.get_xticks()) <= min(classes, 40)
    shown = [text.get_text() for text in axes.texts]
    assert shown.count("3") == (classes if classes <= 12 else 0)
    drawn = np.asarray(axes.collections[0].get_array()).reshape(classes, classes)
    np.testing.assert_allclose(drawn[0, :2], [75, 25])
    assert drawn[1, 1] == 100
    assert len(figures.png(figure)) < 200_000


def test_a_class_without_samples_leaves_its_row_empty():
    axes, _ = confusion_matrix(np.diag([2, 0]), ["a", "b"]).axes
    drawn = np.asarray(axes.collections[0].get_array()).reshape(2, 2)
    np.testing.assert_array_equal(drawn, [[100, 0], [0, 0]])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_of_any_number_of_channels_can_be_shown(channels):
    images = np.full((2, 4, 6, channels), 7, np.uint8)
    assert viewable(images[0]).dtype == np.uint8
    figure = figures.picture_grid(images, ["costs $5", "$x_$"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["costs $5", "$x_$"]
    figures.png(figure)


@pytest.mark.parametrize(
    "long",
    [
        "true Right-of-way at the next intersection\npredicted Speed limit (20km/h)",
        "MMMM WWWW MMMM WWWW MMMM WWWW",
        "M" * 40,
    ],
    ids=["words", "wide letters", "one word"],
)
def test_long_captions_overlap_neither_each_other_nor_the_next_pictures(long):
    images = np.zeros((14, 8, 3, 3), np.uint8)
    figure = figures.picture_grid(images, [f"{long}\n97.0 %"] * 14)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    boxes += [image.get_window_extent() for image in axes.images]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
        assert box.y0 >= 0


def test_shortened_names_of_classes_keep_the_end_in_which_they_differ():
    names = [f"Maximum speed of {number} km/h" for number in range(30, 73)]
    figure = confusion_matrix(np.eye(43, dtype=int), names)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(shown) == len(set(shown)) > 10


def test_files_are_what_they_say_and_the_same_each_time():
    counts, names = np.diag([3, 4]), ("a", "b")
    drawn = [figures.svg(confusion_matrix(counts, names)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    content = figures.png(confusion_matrix(counts, names))
    assert Image.open(io.BytesIO(content)).format == "PNG"


def test_letters_that_no_font_has_are_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(style, "_said", set())
    monkeypatch.setattr(style, "fonts", lambda: ("DejaVu Sans",))
    pictures = [np.zeros((4, 4, 1), np.uint8)]
    with style.readable():
        figures.png(figures.picture_grid(pictures, ["café 限速 α"]))
    line = "figures: no font that is installed has 速限; they are drawn as boxes"
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == 1
    assert style.font_file("限 α").name == "DejaVuSans.ttf"
    assert capsys.readouterr().err == ""
