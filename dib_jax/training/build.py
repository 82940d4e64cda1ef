"""Finding by name what a config chooses, and reading which options it takes.

A config names a network, a head, a loss or a task; its factory is a function of
that name in a module of that name. So a new one is one new file, and no table here
or elsewhere has to learn of it. What can be set is read off the factory's signature,
and what it means off the `Args:` section of its docstring.
"""

import difflib
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Option(NamedTuple):
    """One keyword of a factory that a config may set."""

    name: str
    type: Any  # the annotation; typing.Any where there is none
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
    """
    kind = package.rpartition(".")[2].removesuffix("s").replace("_", " ")
    if not isinstance(name, str):
        raise ValueError(f"got {name!r}; the name of the {kind} must be a string")
    if ":" in name:
        return _find_elsewhere(kind, name)
    names = known(package, root=root)
    if name in names:
        return getattr(importlib.import_module(f"{root}.{package}.{name}"), name)
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
    home = importlib.import_module(f"{root}.{package}")
    return sorted(
        module.name
        for module in pkgutil.iter_modules(home.__path__)
        if _defines_itself(home.__path__, module.name)
    )


def _defines_itself(folders: Iterable[str], name: str) -> bool:
    # Read, not imported: somebody's unfinished module beside the others does no harm.
    for folder in folders:
        path = pathlib.Path(folder, f"{name}.py")
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            return (
                re.search(rf"^(?:def|class) {name}\b", text, re.MULTILINE) is not None
            )
    return False


def _find_elsewhere(kind: str, name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    form = 'one of your own is named "module:attribute"'
    if not (attribute.isidentifier() and module_name.replace(".", "_").isidentifier()):
        raise ValueError(f"unknown {kind} {name!r}; {form}")
    try:
        importable = importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError:  # a parent package is missing
        importable = False
    if not importable:
        raise ValueError(
            f"unknown {kind} {name!r}; {form}, and there is no module "
            f"{module_name!r} in the current folder or installed"
        )
    module = importlib.import_module(module_name)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        names = sorted(
            n for n, v in vars(module).items() if callable(v) and not n.startswith("_")
        )
        raise ValueError(
            f"unknown {kind} {name!r}; the module has {', '.join(names) or 'none'}"
            f"{nearest(attribute, names)}"
        )
    return factory


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


def options(factory: Callable[..., Any]) -> dict[str, Option]:
    """What a config may set of a factory: its keywords that have a default.

    Keywords without a default (`num_classes`, say) are known only when the data are;
    whoever calls the factory passes them.

    Args:
        factory: a function with annotated keyword-only parameters and a docstring with
            an `Args:` section.

    Returns:
        Option by name, in the order of the signature.
    """
    meanings = _meanings(inspect.getdoc(factory) or "")
    return {
        parameter.name: Option(
            name=parameter.name,
            type=Any if parameter.annotation is parameter.empty else annotation,
            default=parameter.default,
            meaning=meanings.get(parameter.name, ""),
        )
        for parameter, annotation in _keywords(factory)
        if parameter.default is not parameter.empty
    }


def supplied(factory: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of what the engine passes: keywords without a default.

    Args:
        factory: as for `options`.
    """
    return {
        parameter.name: annotation
        for parameter, annotation in _keywords(factory)
        if parameter.default is parameter.empty
    }


def _keywords(factory: Callable[..., Any]) -> list[tuple[inspect.Parameter, Any]]:
    try:
        signature = inspect.signature(factory, eval_str=True)
    except NameError:  # an annotation that only a type checker can resolve
        signature = inspect.signature(factory)
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        (parameter, parameter.annotation)
        for parameter in signature.parameters.values()
        if parameter.kind in named
    ]


_ENTRY = re.compile(
    r"(?P<names>\*{0,2}\w+(?:,\s*\w+)*)\s*(?:\([^)]*\))?:\s*(?P<text>.*)"
)


def _meanings(docstring: str) -> dict[str, str]:
    """The entries of a Google-style `Args:` section, wrapped lines joined."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    entry_indent: int | None = None
    inside = False
    for line in docstring.splitlines():
        indent = len(line) - len(line.lstrip())
        if not inside:
            inside = line.rstrip() in ("Args:", "Arguments:", "Keyword Args:")
            entry_indent = None
            continue
        if not line.strip():
            continue
        if indent == 0:
            inside = line.rstrip() in ("Args:", "Arguments:", "Keyword Args:")
            entry_indent = None
            continue
        entry_indent = indent if entry_indent is None else entry_indent
        entry = _ENTRY.fullmatch(line.strip()) if indent <= entry_indent else None
        if entry:
            current = [entry["text"]]
            for name in entry["names"].split(","):
                found[name.strip().lstrip("*")] = current
        else:
            current.append(line.strip())
    return {name: " ".join(" ".join(words).split()) for name, words in found.items()}
