"""`experiments.compare`: what it plans, what it refuses, and what it leaves."""

import csv
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from dib_jax import settings
from dib_jax.analysis import comparison, recording
from dib_jax.analysis.comparison import Contrasts, Entry
from dib_jax.commands import command_line, compare, comparison_report, run
from dib_jax.commands.config import complete
from dib_jax.training import workdir

pytestmark = pytest.mark.once

PLAN = {
    "base": "configs/digits_cnn.py:quick",
    "methods": {"end_to_end": ("algorithm.name=end_to_end",), "greedy": ()},
    "datasets": {"digits": ("model.name=mlp", "model.widths=4,4", "epochs=1")},
    "seeds": (0, 1),
    "reference": "end_to_end",
}

RESULTS = {"metric": "accuracy", "test": {"accuracy": 1.0}, "seconds": 0.0}

CONFIG = """
import ml_collections

def get_config():
    return ml_collections.ConfigDict({plan!r})
"""


def test_a_run_is_planned_for_each_data_set_method_and_seed(tmp_path):
    found = compare.planned(compare.read_plan(PLAN), tmp_path, data_dir="DIR")
    runs = [run for runs in found.values() for run in runs]
    assert [run.workdir.name for run in runs] == [
        "digits-end_to_end-seed0",
        "digits-end_to_end-seed1",
        "digits-greedy-seed0",
        "digits-greedy-seed1",
    ]
    assert runs[1].overrides == {
        "model.name": "mlp",
        "model.widths": "4,4",
        "epochs": "1",
        "algorithm.name": "end_to_end",
        "dataset.data_dir": "DIR",
        "seed": "1",
    }


def test_a_data_sets_options_are_not_those_of_another_network(tmp_path):
    datasets = {"digits": ("model.widths=4,4", "epochs=1", "optimizer.momentum=0.5")}
    methods = {
        "end_to_end": ("optimizer.name=adamw",),
        "residual": ("model.name=resnet", "model.depth=8"),
    }
    plan = compare.read_plan({**PLAN, "datasets": datasets, "methods": methods})
    runs = compare.planned(plan, tmp_path)
    shared = {"epochs": "1", "optimizer.momentum": "0.5", "seed": "0"}
    assert runs["digits", "end_to_end"][0].overrides == {
        **shared, "model.widths": "4,4", "optimizer.name": "adamw"
    }  # fmt: skip
    assert runs["digits", "residual"][0].overrides == {
        **shared, "model.name": "resnet", "model.depth": "8"
    }  # fmt: skip


def test_a_data_sets_options_are_kept_where_a_method_names_what_it_has_anyway(tmp_path):
    datasets = {
        "small": ("model.name=mlp", "model.widths=8,8", "objective.beta=0.5"),
        "usual": ("model.widths=4,4", "algorithm.blocks=2"),
    }
    methods = {
        "wide": ("model.name=mlp", "objective.name=dib"),
        "plain": ("algorithm.name=sequential",),
    }
    changes = {"datasets": datasets, "methods": methods, "reference": "plain"}
    runs = compare.planned(compare.read_plan({**PLAN, **changes}), tmp_path)
    found = {key: one[0].overrides for key, one in runs.items()}
    assert found["small", "wide"]["model.widths"] == "8,8"
    assert found["small", "wide"]["objective.beta"] == "0.5"
    assert found["small", "plain"]["model.widths"] == "8,8"
    # The base has convolutions, and stages one after the other.
    assert "model.widths" not in found["usual", "wide"]
    assert found["usual", "plain"]["algorithm.blocks"] == "2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {}}, "unknown field 'method'"),
        ({"seeds": ()}, "needs the field 'seeds'"),
        ({"seeds": (1, 1)}, "different whole numbers"),
        ({"reference": "bp"}, "'bp' is none of end_to_end, greedy"),
        ({"methods": {"a/b": ()}, "reference": "a/b"}, "part of a folder's"),
        ({"datasets": {"digits": ("epochs",)}}, "'epochs' is no override"),
        ({"search": {"greedy": ("epochs=1",)}}, "as many alternatives for every"),
        ({"curves": (("β", "typo", 0.1),)}, "'typo', which is no method"),
        ({"curves": (("β", "greedy"),)}, "a curve's name, a method and a number"),
    ],
)
def test_a_mistake_in_the_plan_is_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compare.read_plan({**PLAN, **changes})


