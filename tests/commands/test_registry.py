import sys
import textwrap
from typing import Any, NamedTuple

import pytest

from dib_jax.commands import registry
from dib_jax.commands.config import FACTORIES


def spring(
    *,
    num_turns: int,
    stiffness: float = 2.5,
    ends: tuple[float, ...] = (0.0, 1.0),
    kind: "str | None" = None,
    plain=3,
):
    """A factory as those of a package are.

    Stands on two lines: this is no argument.

    Args:
        num_turns: supplied by the engine.
        stiffness: in newtons per metre, and the text
            continues: with what looks like another entry.
        ends (tuple): where it is
          fixed.
        kind, plain: described together.

    Returns:
        stiffness: not this one.
    """
    return num_turns, stiffness, ends, kind, plain


@pytest.fixture
def package(tmp_path, monkeypatch):
    files = {
        "__init__.py": "",
        "springs/__init__.py": "",
        "springs/coil.py": "def coil(*, turns: int = 3):\n    return turns\n",
        "springs/leaf.py": "class leaf:\n    pass\n",
        "springs/helper.py": "def other():\n    pass\n",
        "springs/broken.py": "def broken(:\n",
        "springs/nested/__init__.py": "def nested():\n    pass\n",
    }
    for name, text in files.items():
        path = tmp_path / "hardware" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "hardware"
    for name in [name for name in sys.modules if name.startswith("hardware")]:
        del sys.modules[name]


def test_a_factory_is_the_function_of_its_modules_name(package):
    assert registry.find("springs", "coil", root=package)() == 3


def test_known_names_are_modules_that_define_themselves(package):
    # The unfinished one is listed, for it is there; the helper and the folder are not.
    assert registry.known("springs", root=package) == ["broken", "coil", "leaf"]


def test_an_unknown_name_is_told_the_known_ones_and_the_nearest(package):
    with pytest.raises(ValueError, match="unknown spring 'coli'") as caught:
        registry.find("springs", "coli", root=package)
    assert "broken, coil, leaf" in str(caught.value)
    assert str(caught.value).endswith("; did you mean 'coil'?")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["helper", "nested", "", "coil.coil", "__init__"])
def test_what_does_not_define_itself_is_not_found(package, name):
    with pytest.raises(ValueError, match="unknown spring"):
        registry.find("springs", name, root=package)


def test_a_name_that_is_no_string_is_refused(package):
    with pytest.raises(ValueError, match="got 3; the name of the spring must be a str"):
        registry.find("springs", 3, root=package)


def test_a_mistake_inside_a_module_is_not_taken_for_a_missing_module(package):
    with pytest.raises(SyntaxError):
        registry.find("springs", "broken", root=package)


def test_somebodys_own_factory_is_found_by_module_and_attribute(package):
    found = registry.find("springs", "hardware.springs.helper:other", root=package)
    assert found.__name__ == "other"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hardware.springs.coil:coli", "the module has coil; did you mean 'coil'?"),
        ("hardwear:coil", "there is no module 'hardwear'"),
        ("hardwear.springs:coil", "there is no module 'hardwear.springs'"),
        ("hardware.springs.coil:", 'one of your own is named "module:attribute"'),
        (":coil", 'one of your own is named "module:attribute"'),
        ("../coil:coil", 'one of your own is named "module:attribute"'),
    ],
)
def test_a_wrong_name_of_ones_own_says_what_is_wrong(package, name, message):
    with pytest.raises(ValueError, match="unknown spring") as caught:
        registry.find("springs", name, root=package)
    assert message in str(caught.value)


def test_every_factory_of_the_package_is_found_and_documents_its_options():
    for package in FACTORIES.values():
        names = registry.known(package)
        assert names, package
        for name in names:
            options = registry.options(registry.find(package, name))
            for field, option in options.items():
                assert option.meaning, f"{package}.{name}: {field}"
                assert option.type is not Any, f"{package}.{name}: {field}"


def test_options_are_the_keywords_with_a_default():
    options = registry.options(spring)
    assert list(options) == ["stiffness", "ends", "kind", "plain"]
    assert registry.supplied(spring) == {"num_turns": int}
    assert options["stiffness"].type is float
    assert options["stiffness"].default == 2.5
    assert options["ends"].type == tuple[float, ...]
    assert options["kind"].type == str | None
    assert options["plain"].type is Any


def test_the_meaning_of_an_option_is_its_entry_in_the_docstring():
    options = registry.options(spring)
    assert options["stiffness"].meaning == (
        "in newtons per metre, and the text continues: with what looks like another "
        "entry."
    )
    assert options["ends"].meaning == "where it is fixed."
    assert options["kind"].meaning == options["plain"].meaning == "described together."


class Beam(NamedTuple):
    """Settings, as a section of the engine has them.

    Attributes:
        length: in metres
        load: in newtons,
            downwards

        ends: of the beam
    """

    length: float = 1.0
    load: float = 2.0
    ends: str = "free"


def test_a_named_tuple_has_options_too():
    options = registry.options(Beam)
    assert list(options) == ["length", "load", "ends"]
    assert options["load"] == (float, 2.0, "in newtons, downwards")
    assert options["ends"].meaning == "of the beam"


def test_a_factory_is_told_what_it_asks_for(package):
    spring_of = {"name": f"{__name__}:spring", "stiffness": 1.0}
    built = registry.build("springs", spring_of, num_turns=4, colour="red")
    assert built[:2] == (4, 1.0)
    with pytest.raises(ValueError, match="spring asks for num_turns; what it can be "):
        registry.build("springs", spring_of, colour="red")


def test_a_factory_without_docstring_has_options_without_meaning():
    def bare(*, size: int = 1):
        return size

    assert registry.options(bare)["size"].meaning == ""


def test_an_annotation_that_only_a_type_checker_resolves_does_not_stop_the_rest():
    namespace: dict[str, Any] = {}
    exec(
        textwrap.dedent(
            """
            def factory(*, one: "Unknown" = 1, two: int = 2):
                return one, two
            """
        ),
        namespace,
    )
    assert list(registry.options(namespace["factory"])) == ["one", "two"]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("alhpa", "; did you mean 'alpha'?"),
        ("ALPHA", "; did you mean 'alpha'?"),
        ("alphabet", "; did you mean 'alpha'?"),
        ("zzz", ""),
    ],
)
def test_nearest_suggests_only_what_is_near(given, hint):
    assert registry.nearest(given, ["alpha", "beta"]) == hint
