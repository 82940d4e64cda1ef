import importlib
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from dib_jax.commands import command_line, evaluate, run
from dib_jax.data.archives import Archive

CONFIG = pathlib.Path(command_line.__file__).parents[2] / "configs" / "mnist_mlp.py"


def refused(capsys, *arguments):
    status = command_line.main(
        run.main,
        command="experiments.run",
        arguments=[f"--config={CONFIG}:quick", *arguments],
    )
    captured = capsys.readouterr()
    assert (status, captured.err.count("\n")) == (2, 1)
    return captured.out, captured.err


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """Where a tiny MNIST is downloaded from."""
    monkeypatch.syspath_prepend(f"{pathlib.Path(__file__).parents[1]}/data")
    source = tmp_path / "server"
    source.mkdir()
    importlib.import_module("tiny_archives").mnist(source)
    module = importlib.import_module("dib_jax.data.builders.mnist")
    moved = (Archive(f"{source.as_uri()}/{a.name}", "") for a in module.ARCHIVES)
    monkeypatch.setattr(module, "ARCHIVES", tuple(moved))
    return source


def test_a_missing_set_is_downloaded_and_prepared(archives, tmp_path, capsys):
    root, workdir = tmp_path / "data", tmp_path / "run"
    # Refused when the data are there, so that nothing is trained.
    command = [f"--config.dataset.data_dir={root}", "--config.batch_size=1000"]
    command += [f"--workdir={workdir}", "--config.dataset.val_fraction=0"]
    out, err = refused(capsys, *command)
    assert "train 15, test 4 pictures of 28x28x1, 10 classes" in out
    assert "batch_size: 1000 is more than the 15 training samples of 'mnist'" in err
    assert (root / "mnist" / "contact_sheet.png").exists()
    for path in archives.iterdir():
        path.unlink()
    out, err = refused(capsys, *command)
    assert (out, "batch_size: 1000" in err) == ("", True)


def test_without_a_network_a_missing_set_is_one_line_within_seconds(
    archives, tmp_path, capsys
):
    for path in archives.iterdir():
        path.unlink()
    archives.rmdir()
    before = time.perf_counter()
    place = f"--config.dataset.data_dir={tmp_path / 'data'}"
    out, err = refused(capsys, place, f"--workdir={tmp_path / 'run'}")
    assert time.perf_counter() - before < 5
    assert out == ""
    assert f"data set 'mnist' is not in {tmp_path / 'data'}, and file:" in err
    assert "run `python -m experiments.prepare mnist --data_dir=" in err
    assert not list(tmp_path.iterdir())


def test_compiled_programs_are_kept_for_the_next_run(tmp_path):
    """In the user's cache folder, or where JAX is told to, and then there alone."""
    program = (
        "import jax; from dib_jax.commands.run import keep_programs; keep_programs();"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0);"
        "jax.jit(lambda x: x @ x)(jax.numpy.ones((8, 8)))"
    )
    told = {name: text for name, text in os.environ.items() if "CACHE" not in name}
    told |= {"XDG_CACHE_HOME": str(tmp_path / "user")}

    def start(**more):
        subprocess.run([sys.executable, "-c", program], check=True, env=told | more)

    start()
    (folder,) = (tmp_path / "user" / "dib_jax").iterdir()
    kept = list(folder.iterdir())
    assert kept
    start(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "other"))
    assert list((tmp_path / "other").iterdir())
    assert list(folder.iterdir()) == kept


def test_a_finished_run_is_evaluated_to_the_same_numbers(finished_run, capsys):
    evaluate.main([f"--workdir={finished_run}"])
    table = capsys.readouterr().out.splitlines()
    results = json.loads((finished_run / "results.json").read_text())
    assert table[0].split()[0] == "stage"
    stage, *values = table[1].split()
    assert int(stage) == results["stages"][-1]["stage"]
    metrics = results["stages"][-1]["test"]
    assert [float(value) for value in values] == pytest.approx(
        [metrics[name] for name in metrics], abs=1e-4
    )
    assert table[2] == "largest difference from results.json: 0"


def test_the_same_command_on_a_finished_run_says_so(
    finished_run, capsys, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    # Nobody watches what does not train.
    (tmp_path / "watches.py").write_text("def watch(workdir):\n    assert False\n")
    before = (finished_run / "report.html").stat().st_mtime_ns
    fields = ["model.name=mlp", "model.widths=8,6", "algorithm.name=end_to_end"]
    fields += ["head.name=linear", "epochs=1", "analysis.samples=32"]
    command = [f"--config.{field}" for field in fields]
    digits = CONFIG.with_name("digits_cnn.py")
    command += [f"--workdir={finished_run}", "--watch=watches:watch"]
    run.main([f"--config={digits}:quick", *command])
    said = capsys.readouterr().out
    assert said.startswith("already finished: test accuracy 0.")
    assert (finished_run / "report.html").stat().st_mtime_ns == before


def test_a_finished_run_is_not_the_answer_to_another_config(finished_run):
    config = command_line.load_config(f"{CONFIG.with_name('digits_cnn.py')}:quick")
    with pytest.raises(ValueError, match="belongs to another config: .*model.name is "):
        run.run(config.config, finished_run, config_name="digits_cnn")
