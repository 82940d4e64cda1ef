import base64
import html
import io
import json
import re
import shlex

import jax
import numpy as np
import pytest
from finished_run import CONFIG, make_trained, make_workdir, trained_on
from PIL import Image
from sklearn.datasets import load_digits

from dib_jax.analysis.report import find_baseline, wording, write_report
from dib_jax.analysis.runs import check_seeds
from dib_jax.tasks import Measure, Objects
from dib_jax.tasks.detection import detection
from dib_jax.tasks.worth import Boxes, exhibits

END_TO_END = {"name": "end_to_end", "blocks": 1}

# But for the fixtures of this module, which are made with their figures.
pytestmark = pytest.mark.usefixtures("undrawn")


def text_of(path):
    """What one reads on the page, without its pictures and tags."""
    body = path.read_text().partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def table_after(path, title):
    """Header and rows of the first table after a heading."""
    page = path.read_text().partition(f"<h2>{title}</h2>")[2]
    rows = re.findall(r"<tr>(.*?)</tr>", page.partition("</table>")[0])
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return cells[0], cells[1:]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A greedy run and its baseline in one folder, and both reports."""
    folder = tmp_path_factory.mktemp("runs")
    make_workdir(folder / "greedy")
    make_workdir(
        folder / "baseline",
        stages=(2,),
        information=False,
        test=(0.9639,),
        algorithm=END_TO_END,
    )
    for name in ("greedy", "baseline"):
        write_report(folder / name, make_trained(), command="python -m x")
    return folder


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Sixteen stages, 43 classes, no validation split, no baseline."""
    folder = make_workdir(
        tmp_path_factory.mktemp("runs") / "deep",
        stages=tuple(range(16)),
        epochs=2,
        validation=False,
        dataset=CONFIG["dataset"] | {"val_fraction": 0.0},
    )
    return write_report(folder, make_trained(classes=43, count=860))


