"""Saved configs as plain data: what folders of runs and reports read of them.

Which fields there are and what they may hold, `dib_jax.commands.config` knows.
"""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import ml_collections

_MAPPINGS = (Mapping, ml_collections.ConfigDict)
# Where a run and its data lie may change without its being another run.
_PLACES = ("workdir", "dataset.data_dir", "dataset.placement")
_ABSENT = object()


def flatten(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, by dotted names; an empty section stays, as {}.

    Args:
        sections: nested mappings.
    """
    flat: dict[str, Any] = {}
    for key, value in sections.items():
        if isinstance(value, _MAPPINGS) and len(value):
            flat |= {f"{key}.{name}": inner for name, inner in flatten(value).items()}
        else:
            flat[str(key)] = value
    return flat


def differences(config_a: Mapping[str, Any], config_b: Mapping[str, Any]) -> list[str]:
    """The dotted fields in which two configs are not the same experiment.

    `workdir`, `dataset.data_dir` and `dataset.placement` are left out: a run may be
    moved. A list is the same as a tuple, and a field that only one of them has is a
    difference.

    Args:
        config_a: a config.
        config_b: another.

    Returns:
        The fields, sorted.
    """
    one, other = flatten(plain(config_a)), flatten(plain(config_b))
    return [
        field
        for field in sorted((one | other).keys() - set(_PLACES))
        if one.get(field, _ABSENT) != other.get(field, _ABSENT)
    ]


def plain(value: Any) -> Any:
    """`value` as strict JSON has it: tuples as lists, infinity as "inf".

    Args:
        value: a config, or a value of one.

    Raises:
        ValueError: it holds NaN or something that JSON cannot write.
    """
    if isinstance(value, _MAPPINGS):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if not isinstance(value, numbers.Real):
        raise ValueError(
            f"got {value!r}; a config holds numbers, strings, True, False, None and "
            "tuples of these"
        )
    number = float(value)
    if math.isnan(number):
        raise ValueError("NaN is no value of a config")
    return str(number) if math.isinf(number) else number
