"""Checks of options that networks, heads and losses share.

Each raises a ValueError, of an option with its name first.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


def check_at_least(least: int, **options: float) -> None:
    """Refuse options that are not finite numbers from `least` on."""
    for name, value in options.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} must be ≥ {least}, got {value!r}")


def check_finite(**options: float | Sequence[float]) -> None:
    """Refuse options that are not finite numbers, or hold one that is not."""
    for name, value in options.items():
        if not all(
            map(math.isfinite, value if isinstance(value, Sequence) else [value])
        ):
            raise ValueError(f"{name} must be finite, got {value!r}")


def check_positive(**options: float) -> None:
    """Refuse options that are not finite numbers above 0."""
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a number > 0, got {value!r}")


def check_one_of(allowed: Iterable[object], **options: object) -> None:
    """Refuse options that are not among the allowed values."""
    values = list(allowed)
    for name, value in options.items():
        if value not in values:
            raise ValueError(f"{name} must be one of {values}, got {value!r}")


def check_layer_widths(widths: Sequence[int]) -> None:
    """Refuse widths of stages unless there are some, all ≥ 1."""
    if not widths or min(widths) < 1:
        raise ValueError(f"widths must be one or more numbers ≥ 1, got {widths!r}")


def number_for_stage(
    name: str, value: _Number | Sequence[_Number], stage: int
) -> _Number:
    """An option that is one number for all stages, or one number for each.

    Args:
        name: of the option, for the message.
        value: the number, or a tuple or list of one number per stage.
        stage: number of the stage, from 0.

    Raises:
        ValueError: there is no number for this stage.
    """
    if not isinstance(value, Sequence):
        return value
    if stage >= len(value):
        raise ValueError(
            f"{name} has {len(value)} numbers, none for stage {stage}; give one "
            "number, or one for each stage"
        )
    return value[stage]


def check_poolable(height: int, width: int) -> None:
    """Refuse a feature map that 2 × 2 pooling would leave nothing of.

    Args:
        height: of the map.
        width: of the map.

    Raises:
        ValueError: one of them is below 2.
    """
    if height < 2 or width < 2:
        raise ValueError(
            f"a {height} × {width} feature map cannot be pooled by 2 × 2; "
            "use fewer pooling stages or larger pictures"
        )
