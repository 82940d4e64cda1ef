"""The layout of the package: who may import whom, and who may name whom."""

import ast
import configparser
import os
import pathlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest

import dib_jax
from dib_jax.training import build
from experiments import command_line

PACKAGE = pathlib.Path(dib_jax.__file__).parent
ROOT = PACKAGE.parent

# Room → the rooms it may import.
ALLOWED = {
    "information": set(),
    "models": set(),
    "data": set(),
    "checkpoints": set(),
    "tasks": {"information", "models"},
    "objectives": {"information", "models"},
    "training": {"objectives", "tasks", "models", "data", "checkpoints"},
    "analysis": {"information", "tasks", "models", "data", "training", "checkpoints"},
}
# Packages of others that a room may import, where the room promises to be light.
LIGHT = {"information": {"jax"}, "models": {"jax", "flax"}}
# A learning-rate schedule and a head share this word, and nothing else.
HOMONYMS = {
    ("optimizers.py", "linear"),
    ("optimizers.py", "momentum"),
    ("config.py", "augmented"),
    ("config.py", "momentum"),
}


def sources(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.rglob("*.py"))


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, module: str = "", *, is_package: bool = False) -> set[str]:
    """Dotted names of all that a module imports, also late or by import_module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                up = node.level - is_package
                parts = module.split(".")[: len(module.split(".")) - up]
                home = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {f"{home}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"^dib_jax\.[a-z_][\w.]*", node.value))
    return found


def rooms(names: Iterable[str]) -> set[str]:
    """Which rooms of the package some imported names lie in."""
    ours = {name for name in names if name.split(".")[0] == "dib_jax"}
    return {name.split(".")[1] for name in ours if "." in name} & ALLOWED.keys()


def test_every_room_of_the_package_is_in_the_table():
    found = {
        module.name
        for module in pkgutil.iter_modules([str(PACKAGE)])
        if not module.name.startswith("_")
    }
    assert found == ALLOWED.keys()


@pytest.mark.parametrize("path", sources(PACKAGE), ids=module_name)
def test_imports_point_only_where_the_design_lets_them(path):
    module = module_name(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = imports(tree, module, is_package=path.stem == "__init__")
    room = module.split(".")[1] if "." in module else ""
    allowed = ALLOWED[room] | {room} if room else set()
    assert rooms(found) <= allowed
    # The commands and configs are above the package.
    assert not {name for name in found if name.split(".")[0] in TOPS_ABOVE}
    if room in LIGHT:
        others = {name.split(".")[0] for name in found} - {"dib_jax"}
        assert others - sys.stdlib_module_names <= LIGHT[room]


TOPS_ABOVE = {"experiments", "configs", "tests"}


@pytest.mark.parametrize(
    ("text", "room"),
    [
        ("import dib_jax.models.vgg", "models"),
        ("from dib_jax import data", "data"),
        ("from dib_jax.tasks import Task", "tasks"),
        ("def f():\n    from dib_jax.training.build import find", "training"),
        ("import importlib\nimportlib.import_module('dib_jax.analysis.x')", "analysis"),
        ("x = f'dib_jax.objectives.{name}'", "objectives"),
        ("from ..models import vgg", "models"),
        ("from .. import checkpoints", "checkpoints"),
        ("from . import gram", "information"),
        ("import jax, numpy\nfrom jax import data", None),
    ],
)
def test_the_check_of_imports_sees_every_way_to_import(text, room):
    found = rooms(imports(ast.parse(text), "dib_jax.information.entropy"))
    assert found == ({room} if room else set())


def test_a_packages_own_relative_imports_are_its_own():
    tree = ast.parse("from . import gram\nfrom .gram import x")
    assert rooms(imports(tree, "dib_jax.information", is_package=True)) == {
        "information"
    }


def data_sets() -> set[str]:
    """Names of data sets: modules that load one, and what the configs ask for."""
    found = set()
    for path in (PACKAGE / "data").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                parameters = [*node.args.posonlyargs, *node.args.args]
                if [p.arg for p in parameters[:1]] == ["data_dir"]:
                    found.add(path.stem)
    for path in (ROOT / "configs").glob("*.py"):
        found.add(command_line.load_config(str(path)).config.dataset.name)
    return found


def exchangeable() -> set[str]:
    """Names of losses, networks, heads, tasks and data sets."""
    packages = ("objectives", "models", "models.heads", "tasks")
    return data_sets().union(*(build.known(package) for package in packages))


def test_the_names_are_found():
    names = exchangeable()
    assert {"dib", "cross_entropy", "vgg", "linear", "classification"} <= names
    assert {"digits", "cifar10"} <= names
    assert not {"augment", "convolution", "split", "name"} & names


def named(tree: ast.Module, names: set[str]) -> Iterator[str]:
    """Those of `names` that stand in a module: as identifiers, or words in strings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        words: list[str] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = re.findall(r"\w+", node.value) if id(node) not in docstrings else []
        elif isinstance(node, ast.alias):
            words = [*node.name.split("."), node.asname or ""]
        elif isinstance(node, ast.ImportFrom):
            words = (node.module or "").split(".")
        else:
            found = [
                getattr(node, kind, None) for kind in ("id", "attr", "arg", "name")
            ]
            words = [word for word in found if isinstance(word, str)]
        yield from names.intersection(words)