def test_a_comparison_like_another_has_its_fields_but_for_its_own(tmp_path):
    (tmp_path / "plan.py").write_text(CONFIG.format(plan=PLAN))
    like = {"like": str(tmp_path / "plan.py"), "seeds": (7,)}
    (tmp_path / "other.py").write_text(CONFIG.format(plan=like))
    wanted = compare.read_plan(PLAN)._replace(seeds=(7,))
    assert compare.read_plan(like) == wanted
    of_the_other = {"like": str(tmp_path / "other.py"), "reference": "greedy"}
    assert compare.read_plan(of_the_other) == wanted._replace(reference="greedy")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.py"):
        compare.read_plan({"like": str(tmp_path / "nowhere.py")})


def test_of_several_that_it_is_like_a_comparison_has_the_data_sets_of_all(tmp_path):
    files = tuple(str(tmp_path / name) for name in ("first.py", "second.py"))
    first, second = {"easy": ("epochs=1",)}, {"easy": ("epochs=9",), "hard": ()}
    for file, datasets, seeds in zip(files, (first, second), ((1,), (2,)), strict=True):
        plan = {**PLAN, "datasets": datasets, "seeds": seeds}
        pathlib.Path(file).write_text(CONFIG.format(plan=plan))
    read = compare.read_plan({"like": files})
    assert read.seeds == (2,)
    assert read.datasets == {"easy": {"epochs": "9"}, "hard": {}}
    assert compare.read_plan({"like": files, "datasets": first}).datasets == {
        "easy": {"epochs": "1"}
    }


def start(folder, plan, *more):
    config = folder / "plan.py"
    config.write_text(CONFIG.format(plan=plan))
    arguments = [f"--config={config}", f"--workdir={folder / 'out'}", *more]
    return command_line.main(
        compare.main, command="experiments.compare", arguments=arguments
    )


