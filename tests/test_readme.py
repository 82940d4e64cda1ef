"""The README and the pages of documentation, as a reader would use them.

Every block of code is run, in the order of its page: Python is executed, and commands
are read by their own readers of arguments, short of the work. `<!-- not run: why -->`
before a block says that it is not, and why.
"""

import configparser
import importlib.util
import json
import pathlib
import re
import shlex
import subprocess
import sys
import types
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image
from test_configs import trace

import dib_jax
from dib_jax.commands import benchmark, command_line, registry
from dib_jax.commands.config import FACTORIES, schema
from dib_jax.commands.export import export

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = [README, *sorted(ROOT.glob("docs/*.md"))]
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS[1:], *sorted(ROOT.glob("results/*.md"))]
TODAY = [page for page in PAGES if page.name != "CHANGELOG.md"]
OURS = {path.stem for path in ROOT.glob("dib_jax/**/*.py")}
# What stands for a value in a command, and one that it may have.
PLACEHOLDERS = {"SEED": "1", "DIR": "data", "$W": "64,64"}
GUIDES = [ROOT / "CONTRIBUTING.md", *DOCS]
# Whose Python is run here; that of one is in tests/information/test_documentation.py.
RUN = [page for page in GUIDES if page.name != "information.md"]
# How many blocks of a page say that they are not run.
NOT_RUN = {"graphs.md": 1}
SHELL = ("", "bash", "console", "sh")
# Programs that are not ours, whose arguments are theirs to read.
OUTSIDE = {"gcloud", "mkdocs", "mypy", "ruff", "srun", "tensorboard"}
# Where a command starts to work, once it has read its command line.
WORK = (
    "analyze.analyze",
    "compare._check",
    "evaluate._check_seeds",
    "export.export",
    "predict.predict",
    "prepare.prepare",
    "run.keep_programs",
    "run.load_run",
)


class Block(NamedTuple):
    """Code of a page.

    Attributes:
        language: what stands behind the opening fence.
        code: between the fences.
        file: the name of the file, without its ending, that it is to be saved in.
        reason: why it is not run; "" where it is.
    """

    language: str
    code: str
    file: str
    reason: str


class Read(Exception):
    """A command has read its command line, and would start to work."""


def named(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: pathlib.Path) -> list[Block]:
    """A file is named before its block, or before an earlier one of its section."""
    text = page.read_text(encoding="utf-8")
    parts = re.split(r"^```(.*)\n((?s:.*?))^```$", text, flags=re.MULTILINE)
    found, file = [], ""
    for before, language, code in zip(*(parts[i::3] for i in range(3)), strict=False):
        if re.search("^#+ ", before, re.MULTILINE):
            file = ""
        names = [n for n in re.findall(r"`(\w+)\.py`", before) if n not in OURS]
        if language == "python" and names:
            file = names[-1]
        reason = re.search(r"<!-- not run: (.*?) -->\s*\Z", before, re.DOTALL)
        kept = file if language == "python" else ""
        found.append(Block(language, code, kept, reason[1] if reason else ""))
    return found


def files(page: pathlib.Path) -> dict[str, str]:
    """The examples that a page tells to save, by name."""
    found: dict[str, list[str]] = {}
    for block in blocks(page):
        if block.file:
            found.setdefault(block.file, []).append(block.code)
    return {name: "\n\n".join(parts) for name, parts in found.items()}