def test_the_page_loads_nothing_and_runs_nothing(pair):
    page = (pair / "greedy" / "report.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    sources = re.findall(r'(?:src|srcset)="?([^"\s>]*)', page.replace("img-src", ""))
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert re.findall(r'href="([^#"][^"]*)"', page) == [
        "https://arxiv.org/abs/2510.27651"
    ]
    assert "url(" not in page
    assert "@import" not in page
    for picture in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page):
        drawing = base64.b64decode(picture).decode()
        links = re.findall(r'xlink:href="([^"]*)"', drawing)
        assert all(link.startswith(("#", "data:")) for link in links)


def test_the_result_stands_beside_the_baseline_with_their_difference(pair):
    text = text_of(pair / "greedy" / "report.html")
    assert "93.61 % Test accuracy" in text
    assert "96.39 % End-to-end baseline" in text
    assert "−2.78 points" in text
    assert "The end-to-end baseline is baseline in the folder beside" in text


def test_an_end_to_end_run_shows_its_counterpart(pair):
    text = text_of(pair / "baseline" / "report.html")
    assert text.startswith("End-to-end training on digits")
    assert "96.39 % Test accuracy" in text
    assert "93.61 % Stage by stage" in text
    assert "+2.78 points" in text
    assert "The stage-by-stage run of the same network." in text
    assert "Terms of the loss" not in text  # the task's loss is all there is


def test_the_ensemble_of_heads_has_a_row_after_the_stages(tmp_path):
    workdir = make_workdir(tmp_path / "run")
    results = json.loads((workdir / "results.json").read_text())
    results["ensemble"] = {"accuracy": 0.9817, "loss": 0.0623}
    results["ensemble_validation"] = {"accuracy": 0.9444, "loss": 0.1}
    (workdir / "results.json").write_text(json.dumps(results))
    path = write_report(workdir, make_trained())
    _, rows = table_after(path, "Stages in numbers")
    assert [row[0] for row in rows] == ["0", "1", "2", "ensemble"]
    assert rows[3][1:4] == ["94.44 %", "98.17 %", "0.0623"]
    assert "The ensemble averages what all heads say" in text_of(path)
    values = [entry["validation"]["accuracy"] for entry in results["stages"]]
    best = results["stages"][values.index(max(values))]["stage"]
    assert f"no exit is better than that of stage {best}." in text_of(path)


def test_every_number_of_the_table_is_that_of_results_json(pair):
    results = json.loads((pair / "greedy" / "results.json").read_text())
    header, rows = table_after(pair / "greedy" / "report.html", "Stages in numbers")
    assert header == [
        "Stage",
        "Validation accuracy",
        "Test accuracy",
        "Test loss",
        "Epochs",
        "Time",
        "Temporaries",
        "Work per step",
    ]  # no peak memory: it was not measured
    assert [row[0] for row in rows] == ["0", "1", "2", "end to end"]
    for row, entry in zip(rows, results["stages"], strict=False):
        assert row[1] == f"{100 * entry['validation']['accuracy']:.2f} %"
        assert row[2] == f"{100 * entry['test']['accuracy']:.2f} %"
        assert row[3] == f"{entry['test']['loss']:.4f}"
        assert row[4] == "20"
    assert [row[5] for row in rows[:3]] == ["8.2 s", "1 min 09 s", "2 min 10 s"]
    assert [row[6] for row in rows[:3]] == ["3.1 MiB", "4.1 MiB", "5.1 MiB"]
    assert [row[7] for row in rows[:2]] == ["131.00 MFLOP", "262.00 MFLOP"]
    assert rows[3][2] == "96.39 %"
    text = text_of(pair / "greedy" / "report.html")
    assert "The run took 3 min 28 s, of which 7.4 s compiling." in text


def test_terms_of_the_last_epoch_are_those_of_the_record(pair):
    lines = (pair / "greedy" / "metrics.jsonl").read_text().splitlines()
    last = {}
    for row in map(json.loads, lines):
        if row["split"] == "train":
            last[row["stage"]] = row
    header, rows = table_after(pair / "greedy" / "report.html", "Terms of the loss")
    assert header[3] == "Input information (bits)"
    for stage, row in enumerate(rows):
        assert float(row[1]) == pytest.approx(last[stage]["loss"], abs=5e-5)
        assert float(row[2]) == pytest.approx(last[stage]["task_loss"], abs=5e-5)
        assert float(row[3]) == pytest.approx(
            last[stage]["input_information"], abs=5e-5
        )


def test_what_was_run_and_on_what_is_said(pair):
    text = text_of(pair / "greedy" / "report.html")
    for said in (
        "scikit-learn's 8 × 8 digits, 1797 pictures; 360 test pictures, 10 classes",
        "cnn (widths 32, 64, 128, convolutions 1, pools 2)",
        "dib (alpha 1.01, beta 0.01, compress input, bandwidth mean)",
        "cnn, 3 stages: one stage after the other, each frozen before the next",
        "sequential (blocks 1), 20 epochs each",
        "Seed 0, one run",
        "CPU (2 cores, An Example Processor)",
        "python 3.11.9, dib_jax 0.1.0, jax 0.10.2",
        "python -m x",
        "reconstruction",
        "not the authors’ code",
    ):
        assert said in text


def test_every_setting_is_shown(pair):
    text = text_of(pair / "greedy" / "report.html").partition("Settings run")[2]
    for section in CONFIG.values():
        for name, value in section.items() if isinstance(section, dict) else ():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            assert f"{name} {shown if value != '' else 'none'}" in text


def test_confusions_and_mistakes_are_counted(pair):
    given = make_trained()
    dataset = given.experiment.dataset
    images, labels = dataset.test["images"], dataset.test["labels"]
    names, predicted = dataset.class_names, given.outputs.argmax(axis=1)
    confidence = np.asarray(jax.nn.softmax(given.outputs)).max(axis=1)
    wrong = predicted != labels
    text = text_of(pair / "greedy" / "report.html")
    assert f"{(~wrong).sum()} of 360 pictures are on the diagonal" in text
    assert f"12 of {wrong.sum()} mistakes" in text
    _, rows = table_after(pair / "greedy" / "report.html", "Confusions")
    for true, other, count, share in rows:
        of_class = labels == names.index(true)
        found = (of_class & (predicted == names.index(other))).sum()
        assert found == int(count) > 0
        assert share == f"{100 * found / of_class.sum():.1f} %"
    order = np.argsort(-np.where(wrong, confidence, 0), kind="stable")
    page = (pair / "greedy" / "report.html").read_text()
    cards = re.findall(
        r'base64,([^"]+)" alt="Test sample (\d+)"><span>true <b>(.*?)</b></span>'
        r"<span(.*?)>(.*?)<b>(.*?)</b></span><span>(.*?)</span>",
        page,
    )
    assert [int(card[1]) for card in cards[12:]] == order[:12].tolist()
    for picture, index, true, kind, mark, shown, sure in cards:
        k = int(index)
        assert (true, shown) == (names[labels[k]], names[predicted[k]])
        assert ("✗" in mark) == wrong[k] == ("wrong" in kind)
        share = confidence[k]
        shown = "> 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"
        assert html.unescape(sure) == shown
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
        np.testing.assert_array_equal(decoded, images[k, :, :, 0])


def test_figures_lie_beside_the_page_and_nothing_temporary_does(pair):
    folder = pair / "greedy"
    names = ["confusion", "examples", "mistakes", "stages", "terms", "training"]
    found = sorted((folder / "figures").iterdir())
    assert [path.name for path in found] == [f"{name}.png" for name in names]
    for path in found:
        assert path.stat().st_size < 200_000
        assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "figures",
        "metrics.jsonl",
        "report.html",
        "results.json",
    ]


def test_without_a_validation_split_nothing_is_said_of_one(deep):
    header, rows = table_after(deep, "Stages in numbers")
    assert len(rows) == 16
    assert not [name for name in header if "alidation" in name]
    before_settings = text_of(deep).partition("Settings")[0]
    assert "alidation" not in before_settings


def test_43_classes_are_named_in_the_most_frequent_confusions(deep):
    _, rows = table_after(deep, "Confusions")
    assert 0 < len(rows) <= 10
    assert all(row[0].startswith("class ") for row in rows)


def test_without_a_baseline_the_page_says_how_to_make_one(deep):
    page = deep.read_text()
    commands = [
        html.unescape(found).replace("\\\n", " ")
        for found in re.findall(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)
    ]
    run, baseline = map(shlex.split, commands)
    # With no command given, one that sets every field.
    assert run[:4] == [
        "python",
        "-m",
        "experiments.run",
        "--config=configs/digits_cnn.py",
    ]
    assert "--config.model.widths=32,64,128" in run
    assert "--config.dataset.augment=" in run
    changed = set(baseline) ^ set(run)
    assert {word.partition("=")[0] for word in changed} == {
        "--config.algorithm.name",
        "--config.algorithm.blocks",
        "--workdir",
    }
    assert "--config.algorithm.name=end_to_end" in baseline
    assert baseline[-1].endswith("deep-end_to_end")


def test_a_command_with_epochs_per_stage_gets_one_number_for_its_baseline(workdir):
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"epochs": [3, 4, 5]}))
    with (workdir / "metrics.jsonl").open("a") as record:
        record.write('{"stage": 2, "ep')  # cut off by a kill: no reason to fail
    path = write_report(
        workdir,
        make_trained(count=40, mistakes=0),
        command="python -m experiments.run --config=a.py --workdir 'my runs/b'",
    )
    page = html.unescape(path.read_text()).replace("\\\n", " ")
    found = re.findall(r"<code>(python[^<]*--config.algorithm[^<]*)</code>", page)
    words = shlex.split(found[0])
    assert words[:5] == [
        "python",
        "-m",
        "experiments.run",
        "--config=a.py",
        "--config.epochs=12",
    ]
    assert len(words) == 7
    assert "most confident mistakes" not in page  # there is none


