"""Numbers and settings as a page shows them; None where there is no number."""

import math
from collections.abc import Sequence
from typing import Any


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent samples."""
    z = 1.959964
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = (
        z
        / (1 + z * z / count)
        * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    )
    return max(0.0, centre - half), min(1.0, centre + half)


def within(label: str) -> str:
    """A label within a sentence: `Accuracy` → accuracy, AP50 as it is."""
    return label if label.isupper() else label.lower()


def is_number(value: Any) -> bool:
    """Whether it is a number, as which no truth value counts."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def integer(value: Any) -> str | None:
    """With commas between thousands."""
    return f"{value:,}" if is_number(value) else None


def decimal(value: Any) -> str | None:
    """Four significant digits, none of them lost to a fixed number of places."""
    if not is_number(value):
        return None
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.3e}".replace("-", "−")
    places = 4 if abs(value) < 10 else 3 if abs(value) < 100 else 2
    return f"{value:.{places}f}".replace("-", "−")


def percent(value: Any, *, digits: int = 2) -> str | None:
    """A share as per cent, to so many decimals."""
    return f"{100 * value:.{digits}f} %" if is_number(value) else None


def duration(seconds: Any) -> str | None:
    """Seconds as seconds, minutes or hours."""
    if not is_number(seconds):
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(value: Any) -> str | None:
    """Bytes in the largest unit of which there is one."""
    if not is_number(value):
        return None
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return None


def work(value: Any) -> str | None:
    """Floating point operations, likewise."""
    if not is_number(value):
        return None
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.2f} {unit}FLOP"
    return f"{value:.0f} FLOP"


def setting(value: Any) -> str:
    """A value of the config as one would write it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(setting(item) for item in value) or "none"
    if value == "":
        return "none"
    return str(value)