def prose(page: pathlib.Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Name and arguments of each command of ours in a block."""
    found = re.findall(
        r"python -m (?:experiments|dib_jax\.commands)\.(\w+)([^\n#\"|]*)",
        text.replace("\\\n", ""),
    )
    return [(name, shlex.split(re.sub(r" \(or \w+\)", "", a))) for name, a in found]


def spans(page: pathlib.Path) -> list[list[str]]:
    """Arguments of `experiments.run` that sentences give for the page's own files."""
    own = "|".join(files(page)) or "-"
    found = re.findall(rf"`(--config[^`]*name=(?:{own}):[^`]*)`", prose(page))
    usual = "--config=configs/digits_cnn.py:quick "
    return [shlex.split(s if "--config=" in s else usual + s) for s in found]


def anchors(page: pathlib.Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", title).strip().lower() for title in titles)
    return {title.replace(" ", "-") for title in kept}


def programs(code: str) -> list[list[str]]:
    """The words of each call of a program in a block."""
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)
    found: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        words.whitespace_split = True
        found.append([])
        for word in words:
            if word[0] in "&|;":
                found.append([])
            elif found[-1] or not re.match(r"\w+=", word):
                found[-1].append(word)
    return [words for words in found if words]


def check_program(words: list[str]) -> None:
    """Refuse what cannot be called so."""
    program, *rest = words
    if program == "pip":
        assert rest[0] == "install"
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg", encoding="utf-8")
        for word in rest[1:]:
            if not word.startswith("-"):
                wanted = Requirement(re.sub(r"^\.", "dib_jax", word))
                own = wanted.extras if wanted.name == "dib_jax" else set()
                assert own <= set(setup["options.extras_require"]), word
    elif program == "python":
        assert rest[0] == "-m"
        file = ROOT / f"{rest[1].replace('.', '/')}.py"
        assert file.is_file() or importlib.util.find_spec(rest[1])
        paths = [word for word in rest[2:] if word.startswith("tests/")]
        assert all((ROOT / path).exists() for path in paths)
    else:
        assert program in OUTSIDE or (ROOT / program).is_file(), program


@pytest.fixture
def run_page(tmp_path, monkeypatch):
    """Runs the blocks of a page in a folder of its own; its names are returned."""

    def stop(*args, **options):
        raise Read

    for place in WORK:
        monkeypatch.setattr(f"dib_jax.commands.{place}", stop)
    loader = types.SimpleNamespace(import_module=stop)
    monkeypatch.setattr(benchmark, "importlib", loader)
    monkeypatch.setattr(benchmark, "_ONE_THREAD", ())
    monkeypatch.setattr(command_line, "find_workdir", of_a_config)
    # The folder of a page's example may hold a smaller run.
    monkeypatch.setattr(command_line, "check_workdir", lambda workdir, config: None)
    monkeypatch.chdir(tmp_path)

    def run(page):
        save(page, tmp_path, monkeypatch)
        # Classes ask for the module that they are in.
        module = types.ModuleType("page")
        monkeypatch.setitem(sys.modules, "page", module)
        scope = vars(module)
        for block in blocks(page):
            if block.language in SHELL:
                for name, words in commands(block.code):
                    read_command(name, words)
                for words in programs(block.code) if page in GUIDES else ():
                    check_program(words)
            elif block.language == "python" and page in RUN:
                execute(block, page.name, scope)
        for words in spans(page):
            read_command("run", words)
        return scope

    return run


def execute(block, name, scope):
    """Run a block of Python after those before it, whose names are in the scope."""
    code = compile(block.code, name, "exec")
    if block.file:
        module = importlib.import_module(block.file)
        scope |= {k: v for k, v in vars(module).items() if k[0] != "_"}
    elif not block.reason:
        exec(code, scope)


def save(page, folder, monkeypatch):
    """Write the examples of a page where they are imported from."""
    monkeypatch.syspath_prepend(str(folder))
    for name, example in files(page).items():
        (folder / f"{name}.py").write_text(example)
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()


def of_a_config(flags):
    """A run's folder as the command names it: of a config that is there."""
    name = re.match(r"runs/(\w+)-\w+-seed", flags["workdir"])
    assert not name or (ROOT / "configs" / f"{name[1]}.py").is_file()
    workdir = pathlib.Path(flags["workdir"])
    if "exits" in flags:  # as if `evaluate --exits` had been there
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "exits.json").write_text('{"rule": "confidence", "tau": 0.5}')
    return workdir