def test_what_comes_from_files_is_text(tmp_path):
    nasty = "<img src=x onerror=alert(1)>&\"'$"
    folder = make_workdir(tmp_path / "run", epochs=1)
    for name in ("config.json", "results.json"):
        value = json.loads((folder / name).read_text())
        if name == "config.json":
            value["model"] = {"name": nasty, nasty: nasty}
        else:
            value |= {
                "dataset": nasty,
                "dataset_description": nasty,
                "hardware": nasty,
                "versions": {nasty: nasty},
            }
        (folder / name).write_text(json.dumps(value))
    trained = make_trained(count=30, mistakes=10, names=(nasty,) * 10)
    path = write_report(
        folder,
        trained,
        command=f"run {nasty!r}",
    )
    page = path.read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#x27;" in page


def test_a_mean_is_of_seeds_of_one_config(tmp_path):
    def run(name, **changes):
        return tmp_path / name, {"seed": 0, "epochs": 1, **changes}

    check_seeds([run("a"), run("b", seed=1)])
    with pytest.raises(ValueError, match=r"a and .*b are runs of one config and of s"):
        check_seeds([run("a"), run("b")])
    with pytest.raises(ValueError, match=r"b differ in epochs; give runs that differ"):
        check_seeds([run("a"), run("b", seed=1, epochs=2)])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": {"name": "cross_entropy"}},
        {"dataset": CONFIG["dataset"] | {"data_dir": "/elsewhere"}},
        {"workdir": "/elsewhere"},
    ],
)
def test_a_run_that_differs_in_the_algorithm_alone_is_the_baseline(tmp_path, changes):
    greedy = make_workdir(tmp_path / "greedy", epochs=1)
    other = make_workdir(
        tmp_path / "other", stages=(2,), epochs=1, algorithm=END_TO_END, **changes
    )
    assert find_baseline(greedy).workdir == other
    assert find_baseline(other).workdir == greedy


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"batch_size": 32},
        {"epochs": 2},
        {"model": {"name": "mlp"}},
        {"algorithm": {"name": "parallel", "blocks": 1}},
    ],
)
def test_any_other_run_is_no_baseline(tmp_path, changes):
    greedy = make_workdir(tmp_path / "greedy", epochs=1)
    options = {"stages": (2,), "epochs": 1, "algorithm": END_TO_END} | changes
    make_workdir(tmp_path / "other", **options)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.json").write_text("{}")
    (tmp_path / "damaged").mkdir()
    for name in ("config.json", "results.json"):
        (tmp_path / "damaged" / name).write_text('{"cut')
    assert find_baseline(greedy) is None


