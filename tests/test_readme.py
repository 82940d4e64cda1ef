"""The examples of the README, as a reader would copy them."""

import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def block_with(words: str, language: str) -> str:
    (found,) = [block for block in blocks(language) if words in block]
    return found


def run_in(folder: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_of_the_pure_functions_runs(tmp_path):
    (tmp_path / "example.py").write_text(block_with("jax.value_and_grad", "python"))
    said = run_in(tmp_path, "example.py")
    bits = float(re.search(r"I\(T; Y\) = (\S+) bits", said)[1])
    assert 0 < bits < 1  # two balanced classes


def test_a_loss_of_ones_own_trains_by_the_command_that_is_given(tmp_path):
    example = block_with("def target_information", "python")
    assert len(example.splitlines()) <= 30
    (tmp_path / "my_loss.py").write_text(example)
    words = shlex.split(block_with("my_loss:target_information", ""))
    assert words[:2] == ["python", "-m"]
    config = f"--config={ROOT}/configs/digits_cnn.py:quick"
    words = [config if word.startswith("--config=") else word for word in words]
    run_in(tmp_path, *words[1:], "--workdir=run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    line = json.loads(lines[0])
    assert line["loss"] == pytest.approx(
        line["task_loss"] - 0.2 * line["target_information"], rel=1e-4
    )
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["objective"]["weight"] == 0.2
    assert (tmp_path / "run" / "report.html").is_file()


def test_every_path_that_the_readme_names_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    named += re.findall(r"configs/\w+\.py", text)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
