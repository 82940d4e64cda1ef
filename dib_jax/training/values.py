"""Values that a config holds: fitted to a type annotation, and read from text.

Annotations are made of int, float, str, bool, None, tuples of these, unions and
`Literal`; whatever else is annotated is passed through as it is.
"""

import ast
import math
import numbers
import types
import typing
from typing import Any


def fit(value: Any, annotation: Any) -> Any:
    """`value` as `annotation` wants it, where that loses nothing.

    Integers fit where floats are wanted, and lists where tuples are (JSON has only
    lists); True is no integer, and NaN is no number. Infinity is one, also written
    "inf", as `plain` has it.

    Args:
        value: from a config file or from JSON.
        annotation: the wanted type.

    Returns:
        The value, of builtin types.

    Raises:
        ValueError: it does not fit; the message says what would.
    """
    for member in _members(annotation):
        if type(value) is member and not _is_nan(value):
            return value
    for member in _members(annotation):
        try:
            return _fit_one(value, member)
        except ValueError:
            continue
    raise ValueError(f"must be {wording(annotation)}")


def _fit_one(value: Any, annotation: Any) -> Any:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        for choice in typing.get_args(annotation):
            if type(choice) is type(value) and choice == value:
                return choice
    elif annotation is tuple or origin is tuple:
        if isinstance(value, tuple | list):
            return _fit_tuple(tuple(value), typing.get_args(annotation))
    elif annotation is None or annotation is type(None):
        if value is None:
            return None
    elif annotation is bool or annotation is str:
        if isinstance(value, annotation):
            return value
    elif annotation is int:
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
    elif annotation is float:
        if value in ("inf", "-inf"):
            return float(value)
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if is_number and not _is_nan(value):
            return float(value)
    else:
        return value
    raise ValueError(f"must be {wording(annotation)}")


def _fit_tuple(value: tuple[Any, ...], members: tuple[Any, ...]) -> tuple[Any, ...]:
    if not members:
        return value
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(fit(item, members[0]) for item in value)
    if len(members) != len(value):
        raise ValueError(f"must be {len(members)} values")
    return tuple(fit(*pair) for pair in zip(value, members, strict=True))


def parse(text: str, annotation: Any) -> Any:
    """What `text`, written on a command line, means where `annotation` is wanted.

    Tuples are written with or without brackets: "1,2", "(1, 2)", "[1, 2]".

    Args:
        text: as given.
        annotation: the wanted type.

    Returns:
        A value that fits.

    Raises:
        ValueError: it cannot mean such a value; the message says what could.
    """
    # Text would take everything, and a tuple every number: these are tried last.
    for member in sorted(_members(annotation), key=_greed):
        try:
            return fit(_parse_one(text, member), member)
        except ValueError:
            continue
    raise ValueError(f"must be {wording(annotation)}")


def _greed(annotation: Any) -> int:
    if annotation in (str, Any):
        return 3
    if annotation is tuple or typing.get_origin(annotation) is tuple:
        return 2
    return int(annotation is float)  # after int, which keeps "2" an integer


def _parse_one(text: str, annotation: Any) -> Any:
    word = text.strip()
    origin = typing.get_origin(annotation)
    if annotation is str:
        return text
    if origin is typing.Literal:
        choices = {str(choice): choice for choice in typing.get_args(annotation)}
        return choices.get(word, text)
    if annotation is tuple or origin is tuple:
        return _parse_tuple(word, typing.get_args(annotation))
    if annotation is bool:
        return {"true": True, "false": False}.get(word.lower(), text)
    if annotation is None or annotation is type(None):
        return None if word.lower() == "none" else text
    if annotation in (int, float):
        return annotation(word)
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return text


def _parse_tuple(word: str, members: tuple[Any, ...]) -> tuple[Any, ...]:
    items = _split(_without_brackets(word))
    if not members:
        return tuple(_parse_one(item, Any) for item in items)
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(parse(item, members[0]) for item in items)
    if len(members) != len(items):
        raise ValueError(f"must be {len(members)} values")
    return tuple(parse(*pair) for pair in zip(items, members, strict=True))


def _without_brackets(word: str) -> str:
    if not word or word[0] + word[-1] not in ("()", "[]"):
        return word
    # "(1,2),(3,4)" begins and ends with a bracket, and has none around it.
    return word if len(_split(word)) > 1 else word[1:-1]


def _split(word: str) -> list[str]:
    """Items between the commas that stand in no bracket; a last comma is allowed."""
    items, depth = [""], 0
    for character in word:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    if not items[-1].strip():
        items.pop()
    return items


def wording(annotation: Any) -> str:
    """An annotation in words: "a number or a tuple of numbers".

    Args:
        annotation: a type annotation.
    """
    return " or ".join(_word(member) for member in _members(annotation))


_WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "True or False",
    tuple: "a tuple",
    None: "None",
    type(None): "None",
}


def _word(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    members = typing.get_args(annotation)
    if origin is typing.Literal:
        choices = ", ".join(repr(choice) for choice in members)
        return f"one of {choices}" if len(members) > 1 else choices
    if origin is tuple:
        if len(members) == 2 and members[1] is Ellipsis:
            inner = wording(members[0]).split(" ", 1)[-1]
            plural = members[0] in (int, float, str)
            return f"a tuple of {inner}s" if plural else f"a tuple, each {inner}"
        return f"a tuple of {len(members)} values"
    return _WORDS.get(annotation, str(annotation))


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _is_nan(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isnan(value)


def plain(value: Any) -> Any:
    """`value` as strict JSON has it: tuples as lists, infinity as "inf".

    Args:
        value: a config value, or a nested mapping of them.

    Raises:
        ValueError: it holds NaN or something that JSON cannot write.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if _is_nan(value):
        raise ValueError("NaN is no value of a config")
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return plain(float(value))
    raise ValueError(
        f"got {value!r}; a config holds numbers, strings, True, False, None and tuples "
        "of these"
    )
