"""The layout of the package: who may import whom, and who may name whom."""

import ast
import configparser
import functools
import os
import pathlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest

import dib_jax
from dib_jax.commands import command_line, registry

PACKAGE = pathlib.Path(dib_jax.__file__).parent
ROOT = PACKAGE.parent

# Room → the rooms it may import.
ALLOWED = {
    "information": set(),
    "models": set(),
    "data": set(),
    "checkpoints": set(),
    "settings": set(),
    "linear": set(),
    "tasks": {"information", "models"},
    "objectives": {"information", "models"},
    "algorithms": {"objectives", "tasks", "models", "information"},
    "training": {"algorithms", "tasks", "data", "checkpoints", "settings"},
    "analysis": {
        "information", "tasks", "models", "data", "algorithms", "training",
        "checkpoints", "settings",
    },
}  # fmt: skip
ALLOWED["commands"] = {*ALLOWED}
# Packages of others that a room may import, where the room promises to be light.
LIGHT = {"information": {"jax", "numpy"}, "linear": {"jax"}, "models": {"jax", "flax"}}
# What an algorithm knows and the loop does not, beside the names of whatever a config
# chooses. In files and messages an exit is called by `records.LABEL`.
UNKNOWN_TO_THE_LOOP = {
    "head", "gradient", "stage", "picture", "image", "box", "accuracy", "ap50",
}  # fmt: skip
LABEL = ("records.py", "stage")
LONGEST_FUNCTION = 60
LONGEST_LOOP = 250


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
    # The package itself has `load`, which is a command for Python.
    allowed = ALLOWED[room] | {room} if room else {"commands"}
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
        ("def f():\n    from dib_jax.training.train import train", "training"),
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


@functools.cache
def exchangeable() -> set[str]:
    """Names of losses, networks, heads, tasks, algorithms and data sets."""
    packages = ("objectives", "models", "models.heads", "tasks", "algorithms")
    return data_sets().union(*(registry.known(package) for package in packages))


def test_the_names_are_found():
    names = exchangeable()
    assert {"dib", "cross_entropy", "vgg", "linear", "classification"} <= names
    assert {"sequential", "parallel", "end_to_end"} <= names
    assert {"digits", "cifar10"} <= names
    assert not {"augment", "convolution", "split", "name", "blocks"} & names


def texts(tree: ast.Module) -> Iterator[str]:
    """Identifiers and strings of a module, its docstrings left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "jax":
            continue  # such as `jax.stages`
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value
        elif isinstance(node, ast.alias):
            yield from (node.name, node.asname or "")
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        else:
            found = [
                getattr(node, kind, None) for kind in ("id", "attr", "arg", "name")
            ]
            yield from (word for word in found if isinstance(word, str))


def named(tree: ast.Module, names: set[str]) -> set[str]:
    """Those of `names` that stand in a module: as identifiers, or words in strings."""
    found = (re.findall(r"\w+", text) for text in texts(tree))
    return names.intersection(*[{word for words in found for word in words}])


def spoken(tree: ast.Module, words: set[str]) -> set[str]:
    """Those of `words` that a module uses, also as a part of a name or as a plural."""
    found = set()
    for text in texts(tree):
        for part in re.findall(r"[a-z0-9]+", text.lower()):
            found |= {part, part.removesuffix("s"), part.removesuffix("es")}
    return words & found


@pytest.mark.parametrize("path", sources(PACKAGE / "training"), ids=module_name)
def test_training_names_no_loss_network_head_task_algorithm_or_data_set(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert named(tree, exchangeable()) == set()


@pytest.mark.parametrize("path", sources(PACKAGE / "training"), ids=module_name)
def test_training_does_not_know_what_a_step_or_a_sample_is_made_of(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {(path.name, word) for word in spoken(tree, UNKNOWN_TO_THE_LOOP)}
    assert found - {LABEL} == set()


def test_the_label_of_an_exit_stands_in_one_place():
    path = PACKAGE / "training" / LABEL[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (assigned,) = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "LABEL"
    ]
    assert ast.literal_eval(assigned.value) == LABEL[1]
    tree.body.remove(assigned)
    assert spoken(tree, {LABEL[1]}) == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def aux_head():\n    return 1", {"head"}),
        ("x = batch['images']", {"image"}),
        ("print(f'stage {n} has {boxes}')", {"stage", "box"}),
        ("from x import gradients", {"gradient"}),
        ("AP50 = 1", {"ap50"}),
        ("x.stage_input", {"stage"}),
        ("import jax\nx: jax.stages.Lowered", set()),
        ("import ahead\nheader = 'overheads'", set()),
        ('def f():\n    """Of the head."""  # its image', set()),
    ],
)
def test_the_check_of_words_sees_parts_and_plurals(text, found):
    assert spoken(ast.parse(text), UNKNOWN_TO_THE_LOOP) == found


def functions(path: pathlib.Path) -> dict[str, int]:
    """Lines of each function of a file, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize(
    "path",
    [*sources(PACKAGE / "training"), *sources(PACKAGE / "algorithms")],
    ids=module_name,
)
def test_a_function_of_the_loop_or_an_algorithm_is_read_at_a_glance(path):
    long = {n: size for n, size in functions(path).items() if size > LONGEST_FUNCTION}
    assert long == {}


