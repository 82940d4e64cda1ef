"""The README and the pages of documentation, as a reader would use them."""

import importlib
import json
import pathlib
import re
import shlex
import sys

import pytest

from dib_jax.commands import command_line, registry
from dib_jax.commands.config import FACTORIES, schema

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = [README, *sorted(ROOT.glob("docs/*.md"))]
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS[1:], *sorted(ROOT.glob("results/*.md"))]
TODAY = [page for page in PAGES if page.name != "CHANGELOG.md"]
OURS = {path.stem for path in ROOT.glob("dib_jax/**/*.py")}
# What stands for a value in a command, and one that it may have.
PLACEHOLDERS = {"SEED": "1", "DIR": "data", "$W": "64,64"}


def named(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: pathlib.Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def block_with(words: str, language: str) -> str:
    (found,) = [block for block in blocks(README, language) if words in block]
    return found


def files(page: pathlib.Path) -> dict[str, str]:
    """The examples that a page tells to save, by the name that stands before them."""
    text = page.read_text(encoding="utf-8")
    parts = re.split(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    found = {}
    for before, language, block in zip(*(parts[i::3] for i in range(3)), strict=False):
        names = [n for n in re.findall(r"`(\w+)\.py`", before) if n not in OURS]
        if language == "python" and names:
            found[names[-1]] = block
    return found


def prose(page: pathlib.Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(page: pathlib.Path) -> list[tuple[str, list[str]]]:
    """Name and arguments of each command in a page's blocks of commands."""
    text = "\n".join(blocks(page, "")).replace("\\\n", "")
    found = re.findall(r"python -m experiments\.(\w+)([^\n#\"|]*)", text)
    return [(name, shlex.split(re.sub(r" \(or \w+\)", "", a))) for name, a in found]


def anchors(page: pathlib.Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", title).strip().lower() for title in titles)
    return {title.replace(" ", "-") for title in kept}


@pytest.fixture
def save_files(tmp_path, monkeypatch):
    """Saves the examples of a page where they are imported from."""

    def save(page):
        monkeypatch.syspath_prepend(str(tmp_path))
        for name, example in files(page).items():
            (tmp_path / f"{name}.py").write_text(example)
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()

    return save


def test_the_example_of_the_pure_functions_runs(capsys):
    exec(block_with("jax.value_and_grad", "python"), {})
    bits = float(re.search(r"I\(T; Y\) = (\S+) bits", capsys.readouterr().out)[1])
    assert 0 < bits < 1  # two balanced classes


def test_a_loss_of_ones_own_trains_by_the_command_that_is_given(
    save_files, tmp_path, monkeypatch
):
    save_files(README)
    assert len(files(README)["my_loss"].splitlines()) <= 12
    name, (_, *arguments) = next(
        (name, words)
        for name, words in commands(README)
        if any("my_loss:target_information" in word for word in words)
    )
    assert name == "run"
    small = "epochs=1 model.widths=4 model.pools=1 dataset.samples=128 "
    small += "analysis.every_epochs=0"
    arguments += [f"--config.{setting}" for setting in small.split()]
    monkeypatch.chdir(tmp_path)
    command_line.main(
        importlib.import_module("dib_jax.commands.run").main,
        command="experiments.run",
        arguments=[
            f"--config={ROOT}/configs/digits_cnn.py:quick",
            "--workdir=run",
            *arguments,
        ],
    )
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().split("\n")[0])
    assert line["loss"] == pytest.approx(
        line["task_loss"] - 0.2 * line["target_information"], rel=1e-4
    )
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["objective"]["weight"] == 0.2
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_readme_is_short():
    assert 700 <= len(README.read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_path_that_a_page_names_is_there(page):
    missing = []
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    if page in TODAY:
        paths = re.findall(r"(?<![\w/])configs/[\w/]+\.py", text)
        missing += [path for path in paths if not (ROOT / path).is_file()]
    assert missing == []


@pytest.mark.parametrize("page", TODAY, ids=named)
def test_every_command_that_a_page_shows_can_be_given(page, save_files, monkeypatch):
    save_files(page)
    monkeypatch.chdir(ROOT)
    for name, words in commands(page):
        assert (ROOT / "experiments" / f"{name}.py").is_file()
        for placeholder, value in PLACEHOLDERS.items():
            words = [word.strip("[]").replace(placeholder, value) for word in words]
        configs = [word for word in words if word.startswith("--config=")]
        if not configs or "NAME" in configs[0] or "FILE" in configs[0]:
            continue
        if name == "run":
            words = [word for word in words if word != "--help"]
            command_line.read_request(words, help="")
        else:
            command_line.load_config(configs[0].removeprefix("--config="))


def test_every_field_that_a_page_names_is_one():
    fields = set(schema({}))
    for section, package in FACTORIES.items():
        for name in registry.known(package):
            options = registry.options(registry.find(package, name))
            fields |= {f"{section}.{option}" for option in options}
    sections = {field.partition(".")[0] for field in fields if "." in field}
    pattern = rf"(?<![\w.:/])((?:{'|'.join(sections)}|schedule)\.[a-z_]+)(?![\w(.])"
    for page in TODAY:
        if page.name == "CONTRIBUTING.md":
            continue
        spans = re.findall(r"`([^`\n]+)`", prose(page))
        wrong = [
            field
            for span in spans
            for field in re.findall(pattern, span)
            if field not in fields
        ]
        assert (page.name, wrong) == (page.name, [])


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_every_example_in_python_imports_what_is_there(page):
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")
        imports = re.findall(
            r"^(?:from dib_jax\S* import (?:\([^)]*\)|.*)|import .*)$",
            block,
            re.MULTILINE,
        )
        exec("\n".join(imports), {})


@pytest.mark.parametrize("name", ["alignment", "leftovers", "breast_cancer"])
def test_examples_of_whole_files_are_those_that_are_tested(name):
    page = ROOT / "docs" / ("data.md" if name == "breast_cancer" else "algorithms.md")
    assert files(page)[name] == (ROOT / "tests" / "outside" / f"{name}.py").read_text()
