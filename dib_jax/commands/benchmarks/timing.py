"""Times that can be compared: all contenders in turn, ratios within a round."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def paired(
    functions: Mapping[str, Callable[[], Any]], *, seconds: float = 4.0
) -> dict[str, list[float]]:
    """Run times in milliseconds, all functions in turn, after a run to compile each.

    In a new order in every round: whoever comes after the largest finds the processor's
    caches full of it.

    Args:
        functions: by name; each returns when its result is there.
        seconds: for all of them, but at least three rounds.
    """
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    order, draw = list(functions), random.Random(0)
    end = time.perf_counter() + seconds
    while len(times[next(iter(times))]) < 3 or time.perf_counter() < end:
        draw.shuffle(order)
        for name in order:
            start = time.perf_counter()
            functions[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


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