def test_the_loop_is_short():
    text = (PACKAGE / "training" / "train.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_LOOP
    assert functions(PACKAGE / "training" / "train.py")["train"] > 10


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
        ("import dib_jax\nfrom dib_jax.training import records", False),
        ("x = adib + dib_ + 'dib_jax'  # dib", False),
    ],
)
def test_the_check_of_names_sees_code_and_not_docstrings(text, is_named):
    assert (named(ast.parse(text), {"dib"}) == {"dib"}) is is_named


def test_nothing_is_called_utils_common_or_helpers():
    words = {"utils", "util", "common", "helpers", "helper", "misc"}
    files = [*sources(PACKAGE), *sources(ROOT / "experiments")]
    assert len(files) > 10
    for path in files:
        assert not words.intersection(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", sources(ROOT / "configs"), ids=lambda path: path.stem)
def test_a_config_imports_what_checks_configs_and_nothing_else(path):
    found = imports(ast.parse(path.read_text(encoding="utf-8")))
    allowed = {f"dib_jax.commands.{name}" for name in ("config", "recipes")}
    allowed |= {"ml_collections"}
    assert {name.rpartition(".")[0] or name for name in found} <= allowed


def test_sections_that_configs_share_import_nothing():
    text = (PACKAGE / "commands" / "recipes.py").read_text(encoding="utf-8")
    assert set(imports(ast.parse(text))) == {"typing.Any"}


def test_what_is_installed_is_the_package_alone():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    include = setup["options.packages.find"]["include"].split()
    found = installed(include)
    assert {name.partition(".")[0] for name in found} == {"dib_jax"}
    folders = {module_name(path).rpartition(".")[0] for path in sources(PACKAGE)}
    assert folders - {""} <= set(found)


def installed(include: list[str]) -> list[str]:
    """The packages that setuptools finds here."""
    done = subprocess.run(
        [sys.executable, "-c", FIND_PACKAGES, str(ROOT), *include],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return done.stdout.split()


FIND_PACKAGES = """
import sys
from setuptools import find_namespace_packages
print(*find_namespace_packages(sys.argv[1], include=sys.argv[2:]))
"""


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


def test_the_package_itself_is_light():
    heavy, backends = import_in_a_new_process("dib_jax")
    assert (heavy, backends) == ("", "False")


def test_the_information_measures_need_neither_flax_nor_optax():
    heavy, backends = import_in_a_new_process("dib_jax.information")
    assert heavy == ""
    assert backends in ("0", "False")


def test_a_command_line_is_read_before_jax_is_there():
    heavy, backends = import_in_a_new_process("dib_jax.commands.command_line")
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
