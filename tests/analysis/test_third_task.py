"""A task that is neither of ours: numbers of vectors, with a report all the same."""

import functools
import html
import json
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
from finished_run import make_workdir, trained_on
from matplotlib.figure import Figure

from dib_jax import analysis
from dib_jax.analysis.report import write_report
from dib_jax.information import gaussian_gram
from dib_jax.tasks import Measure, Task
from dib_jax.tasks.classification import classification
from dib_jax.tasks.exhibits import (
    Answers,
    Drawing,
    Example,
    Examples,
    Exhibit,
    Line,
    Table,
)


def regression() -> Task:
    """One number for each vector, by its mean squared error."""

    def loss(outputs, targets):
        error = jnp.mean((outputs[:, 0] - targets) ** 2)
        return error, {"fit": 1 - error / jnp.var(targets)}

    def metrics(outputs, targets):
        error, terms = loss(outputs, targets)
        return {"loss": error, **terms}

    return Task(
        num_outputs=1,
        metric="fit",
        measures={"fit": Measure("R²"), "loss": Measure("Squared error", "kg²")},
        targets=lambda batch: batch["weight"],
        loss=loss,
        metrics=metrics,
        target_gram=functools.partial(gaussian_gram, sigma=1.0),
        shown=("fit",),
        exhibits=scatter,
    )


def scatter(answers: Answers) -> tuple[Exhibit, ...]:
    given, said = answers.test["weight"], answers.outputs[:, 0]

    def draw(*, width: float) -> Figure:
        figure = Figure(figsize=(width, 3))
        figure.subplots().plot(given, said, ".")
        return figure

    drawing = Drawing("scatter", draw, "A point a sample.", "Said against given.")
    rows = [("largest error", float(np.abs(given - said).max()))]
    worst = int(np.abs(given - said).argmax())
    lines = (Line("given", f"{given[worst]:.1f}"), Line("said <b>", "x", wrong=True))
    table = Table("", ("what", "kg"), rows)
    examples = Examples("worst", "", "", (Example(worst, lines),))
    return (
        Exhibit("scatter", "Said and given", (drawing, table)),
        Exhibit("worst", "The worst", ("One is shown.", examples)),
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = make_workdir(tmp_path_factory.mktemp("third") / "run", epochs=2)
    for name in ("results.json", "metrics.jsonl"):
        text = (folder / name).read_text().replace('"accuracy"', '"fit"')
        (folder / name).write_text(text)
    results = json.loads((folder / "results.json").read_text())
    results["test"]["fit"] = results["stages"][-1]["test"]["fit"] = 0.8731
    (folder / "results.json").write_text(json.dumps(results))
    random = np.random.default_rng(0)
    test = {
        "features": random.normal(size=(30, 4)).astype(np.float32),
        "weight": random.normal(size=30).astype(np.float32),
    }
    outputs = test["weight"][:, None] + 0.1
    outputs[17] += 3
    return write_report(
        folder, trained_on(regression(), test, outputs, noun="vectors")
    ).read_text()


def test_its_metric_and_loss_have_its_names_and_units(page):
    body = page.partition("<body>")[2]
    text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
    assert "0.87 Test R² last stage" in text
    assert "30 test vectors" in text
    assert "classes" not in text.partition("Settings")[0]
    assert "Stage Validation R² Test R² Test loss Epochs" in text
    assert 'alt="R² after each of 3 stages."' in page
    assert 'alt="R² and task loss over the epochs."' in page
    assert "Task loss (kg²)" in text
    assert "%" not in text.partition("To reproduce")[0]


def test_its_own_figures_tables_and_examples_are_shown(page):
    text = page.partition("<h2>Said and given</h2>")[2]
    assert 'alt="A point a sample."' in text
    assert '<div class="beside"><figure' in text  # the table stands beside it
    assert '<td>largest error</td><td class="number">3.1</td>' in text
    assert "<span>Test sample 17</span><span>given <b>" in text
    assert "<span class=wrong>✗ said &lt;b&gt; <b>x</b></span>" in text
    assert "One is shown." in text


def test_classes_of_vectors_have_confusions_and_no_pictures(tmp_path, undrawn):
    workdir = make_workdir(tmp_path / "run", epochs=2)
    random = np.random.default_rng(0)
    labels = random.integers(3, size=40)
    test = {"features": random.normal(size=(40, 5)), "labels": labels}
    outputs = 4 * np.eye(3)[labels] + random.normal(size=(40, 3))
    outputs[:5] = -outputs[:5]
    trained = trained_on(
        classification(num_classes=3),
        test,
        outputs,
        class_names=("a", "b", "c"),
        noun="vectors",
    )
    page = write_report(workdir, trained).read_text()
    right = int((outputs.argmax(axis=1) == labels).sum())
    assert f"{right} of 40 vectors are on the diagonal" in page
    assert f"{40 - right} of {40 - right} mistakes among 40 test vectors" in page
    assert "<h2>Test vectors</h2>" in page
    cards = page.partition("<h2>Test vectors</h2>")[2].partition("</section>")[0]
    assert "<img" not in cards
    assert "<span>Test sample 0</span><span>true <b>" in cards
    names = {path.stem for path in (workdir / "figures").iterdir()}
    assert names == {"confusion", "stages", "terms", "training"}


# To leave early, and to be measured on corrupted pictures, is for tasks that tell
# classes; others are refused.
OF_CLASSES = (
    "exits.py", "exit_figures.py", "corruptions.py", "corruption_figures.py"
)  # fmt: skip


def test_no_file_of_the_analysis_names_what_belongs_to_one_task():
    found = {
        (path.name, word)
        for path in pathlib.Path(analysis.__file__).parent.rglob("*.py")
        if path.name not in OF_CLASSES
        for word in re.findall(
            r"(?i)\b(?:accuracy|ap50|mean_iou|iou|map50|boxe?s?)\b(?!-)",
            path.read_text(encoding="utf-8").replace("border-box", ""),
        )
    }
    assert not found
