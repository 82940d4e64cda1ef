"""The command, from a run's folder to findings.json and the report."""

import json
import shutil

import pytest

from dib_jax.analysis import information_figures
from dib_jax.commands import analyze, command_line, evaluate


def answer(capsys, *arguments):
    status = command_line.main(
        analyze.main, command="experiments.analyze", arguments=list(arguments)
    )
    return status, *capsys.readouterr()


@pytest.fixture
def folder(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "finished")


def test_a_run_ends_with_its_findings_in_the_report(folder):
    assert (folder / "information.npz").is_file()
    page = (folder / "report.html").read_text()
    assert "Information in the network" in page
    for sentence in json.loads((folder / "findings.json").read_text())["sentences"]:
        assert sentence[:40] in page


def test_the_command_prints_findings_and_makes_the_slow_controls(folder, capsys):
    (folder / "report.html").unlink()
    status, out, _ = answer(capsys, f"--workdir={folder}")
    assert status == 0
    assert "no order is claimed" in " ".join(out.split())
    assert "kernels × 2" in out
    assert "The estimator on Gaussians" in out
    found = json.loads((folder / "findings.json").read_text())
    counted = found["statistics"]["data_processing"]
    # At the width that was recorded, it is the count that was recorded.
    assert counted["kernels × 1"]["violated"] == counted["all probes"]["violated"]
    page = (folder / "report.html").read_text()
    assert "The estimator on Gaussians" in page
    # Figures, each with its numbers, and without a script.
    for title in ("Information plane", "Modified information plane", "Convergence"):
        assert f"<h3>{title}</h3>" in page
    assert page.count("<summary>The numbers</summary>") == 2
    assert "<summary>As a film, probe by probe</summary>" in page
    assert 'src="data:image/gif;base64,' in page
    assert "<script" not in page


def test_a_run_that_is_not_finished_is_analyzed_without_a_report(
    folder, tmp_path, capsys
):
    for name in ("config.json", "probes/00000000.npz"):
        target = tmp_path / "running" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((folder / name).read_bytes())
    status, out, _ = answer(capsys, "--workdir", str(target.parents[1]))
    assert status == 0
    assert "the run is not finished" in " ".join(out.split())
    assert not (tmp_path / "running" / "report.html").exists()
    drawn = {path.name for path in (tmp_path / "running" / "figures").iterdir()}
    assert {"information_plane.png", "information_plane.svg"} <= drawn


def test_what_analyze_found_outlives_an_evaluation(folder, capsys):
    before = (folder / "findings.json").read_bytes() + b" "
    (folder / "findings.json").write_bytes(before)
    (folder / "figures" / "information_plane.png").write_bytes(b"")
    evaluate.main([f"--workdir={folder}", "--corruptions", "--samples=20"])
    assert (folder / "findings.json").read_bytes() == before
    # Nor is the command lost that made the run.
    assert "--config=elsewhere/mine.py" in (folder / "report.html").read_text()
    line = "the figures of analyze are no longer in"
    assert line in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_probes_is_one_line(finished_run, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((finished_run / "config.json").read_bytes())
    status, _, err = answer(capsys, f"--workdir={finished_run}", str(tmp_path))
    assert (status, err.count("\n")) == (2, 1)
    assert "has no probes; a run has them with analysis.every_epochs" in err


def test_layer_wise_training_is_set_beside_end_to_end_of_the_same_network(
    finished_run, tmp_path, capsys, monkeypatch
):
    every = information_figures.drawings

    def those_of_nhsic(*groups):
        return [drawing for drawing in every(*groups) if "nhsic" in drawing.name]

    monkeypatch.setattr(information_figures, "drawings", those_of_nhsic)
    # The same probes under another algorithm's name, each with two seeds.
    for algorithm in ("end_to_end", "parallel"):
        for seed in (0, 1):
            copy = tmp_path / f"{algorithm}{seed}"
            shutil.copytree(finished_run / "probes", copy / "probes")
            settings = json.loads((finished_run / "config.json").read_text())
            settings["seed"], settings["algorithm"]["name"] = seed, algorithm
            (copy / "config.json").write_text(json.dumps(settings))
    status, out, _ = answer(capsys, "--workdir", *map(str, sorted(tmp_path.iterdir())))
    assert status == 0
    said = " ".join(out.split())
    assert said.count("parallel, dib beside end to end, 2 and 2 runs") == 1
    assert "How differently the stages change, train" in out
    assert "Its mean error is" in said
    for workdir in tmp_path.iterdir():
        found = json.loads((workdir / "findings.json").read_text())
        assert "no difference is established" in found["sentences"][-1]
        drawn = {path.name for path in (workdir / "figures").iterdir()}
        assert {"nhsic_plane.png", "beside_nhsic.svg"} <= drawn


def test_help_and_a_missing_folder_are_answered(capsys):
    with pytest.raises(SystemExit, match="0"):
        answer(capsys, "--help")
    out = capsys.readouterr().out
    assert out.startswith("python -m experiments.analyze --workdir=DIR")
    status, _, err = answer(capsys)
    assert (status, "--workdir is missing" in err) == (2, True)


def test_a_folder_that_is_given_twice_is_one_run(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    seen = []
    monkeypatch.setattr(analyze, "analyze", lambda workdirs: seen.append(workdirs))
    monkeypatch.setattr(evaluate, "_exits", lambda workdirs, *_: seen.append(workdirs))
    words = [str(tmp_path / name) for name in ("a", "b", "a", "link", "b/../b")]
    analyze.main(["--workdir", *words])
    evaluate.main(["--exits", "--workdir", *words])
    both = [tmp_path.resolve() / name for name in ("a", "b")]
    assert [[path.resolve() for path in workdirs] for workdirs in seen] == [both, both]