def test_a_mistake_in_one_run_is_told_before_any_starts(tmp_path, capsys):
    methods = {**PLAN["methods"], "typo": ("objective.bta=1",)}
    assert start(tmp_path, {**PLAN, "methods": methods}) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "typo on digits" in said
    assert "objective.beta" in said
    assert not (tmp_path / "out").exists()


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs without processes of their own, and without what their reports show."""

    def execute(base, of, logs, shares, started):
        words = [f"--config.{name}={value}" for name, value in of.overrides.items()]
        run.main([f"--config={base}", *words, f"--workdir={of.workdir}"])
        return ""

    def write_report(workdir, trained, *, command):
        recording.write_information(workdir)
        (workdir / "report.html").touch()
        return workdir / "report.html"

    monkeypatch.setattr(compare, "_execute_one", execute)
    monkeypatch.setattr(run, "write_report", write_report)


def test_a_run_that_fails_is_told_with_its_last_line_and_status_1(tmp_path, capsys):
    methods = {"greedy": ("model.name=mlp", "model.widths=4,4")}
    plan = {**PLAN, "methods": methods, "seeds": (0,), "reference": "greedy"}
    # Allowed by the config alone; that digits have fewer pictures is known later.
    plan["datasets"] = {"digits": ("batch_size=2000", "dataset.val_fraction=0")}
    assert start(tmp_path, plan) == 1
    said = capsys.readouterr().err.splitlines()
    log = tmp_path / "out" / "logs" / "digits-greedy-seed0.log"
    assert said[0].startswith(
        "digits-greedy-seed0 failed: dib_jax.commands.run: batch_size: 2000 is more "
    )
    assert said[0].endswith(f"(all of it: {log})")
    assert said[1].startswith("experiments.compare: no run finished; the first: digit")
    assert len(said) == 2
    assert "batch_size: 2000" in log.read_text()


def test_it_leaves_tables_that_agree_and_the_second_start_trains_nothing(
    tmp_path, capsys, in_this_process
):
    small = ("model.name=mlp", "model.widths=4,4", "epochs=1", "analysis.samples=0")
    plan = {
        **PLAN,
        "datasets": {"digits": small},
        # Only of a curve's methods it is asked what the probes saw.
        "methods": {**PLAN["methods"], "greedy": ("analysis.samples=16",)},
        "seeds": (0, 1),
        # All of them are other configs than the methods themselves.
        "search": {
            "end_to_end": ("optimizer.learning_rate=0.1", "epochs=2"),
            "greedy": ("optimizer.learning_rate=0.1", "objective.beta=0.0"),
        },
        "curves": (("greedy", "greedy", 0.5),),
        "axis": "β",
    }
    assert start(tmp_path, plan) == 0
    out = tmp_path / "out"
    table = json.loads((out / "table.json").read_text())
    rows = {row["method"]: row for row in table["rows"]}
    for method, row in rows.items():
        tried = [
            json.loads(path.read_text())
            for path in sorted(out.glob(f"search/digits-{method}-*/results.json"))
        ]
        scores = [results["validation"]["accuracy"] for results in tried]
        best = scores.index(max(scores))
        assert row["chosen"] == plan["search"][method][best]
        # What was tried with the first seed is that seed's run.
        (other,) = out.glob(f"runs/digits-{method}-seed*")
        assert other.name.endswith("seed1")
        both = [tried[best], json.loads((other / "results.json").read_text())]
        of_the_test = [results["test"]["accuracy"] for results in both]
        assert row["mean"] == pytest.approx(sum(of_the_test) / 2)
        if method == "greedy":
            of_all = [results["ensemble"]["accuracy"] for results in both]
            assert row["ensemble"] == pytest.approx(sum(of_all) / 2)
            exits = [
                max(results["stages"], key=lambda e: e["validation"]["accuracy"])
                for results in both
            ]
            of_exits = [entry["test"]["accuracy"] for entry in exits]
            assert row["best_exit"] == pytest.approx(sum(of_exits) / 2)
    with (out / "table.csv").open() as stream:
        lines = {line["method"]: line for line in csv.DictReader(stream)}
    assert float(lines["greedy"]["mean"]) == rows["greedy"]["mean"]
    markdown = (out / "table.md").read_text()
    assert f"{100 * rows['greedy']['mean']:.2f}" in markdown
    assert "| ensemble of heads | exit best on validation | chosen |" in markdown
    assert f"| {100 * rows['greedy']['ensemble']:.2f} ± " in markdown
    assert rows["end_to_end"]["ensemble"] is None
    with (out / "curves.csv").open() as stream:
        points = list(csv.DictReader(stream))
    drawn = [float(point["metric"]) for point in points]
    assert drawn == pytest.approx(rows["greedy"]["stages"])
    assert [point["value"] for point in points] == ["0.5", "0.5"]
    assert [point["seeds"] for point in points] == ["2", "2"]
    figures = ["digits_kept", "digits_metric", "digits_pull", "methods", "stages"]
    assert sorted(path.stem for path in (out / "figures").glob("*.png")) == figures
    assert (out / "report.html").read_text().count("<figure") == len(figures)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")}
    capsys.readouterr()
    assert start(tmp_path, plan) == 0
    assert "[1/" not in capsys.readouterr().out
    assert before == {
        path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")
    }


@pytest.fixture
def scores(monkeypatch):
    """Runs that train nothing: by β the accuracy of each; None for one that fails."""
    scores = {"0.5": 0.7, "0.25": 0.6, "9.0": None}

    def execute(base, of, logs, shares, started):
        score = scores[of.overrides["objective.beta"]]
        if score is None:
            return f"{of.workdir.name} failed: the loss is NaN"
        file = command_line.load_config(base)
        config = complete(command_line.override(file.config, of.overrides))
        split = {"accuracy": score}
        results = {**RESULTS, "test": split, "validation": split}
        of.workdir.mkdir(parents=True)
        (of.workdir / "config.json").write_text(json.dumps(settings.plain(config)))
        (of.workdir / "results.json").write_text(json.dumps(results))
        (of.workdir / "report.html").touch()
        return ""

    def write_report(folder, plan, runs, chosen, *, command, left):
        (folder / "table.md").write_text(" ".join(chosen.values()))
        return folder / "report.html"

    monkeypatch.setattr(compare, "_execute_one", execute)
    monkeypatch.setattr(comparison_report, "write_report", write_report)
    return scores


SEARCHED = {
    **PLAN,
    "methods": {"greedy": ()},
    "reference": "greedy",
    "search": {"greedy": ("objective.beta=9.0", "objective.beta=0.5")},
}


def test_a_comparison_goes_on_with_the_alternative_that_its_search_chose(
    tmp_path, scores
):
    search = {"greedy": ("objective.beta=0.25", "objective.beta=0.5")}
    plan = {**SEARCHED, "search": search}
    assert start(tmp_path, plan) == 0
    (other,) = (tmp_path / "out" / "runs").iterdir()
    config = json.loads((other / "config.json").read_text())
    assert (other.name, config["objective"]["beta"]) == ("digits-greedy-seed1", 0.5)
    assert start(tmp_path, plan) == 0
    assert start(tmp_path, {**plan, "seeds": (0, 1, 2)}) == 0


def test_a_mistake_in_an_alternative_is_told_before_any_run_starts(tmp_path, capsys):
    search = {"greedy": ("objective.bta=0.25", "objective.beta=0.5")}
    assert start(tmp_path, {**SEARCHED, "search": search}) == 2
    assert "objective.beta" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_alternative_that_fails_loses_and_the_comparison_says_so_at_its_end(
    tmp_path, scores, capsys
):
    for _ in range(2):  # likewise when it goes on
        assert start(tmp_path, SEARCHED) == 1
        said = capsys.readouterr()
        assert "objective.beta=0.5\n2 of 2 runs, report" in said.out
        last = said.err.splitlines()[-1]
        assert "1 runs failed: digits-greedy-0 failed: the loss is NaN" in last


def test_a_trial_that_failed_by_chance_does_not_undo_what_has_begun_without_it(
    tmp_path, scores
):
    assert start(tmp_path, SEARCHED) == 1
    scores["9.0"] = 1.0  # now it is the best
    plan = {**SEARCHED, "seeds": (0, 1, 2)}
    assert start(tmp_path, plan) == 0
    for other in (tmp_path / "out" / "runs").iterdir():
        assert (
            json.loads((other / "config.json").read_text())["objective"]["beta"] == 0.5
        )
    # Where no later seed has begun it wins.
    (tmp_path / "anew").mkdir()
    assert start(tmp_path / "anew", plan) == 0
    (other, _) = (tmp_path / "anew" / "out" / "runs").iterdir()
    assert json.loads((other / "config.json").read_text())["objective"]["beta"] == 9.0


def test_a_method_of_which_every_alternative_fails_is_named(tmp_path, scores, capsys):
    scores["0.5"] = None
    assert start(tmp_path, SEARCHED) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "greedy on digits: no alternative of the search finished" in last
    assert "digits-greedy-1 failed: the loss is NaN" in last
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="of Linux")
def test_runs_side_by_side_have_cores_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 5, 6, 7})
    pinned = []
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda pid, cores: pinned.append(cores)
    )
    monkeypatch.setattr(compare.sys, "executable", "true")
    monkeypatch.setattr(workdir, "read_results", lambda path: RESULTS)
    plan = compare.read_plan(PLAN)
    runs = list(itertools.chain(*compare.planned(plan, tmp_path).values()))
    assert compare.execute(plan, runs, jobs=2, workdir=tmp_path) == []
    assert len(pinned) == len(runs)
    assert {tuple(cores) for cores in pinned} <= {(3, 4), (5, 6)}
    pinned.clear()
    assert compare.execute(plan, runs, jobs=1, workdir=tmp_path) == []
    assert pinned == []


@pytest.mark.parametrize(
    ("least", "count", "told"),
    [
        (None, 0, "no two methods can be told apart: that takes two methods with two"),
        (0.0142, 0, "differ by 1.42 points or more (Tukey's test at 5 % for all pairs"),
        (0.0142, 0, "10 methods together, 3 seeds as blocks): none of 45 pairs."),
        (0.0142, 3, "3 of 45 pairs, m7 and m8, m7 and m9, m8 and m9."),
        (0.0142, 25, "25 of 45 pairs; from m9: m2, m3, m4, m5, m6, m7, m8."),
    ],
)
def test_however_many_methods_the_note_names_few_pairs(least, count, told):
    results = {**RESULTS, "hardware": "CPU", "versions": {"jax": "1"}}
    methods = tuple(f"m{index}" for index in range(10))
    entries = [Entry("digits", method, 0, results) for method in methods]
    pairs = tuple(itertools.combinations(methods, 2))[45 - count :]
    found = {"digits": Contrasts(methods, (0, 1, 2), least, pairs)}
    assert told in comparison_report.notes(entries, found, "m9")[-1]


def test_runs_of_several_machines_are_all_named():
    results = {**RESULTS, "hardware": "CPU", "versions": {"jax": "1"}}
    entries = [Entry("digits", "m", seed, results) for seed in (0, 1)]
    assert comparison_report._made_on(entries) == "CPU; jax 1"
    other = {**results, "versions": {"jax": "2"}}
    said = comparison_report._made_on([*entries, Entry("digits", "m", 2, other)])
    assert said.endswith("seconds do not compare: CPU; jax 1; also CPU; jax 2")


def test_runs_that_are_under_way_end_with_an_interrupted_comparison():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    futures = []

    def interrupted():
        with compare._pool(1) as (pool, started):
            started.add(process)
            futures.extend(pool.submit(process.wait) for _ in range(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert process.returncode != 0
    assert futures[1].cancelled()


def test_while_runs_are_left_the_page_says_how_many(tmp_path, monkeypatch):
    plan = compare.read_plan({**PLAN, "methods": {"greedy": ()}, "reference": "greedy"})
    runs = compare.planned(plan, tmp_path)["digits", "greedy"]
    facts = {"hardware": "CPU", "versions": {"jax": "1"}, "temp_bytes": None}
    entry = {"stage": 0, "test": RESULTS["test"], "seconds": 1.0}
    results = {**RESULTS, **facts, "validation": {}, "stages": [entry]}
    monkeypatch.setattr(comparison_report, "read_results", lambda workdir: results)
    monkeypatch.setattr(comparison_report, "_drawings", lambda *_: [])
    for left, said in ((1, True), (0, False)):
        path = comparison_report.write_report(
            tmp_path, plan, runs[:1], {}, command="x", left=left
        )
        page = path.read_text()
        assert ("1 of 2 runs are finished" in page) is said
        assert ('http-equiv="refresh"' in page) is said


def test_rows_with_different_metrics_have_the_columns_of_all():
    tests = {
        "classes": ("accuracy", {"accuracy": 0.9, "top5": 0.99}),
        "boxes": ("mean_iou", {"mean_iou": 0.8, "accuracy": 0.7}),
    }
    entries = [
        Entry(dataset, "greedy", 0, {
            **RESULTS, "metric": metric, "test": test, "validation": test, "stages": [],
        })
        for dataset, (metric, test) in tests.items()
    ]  # fmt: skip
    table = comparison.rows(entries, reference="greedy")
    first, second = comparison_report._cells(table, "greedy", {})
    assert list(first) == list(second)
    names = ("test accuracy", "test mean_iou", "validation mean_iou", "test top5")
    assert [first[name] for name in names] == ["90.00", "–", "–", "99.00"]
    assert [second[name] for name in names] == ["70.00", "80.00", "80.00", "–"]