@pytest.mark.parametrize("path", sources(PACKAGE / "training"), ids=module_name)
def test_training_names_no_loss_network_head_task_or_data_set(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {(path.name, name) for name in named(tree, exchangeable())}
    assert found - HOMONYMS == set()


def test_the_homonyms_are_still_there():
    for file, name in HOMONYMS:
        tree = ast.parse((PACKAGE / "training" / file).read_text(encoding="utf-8"))
        assert name in named(tree, exchangeable())


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        ('if config.objective.name == "dib":\n    pass', True),
        ('print("use the dib loss")', True),
        ('x = f"objectives.dib:{y}"', True),
        ("from dib_jax.objectives import dib", True),
        ("import dib_jax.objectives.dib as loss", True),
        ("from dib_jax.objectives.dib import x", True),
        ("loss = objectives.dib(alpha=2)", True),
        ("def dib():\n    return 1", True),
        ("f(dib=3)", True),
        ('"""About dib."""\n\n\ndef f():\n    """As dib does."""', False),
        ("import dib_jax\nfrom dib_jax.training import steps", False),
        ("x = adib + dib_ + 'dib_jax'  # dib", False),
    ],
)
def test_the_check_of_names_sees_code_and_not_docstrings(text, is_named):
    assert (set(named(ast.parse(text), {"dib"})) == {"dib"}) is is_named


def test_nothing_is_called_utils_common_or_helpers():
    words = {"utils", "util", "common", "helpers", "helper", "misc"}
    files = [*sources(PACKAGE), *sources(ROOT / "experiments")]
    assert len(files) > 10
    for path in files:
        assert not words.intersection(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", sources(ROOT / "configs"), ids=lambda path: path.stem)
def test_a_config_imports_neither_jax_nor_the_package(path):
    found = imports(ast.parse(path.read_text(encoding="utf-8")))
    assert {name.split(".")[0] for name in found} <= {"ml_collections"}


IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
names = ("tensorflow", "torch", "flax", "optax", "orbax")
heavy = [name for name in names if name in sys.modules]
bridge = sys.modules.get("jax._src.xla_bridge")
print(",".join(heavy), bridge is not None and len(bridge._backends))
"""


def import_in_a_new_process(*modules: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL, *modules],
        env={**os.environ, "JAX_PLATFORMS": "no_such_backend", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n").split(" ")


def test_importing_everything_starts_no_backend_and_no_tensorflow():
    modules = [
        module_name(path)
        for folder in ("dib_jax", "experiments")
        for path in sources(ROOT / folder)
    ]
    heavy, backends = import_in_a_new_process(*modules)
    assert heavy == "flax,optax,orbax"
    assert backends == "0"


def test_the_information_measures_need_neither_flax_nor_optax():
    heavy, backends = import_in_a_new_process("dib_jax.information")
    assert heavy == ""
    assert backends in ("0", "False")


def test_a_command_line_is_read_before_jax_is_there():
    heavy, backends = import_in_a_new_process("experiments.command_line")
    assert (heavy, backends) == ("", "False")


def floors(lines: Iterable[str], sign: str) -> dict[str, str]:
    pairs = (line.split("#")[0].strip().partition(sign) for line in lines)
    return {name: version for name, _, version in pairs if name and version}


def test_the_constraints_of_ci_are_the_floors_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = floors(setup["options"]["install_requires"].splitlines(), ">=")
    wanted |= floors(setup["options.extras_require"]["test"].splitlines(), ">=")
    constraints = (ROOT / ".ci" / "floors.txt").read_text(encoding="utf-8")
    pinned = floors(constraints.splitlines(), "==")
    assert pinned.keys() == wanted.keys()
    for name, version in pinned.items():  # a floor of 2.3 may be pinned as 2.3.1
        assert f"{version}.".startswith(f"{wanted[name]}."), name
