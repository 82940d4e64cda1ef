"""Numbers and settings as a page shows them; None where there is no number."""

from collections.abc import Sequence
from typing import Any

from scipy.stats import binomtest

from dib_jax.analysis.figures import is_number
from dib_jax.tasks import Measure


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent samples."""
    interval = binomtest(round(share * count), count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


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


def measured(value: Any, measure: Measure) -> str | None:
    """A value of a measure: a share in per cent, else four significant digits."""
    if measure.unit == "%" and is_number(value):
        return f"{100 * value:.2f} %"
    return decimal(value)


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


def moment(seconds: Any) -> str | None:
    """A time that is often below a second, in three digits."""
    if not is_number(seconds):
        return None
    for least, unit in ((1, "s"), (1e-3, "ms")):
        if seconds >= least:
            return f"{seconds / least:.3g} {unit}"
    return f"{1e6 * seconds:.3g} µs"


def size(value: Any) -> str | None:
    """Bytes in the largest unit of which there is one."""
    if not is_number(value):
        return None
    power = min(3, max(0, int(value).bit_length() - 1) // 10)
    if power == 0:
        return f"{value:.0f} B"
    return f"{value / 1024**power:.1f} {'KMG'[power - 1]}iB"


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