def test_as_many_passes_in_all_make_a_baseline_too_and_equal_epochs_go_first(tmp_path):
    greedy = make_workdir(tmp_path / "greedy", epochs=2)
    make_workdir(tmp_path / "a", stages=(2,), epochs=6, algorithm=END_TO_END)
    assert find_baseline(greedy).workdir.name == "a"
    make_workdir(tmp_path / "b", stages=(2,), epochs=2, algorithm=END_TO_END)
    assert find_baseline(greedy).workdir.name == "b"


def test_stages_trained_at_once_pass_over_the_data_once_an_epoch(tmp_path):
    at_once = {"algorithm": {"name": "parallel", "blocks": 1}}
    together = make_workdir(tmp_path / "together", epochs=2, **at_once)
    long = make_workdir(tmp_path / "a", stages=(2,), epochs=6, algorithm=END_TO_END)
    assert find_baseline(together) is None
    short = make_workdir(tmp_path / "b", stages=(2,), epochs=2, algorithm=END_TO_END)
    assert find_baseline(together).workdir == short
    assert find_baseline(long) is None


def test_a_field_that_an_older_run_did_not_have_is_no_difference(tmp_path):
    newer = {"dataset": CONFIG["dataset"] | {"whiten": 0}}
    run = make_workdir(tmp_path / "run", epochs=1, **newer)
    older = make_workdir(tmp_path / "a", stages=(2,), epochs=1, algorithm=END_TO_END)
    assert find_baseline(run).workdir == older
    # One that changes what is trained is a difference.
    views = {"dataset": CONFIG["dataset"] | {"views": "flip"}}
    assert find_baseline(make_workdir(tmp_path / "b", epochs=1, **views)) is None


