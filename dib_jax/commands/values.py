"""Values that a config holds: fitted to a type annotation, and read from text.

Annotations are made of int, float, str, bool, None, tuples of these, unions, `Literal`
and `Annotated[type, Allowed(…)]`; what else is annotated is passed through as it is.
"""

import ast
import contextlib
import math
import numbers
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from dib_jax.commands.registry import nearest


class Allowed(NamedTuple):
    """Which values of a type are possible.

    Attributes:
        words: they, in words.
        holds: whether a value of the type is one of them.
        names: those that have a name, to suggest one that is near.
    """

    words: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()


def fit(value: Any, annotation: Any) -> Any:
    """`value` as `annotation` wants it, where that loses nothing.

    Integers fit where floats are wanted, and lists where tuples are (JSON has only
    lists); True is no integer, and NaN is no number. Infinity is one, also written
    "inf", as `dib_jax.settings.plain` has it.

    Args:
        value: from a config file or from JSON.
        annotation: the wanted type.

    Returns:
        The value, of builtin types.

    Raises:
        ValueError: it does not fit; the message says what would.
    """
    # Its exact type first: 3 stays an integer where a float or an integer is wanted.
    for member in sorted(_members(annotation), key=lambda m: type(value) is not m):
        with contextlib.suppress(ValueError):
            return _fit_one(value, member)
    raise ValueError(_wrong(value, annotation))


def _fit_one(value: Any, annotation: Any) -> Any:
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        value = fit(value, members[0])
    elif origin is tuple and isinstance(value, tuple | list):
        wanted = members[:1] * len(value) if members[1:] == (...,) else members
        value = tuple(fit(*pair) for pair in zip(value, wanted, strict=True))
    if not _allowed(annotation).holds(value):
        raise ValueError
    return annotation(value) if annotation in (int, float, tuple) else value


def parse(text: str, annotation: Any) -> Any:
    """What `text`, written on a command line, means where `annotation` is wanted.

    Tuples are written with or without brackets: "1,2", "(1, 2)", "[1, 2]". Words in
    them need no quotes.

    Args:
        text: as given.
        annotation: the wanted type.

    Returns:
        A value that fits.

    Raises:
        ValueError: it cannot mean such a value; the message says what could.
    """
    literal = _literal(text.strip())
    # Text would take everything, and a tuple every number: these are tried last.
    for member in sorted(_members(annotation), key=_greed):
        for meant in (literal, text) if member is Any else (text, literal, (literal,)):
            with contextlib.suppress(ValueError):
                return fit(meant, member)
    raise ValueError(_wrong(text, annotation))


def _wrong(value: Any, annotation: Any) -> str:
    names = [name for m in _members(annotation) for name in _allowed(m).names]
    hint = nearest(value, names) if isinstance(value, str) else ""
    return f"must be {wording(annotation)}{hint}"


def _greed(annotation: Any) -> int:
    if annotation in (str, Any):
        return 3
    if tuple in (annotation, typing.get_origin(annotation)):
        return 2
    return int(annotation is float)  # after int, which leaves "2" an integer


_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None, "inf": math.inf}


class _Words(ast.NodeTransformer):
    """Makes a word without quotes a string, or what it is the name of."""

    def visit_Name(self, node: ast.Name) -> ast.Constant:
        return ast.Constant(_WORDS.get(node.id.lower(), node.id))


def _literal(text: str) -> Any:
    if not text:
        return ()
    try:
        return ast.literal_eval(_Words().visit(ast.parse(text, mode="eval")))
    except (ValueError, SyntaxError, TypeError):  # a set of sets, say
        return text


def wording(annotation: Any) -> str:
    """An annotation in words: "a number or a tuple of numbers".

    Args:
        annotation: a type annotation.
    """
    return " or ".join(_allowed(member).words for member in _members(annotation))


def _is_number(value: Any) -> bool:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return not math.isnan(value)
    return isinstance(value, str) and value in ("inf", "-inf")


_BARE: dict[Any, Allowed] = {
    int: Allowed(
        "an integer", lambda x: isinstance(x, numbers.Integral) and type(x) is not bool
    ),
    float: Allowed("a number", _is_number),
    str: Allowed("a string", lambda x: isinstance(x, str)),
    bool: Allowed("True or False", lambda x: isinstance(x, bool)),
    tuple: Allowed("a tuple", lambda x: isinstance(x, tuple | list)),
    None: Allowed("None", lambda x: x is None),
    types.NoneType: Allowed("None", lambda x: x is None),
}


def _allowed(annotation: Any) -> Allowed:
    """What an annotation that is no union allows."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return members[1]
    if origin is Literal:
        words = ", ".join(map(repr, members))
        exact = [(type(choice), choice) for choice in members]
        return Allowed(
            f"one of {words}" if len(members) > 1 else words,
            lambda x: (type(x), x) in exact,
            tuple(choice for choice in members if isinstance(choice, str)),
        )
    if origin is tuple:
        words = f"a tuple of {len(members)} values"
        if members[1:] == (...,):
            inner = wording(members[0])
            is_plain = members[0] in (int, float, str)
            words = f"a tuple, each {inner}"
            words = f"a tuple of {inner.split()[-1]}s" if is_plain else words
        return Allowed(words, lambda x: isinstance(x, tuple))
    return _BARE.get(annotation, Allowed(str(annotation), lambda x: True))


def one_or_several(annotation: Any) -> bool:
    """Whether a value may be one, or a tuple of any number of such.

    Args:
        annotation: a type annotation.
    """
    members = typing.get_args(annotation)
    several = [typing.get_args(m) for m in members if typing.get_origin(m) is tuple]
    return any((member, ...) in several for member in members)


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)