def read_command(name, words):
    """Have a command read its arguments; what is somebody's own is traced, too."""
    for placeholder, value in PLACEHOLDERS.items():
        words = [word.strip("[]").replace(placeholder, value) for word in words]
    if any(re.match("--config=.*(NAME|FILE)", word) for word in words):
        return  # the form of a command, of any config
    main = importlib.import_module(f"dib_jax.commands.{name}").main
    with pytest.raises((Read, SystemExit)) as ended:
        main(words)
    assert getattr(ended.value, "code", None) in (None, 0)
    is_own = any(re.match(r"--config\.\w+\.name=\w+:", word) for word in words)
    data = [word.partition("=")[2] for word in words if "dataset.data_dir=" in word]
    if is_own or any(pathlib.Path(folder).is_dir() for folder in data):
        config = command_line.read_request(words, help="").config
        trace(config, config.dataset.data_dir)


def test_the_blocks_of_the_readme_run(run_page, capsys):
    run_page(README)
    bits = float(re.search(r"I\(T; Y\) = (\S+) bits", capsys.readouterr().out)[1])
    assert 0 < bits < 1  # two balanced classes


@pytest.mark.parametrize(
    "page", [p for p in TODAY if p.name not in ("README.md", "python.md")], ids=named
)
def test_the_blocks_of_a_page_run(page, run_page):
    run_page(page)


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_every_block_is_run_or_says_why_not(page):
    for block in blocks(page):
        assert block.language in (*SHELL, "python", "json", "yaml", "text")
        if block.language == "json":
            json.loads(block.code)
        if block.language == "yaml":
            yaml.safe_load(block.code)
    reasons = [block.reason for block in blocks(page) if block.reason]
    assert len(reasons) == NOT_RUN.get(page.name, 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of the README's own loss, on less: its folder."""
    folder = tmp_path_factory.mktemp("trained")
    name, (_, *words) = next(
        (name, words)
        for block in blocks(README)
        for name, words in commands(block.code)
        if any("my_loss:target_information" in word for word in words)
    )
    assert name == "run"
    small = "epochs=1 model.widths=4 model.pools=1 dataset.samples=128 "
    small += "analysis.every_epochs=0"
    with pytest.MonkeyPatch.context() as monkeypatch:
        save(README, folder, monkeypatch)
        monkeypatch.chdir(folder)
        command_line.main(
            importlib.import_module("dib_jax.commands.run").main,
            command="experiments.run",
            arguments=[
                f"--config={ROOT}/configs/digits_cnn.py:quick",
                "--workdir=runs/digits_cnn-quick-seed0",
                *words,
                *(f"--config.{setting}" for setting in small.split()),
            ],
        )
        yield folder / "runs" / "digits_cnn-quick-seed0"


def test_a_loss_of_ones_own_trains_by_the_command_that_is_given(trained):
    assert len(files(README)["my_loss"].splitlines()) <= 12
    line = json.loads((trained / "metrics.jsonl").read_text().split("\n")[0])
    assert line["loss"] == pytest.approx(
        line["task_loss"] - 0.2 * line["target_information"], rel=1e-4
    )
    settings = json.loads((trained / "config.json").read_text())
    assert settings["objective"]["weight"] == 0.2
    assert (trained / "report.html").is_file()


def test_a_finished_run_is_used_from_python_as_its_page_says(
    trained, run_page, tmp_path, monkeypatch
):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / trained.name).symlink_to(trained)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    Image.fromarray(pictures[0, ..., 0]).save(tmp_path / "digit.png")
    page = run_page(ROOT / "docs" / "python.md")
    export(trained, tmp_path)
    expected = dib_jax.load(trained).outputs(pictures)
    np.testing.assert_allclose(page["outputs"](pictures), expected, atol=1e-5)
    watched = []
    module = types.SimpleNamespace(log=watched.append)
    module.init = lambda project, name: module
    monkeypatch.setitem(sys.modules, "wandb", module)
    line = json.loads((trained / "metrics.jsonl").read_text().split("\n")[0])
    page["wandb"](trained)(line)
    assert watched[0]["stage 0/train/loss"] == line["loss"]


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


@pytest.mark.parametrize("name", ["alignment", "leftovers", "breast_cancer"])
def test_examples_of_whole_files_are_those_that_are_tested(name):
    page = ROOT / "docs" / ("data.md" if name == "breast_cancer" else "algorithms.md")
    assert files(page)[name] == (ROOT / "tests" / "outside" / f"{name}.py").read_text()