def test_a_run_of_an_older_version_beside_it_is_no_baseline(tmp_path):
    run = make_workdir(tmp_path / "run", epochs=2)
    older = make_workdir(tmp_path / "a", stages=(2,), epochs=6, algorithm=END_TO_END)
    assert find_baseline(run).workdir == older
    for name in ("config.json", "results.json"):
        content = json.loads((older / name).read_text())
        content["schedule"] = content.pop("algorithm")
        (older / name).write_text(json.dumps(content))
    assert find_baseline(run) is None
    assert write_report(run, make_trained()).is_file()


def test_a_peak_below_the_temporaries_is_no_peak(workdir):
    path = workdir / "results.json"
    results = json.loads(path.read_text())
    for times, shown in ((2.0, True), (0.5, False)):
        for entry in results["stages"]:
            entry["peak_bytes"] = int(times * entry["temp_bytes"])
        path.write_text(json.dumps(results))
        text = write_report(workdir, make_trained()).read_text()
        assert ("Peak memory" in text) is shown


def test_what_an_algorithm_had_no_use_for_is_not_reported(workdir):
    path = workdir / "results.json"
    results = json.loads(path.read_text())
    results |= {"algorithm": "mine:mine", "unused": ["model", "head", "objective"]}
    path.write_text(json.dumps(results))
    config = json.loads((workdir / "config.json").read_text())
    config["algorithm"] = {"name": "mine:mine"}
    (workdir / "config.json").write_text(json.dumps(config))
    text = write_report(workdir, make_trained()).read_text()
    assert "<h1>mine:mine on digits</h1>" in text
    assert "GreedyDIB" not in text
    for name in ("Head", "Objective", "Network"):
        assert f"<dt>{name}</dt>" not in text
    assert "<dt>Training</dt>" in text


def test_boxes_are_measured_beside_the_mean_box_and_shown(workdir):
    given = make_trained(count=60, mistakes=6)
    names, test = given.experiment.dataset.class_names, given.experiment.dataset.test
    labels, count = test["labels"], 60
    true = np.tile(np.float32([0.1, 0.2, 0.8, 0.9]), (count, 1, 1))
    found = true.copy()
    found[5] = [0.6, 0.6, 0.7, 0.7]  # far too small: the worst one
    predicted = given.outputs.argmax(axis=1)
    predicted[7] = -1
    scores = np.full((count, 1), 0.9)
    objects = Objects(predicted[:, None], scores, predicted[:, None] >= 0, found)
    boxes = Boxes(labels[:, None], true, objects, np.float32([0.1, 0.2, 0.8, 1]))
    task = detection(num_classes=10)._replace(
        exhibits=lambda answers: exhibits(answers, boxes)
    )
    finished = trained_on(task, test, given.outputs, class_names=names)
    path = write_report(workdir, finished)
    header, (run, mean) = table_after(path, "Boxes")
    assert header == ["Boxes of", "Mean IoU", "IoU ≥ 0.5", "AP50", "Mean AP"]
    iou = (count - 2 + 0.01 / 0.49) / count
    assert run[1:3] == [f"{iou:.4f}", f"{100 * (count - 2) / count:.2f} %"]
    assert mean[1] == "0.8750"  # always, whether the run found anything or not
    _, classes = table_after(path, "Average precision by class")
    assert [int(row[1]) for row in classes] == np.bincount(labels).tolist()
    text = path.read_text()
    worst = text.partition("The worst boxes")[2]
    assert re.findall(r"Test sample (\d+)", worst)[:2] == ["7", "5"]
    assert "IoU 0.000" in worst
    assert "nothing" in worst
    names = {file.stem for file in (workdir / "figures").glob("*.png")}
    assert {"overlaps", "best", "worst", "examples", "confusion"} <= names
    # The boxes are in the pictures: red over green where they are the same.
    picture = re.search(r'base64,([^"]+)" alt="Test sample', worst)[1]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    assert pixels.shape == (192, 192, 3)
    assert (pixels[38, 50] == (0, 158, 115)).all()  # at 0.2 of its height
    assert 'style="color: #009E73">Green</b> is a true box' in text


