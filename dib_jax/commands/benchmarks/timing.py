"""Times that can be compared: all contenders in turn, ratios within a round."""

import functools
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


def paired(
    functions: Mapping[str, Callable[[], Any]], *, seconds: float = 4.0
) -> dict[str, list[float]]:
    """Run times in milliseconds, as of `in_turn`.

    Args:
        functions: by name; each returns when its result is there.
        seconds: for all of them, but at least three rounds.
    """

    def timed(function: Callable[[], Any]) -> float:
        start = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - start)

    runs = {name: functools.partial(timed, each) for name, each in functions.items()}
    return in_turn(runs, seconds=seconds)


def in_turn(
    functions: Mapping[str, Callable[[], Value]], *, seconds: float
) -> dict[str, list[Value]]:
    """What functions return, all of them in turn, after a run to compile each.

    In a new order in every round: whoever comes after the largest finds the processor's
    caches full of it.

    Args:
        functions: by name; each returns when its result is there.
        seconds: for all of them, but at least three rounds.
    """
    for function in functions.values():
        function()
    found: dict[str, list[Value]] = {name: [] for name in functions}
    order, draw = list(functions), random.Random(0)
    end = time.perf_counter() + seconds
    while len(found[next(iter(found))]) < 3 or time.perf_counter() < end:
        draw.shuffle(order)
        for name in order:
            found[name].append(functions[name]())
    return found


def compared(
    times: dict[str, list[float]], reference: str, fixed: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row for each function: median, least, and the median ratio to one of them.

    Args:
        times: from `paired`.
        reference: name of the one to compare with.
        fixed: columns that all rows have in front.
    """
    return [
        {
            **fixed,
            "what": name,
            "ms": statistics.median(milliseconds),
            "least ms": min(milliseconds),
            f"× {reference}": statistics.median(
                a / b for a, b in zip(milliseconds, times[reference], strict=True)
            ),
            "rounds": len(milliseconds),
        }
        for name, milliseconds in times.items()
    ]
