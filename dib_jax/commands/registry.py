"""Finding by name what a config chooses, and reading which options it takes.

A config names a network, a head, a loss or a task; its factory is a function of
that name in a module of that name. So a new one is one new file, and no table here
or elsewhere has to learn of it. What can be set is read off the factory's signature,
and what it means off the `Args:` section of its docstring.
"""

import contextlib
import difflib
import importlib
import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from dib_jax.commands import surroundings


class Option(NamedTuple):
    """What a config may set: a field of the engine's, or a keyword of a factory.

    Attributes:
        type: the annotation; `typing.Any` where there is none.
        default: what a config without it means.
        meaning: for `--help`; "" where its docstring does not say.
    """

    type: Any
    default: Any
    meaning: str


def find(package: str, name: str, *, root: str = "dib_jax") -> Callable[..., Any]:
    """The factory that a config means by `name`.

    Args:
        package: the folder to look in, dotted: "objectives", "models.heads".
        name: the module in that folder, which holds a function of the same name;
            or "module:attribute" for a factory of somebody's own.
        root: the package that `package` is in.

    Returns:
        The factory, not yet called.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
        dib_jax.commands.surroundings.StartError: JAX does not start.
    """
    surroundings.import_jax()
    kind = package.rpartition(".")[2].removesuffix("s").replace("_", " ")
    if not isinstance(name, str):
        raise ValueError(f"got {name!r}; the name of the {kind} must be a string")
    if ":" in name:
        return _find_elsewhere(kind, name)
    modules = _modules(package, root)
    if name in modules and _defines_itself(modules[name]):
        return getattr(importlib.import_module(f"{root}.{package}.{name}"), name)
    names = known(package, root=root)
    raise ValueError(
        f"unknown {kind} {name!r}; must be one of {', '.join(names) or 'none'}, "
        f'or "module:attribute" for one of your own{nearest(name, names)}'
    )


def known(package: str, *, root: str = "dib_jax") -> list[str]:
    """The names that `find` knows.

    Args:
        package: as for `find`.
        root: as for `find`.
    """
    modules = _modules(package, root).items()
    return sorted(name for name, path in modules if _defines_itself(path))


def _modules(package: str, root: str) -> dict[str, pathlib.Path]:
    folders = importlib.import_module(f"{root}.{package}").__path__
    return {
        path.stem: path for home in folders for path in pathlib.Path(home).glob("*.py")
    }


def _defines_itself(path: pathlib.Path) -> bool:
    # Read, not imported: somebody's unfinished module beside the others does no harm.
    text = path.read_text(encoding="utf-8", errors="replace")
    return bool(re.search(rf"^(?:def|class) {path.stem}\b", text, re.MULTILINE))


def _find_elsewhere(kind: str, name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    wrong = f"unknown {kind} {name!r}; "
    form = 'one of your own is named "module:attribute"'
    if not (attribute.isidentifier() and module_name.replace(".", "_").isidentifier()):
        raise ValueError(f"{wrong}{form}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # it is there, and imports what is not
        raise ValueError(
            f"{wrong}{form}, and there is no module {module_name!r} in the current "
            "folder or installed"
        ) from None
    factory = getattr(module, attribute, None)
    if callable(factory):
        return factory
    names = [
        n
        for n, value in vars(module).items()
        if callable(value) and n[0] != "_" and value.__module__ == module_name
    ]
    raise ValueError(
        f"{wrong}the module has {', '.join(sorted(names)) or 'none'}"
        f"{nearest(attribute, names)}"
    )


def nearest(given: str, known: Iterable[str], *, form: str = "{!r}") -> str:
    """The end of an error message: "; did you mean …?", or "" where nothing is near.

    Args:
        given: what was written.
        known: what could have been meant.
        form: how the suggestion is shown, a format string.
    """
    spelt = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), spelt, n=1, cutoff=0.5)
    return f"; did you mean {form.format(spelt[close[0]])}?" if close else ""


@contextlib.contextmanager
def prefixed(words: str) -> Iterator[None]:
    """Put words in front of the message of a `ValueError` that is raised meanwhile.

    Args:
        words: with what parts them from the message.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{words}{error}") from None


def build(package: str, settings: Mapping[str, Any], **known: Any) -> Any:
    """What the factory that a section of a config names makes of its options.

    Args:
        package: as for `find`.
        settings: the name of the factory, and its options.
        known: what the engine can tell; a factory gets what it asks for.

    Raises:
        ValueError: there is no such factory, it refuses an option, or it asks for what
            is not known.
    """
    factory = find(package, settings["name"])
    wanted = supplied(factory)
    if missing := [name for name in wanted if name not in known]:
        raise ValueError(
            f"{settings['name']} asks for {', '.join(missing)}; what it can be told is "
            f"{', '.join(known) or 'nothing'}; all else must have a default"
        )
    chosen = {name: value for name, value in settings.items() if name != "name"}
    return factory(**chosen, **{name: known[name] for name in wanted})


def options(factory: Callable[..., Any]) -> dict[str, Option]:
    """What a config may set of a factory: its keywords that have a default.

    Keywords without a default (`num_classes`, say) are known only when the data are;
    whoever calls the factory passes them.

    Args:
        factory: a function or named tuple with annotated parameters and a docstring
            with a section `Args:` or `Attributes:`.

    Returns:
        Option by name, in the order of the signature.
    """
    meanings = _meanings(inspect.getdoc(factory) or "")
    return {
        name: Option(
            Any if parameter.annotation is parameter.empty else parameter.annotation,
            parameter.default,
            meanings.get(name, ""),
        )
        for name, parameter in _keywords(factory).items()
        if parameter.default is not parameter.empty
    }


def supplied(factory: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of what the engine passes: parameters without a default.

    Args:
        factory: as for `options`.
    """
    return {
        name: parameter.annotation
        for name, parameter in _keywords(factory).items()
        if parameter.default is parameter.empty
    }


def _keywords(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        signature = inspect.signature(factory, eval_str=True)
    except NameError:  # an annotation that only a type checker can resolve
        signature = inspect.signature(factory)
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {n: p for n, p in signature.parameters.items() if p.kind in named}


_SECTION = re.compile(
    r"^(?:Args|Arguments|Keyword Args|Attributes):[ ]*\n((?:[ ]+.*\n|\n)+)",
    re.MULTILINE,
)
_ENTRY = re.compile(
    r"^(?P<names>[*\w]+(?:, *[*\w]+)*) *(?:\([^)]*\))?:(?P<text>.*(?:\n .*)*)",
    re.MULTILINE,
)


def _meanings(docstring: str) -> dict[str, str]:
    """The entries of Google-style sections of a docstring, wrapped lines joined."""
    return {
        name.strip(" *"): " ".join(entry["text"].split())
        for section in _SECTION.findall(f"{docstring}\n")
        for entry in _ENTRY.finditer(re.sub(r"\n\s*\n", "\n", textwrap.dedent(section)))
        for name in entry["names"].split(",")
    }