@pytest.mark.parametrize(
    ("count", "line"),
    [
        (0, "none of the 360 test pictures are identical to one of the training"),
        (1, "1 of the 360 test pictures is identical to one of the training"),
        (8, "8 of the 360 test pictures are identical to one of the training"),
    ],
)
def test_duplicates_are_told_and_the_loss_has_the_tasks_unit(
    workdir, trained, count, line
):
    results = json.loads((workdir / "results.json").read_text())
    results["duplicates"]["test"] = count
    (workdir / "results.json").write_text(json.dumps(results))
    text = write_report(workdir, trained).read_text()
    assert line in text
    assert "Task loss (nats)" in text
    if count == 0:
        experiment = trained.experiment
        measures = experiment.task.measures | {"loss": Measure("Loss")}
        task = experiment.task._replace(measures=measures)  # as of a class and a box
        trained = trained._replace(experiment=experiment._replace(task=task))
        text = write_report(workdir, trained).read_text()
        assert "Task loss" in text
        assert "nats" not in text


def test_a_run_that_is_not_finished_has_no_report(workdir, trained):
    (workdir / "results.json").unlink()
    with pytest.raises(ValueError, match="results.json is missing.*experiments.run"):
        write_report(workdir, trained)
    assert not (workdir / "report.html").exists()


def test_a_damaged_line_of_the_record_is_named(workdir, trained):
    path = workdir / "metrics.jsonl"
    path.write_text('{"stage": 2, "ep\n' + path.read_text())
    with pytest.raises(ValueError, match="metrics.jsonl:1 is damaged"):
        write_report(workdir, trained)


@pytest.mark.parametrize("count", [0, 359])
def test_outputs_that_are_not_of_the_test_split_are_refused(workdir, trained, count):
    message = f"outputs of {count} samples for a test split of 360"
    with pytest.raises(ValueError, match=message):
        write_report(workdir, trained._replace(outputs=trained.outputs[:count]))


def test_a_failed_write_leaves_the_earlier_report_whole(workdir, trained, monkeypatch):
    (workdir / "report.html").write_text("the earlier one")

    def full(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_report(workdir, trained)
    assert (workdir / "report.html").read_text() == "the earlier one"
    assert not [p for p in workdir.rglob("*") if p.name.startswith(".")]


@pytest.mark.parametrize(("accuracy", "is_chance"), [(0.12, True), (0.16, False)])
def test_a_result_at_chance_says_so(tmp_path, accuracy, is_chance):
    folder = make_workdir(tmp_path / "run", stages=(0,), epochs=1, test=(accuracy,))
    text = text_of(write_report(folder, make_trained(), command="x"))
    assert ("This is chance: " in text) is is_chance
    share = 100 * np.bincount(load_digits().target[:360]).max() / 360
    assert (f"is right in {share:.1f} %, which is not below" in text) is is_chance


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(12.34, "12.3 s"), (2.66e-3, "2.66 ms"), (5.07e-5, "50.7 µs"), (None, None)],
)
def test_a_short_time_stands_in_the_unit_that_one_reads_easily(seconds, shown):
    assert wording.moment(seconds) == shown
