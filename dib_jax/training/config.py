"""What a config may hold, and every mistake in one found before anything starts.

The fields of the engine stand here; those of `model`, `head`, `task` and `objective`
are the options of whatever factory the config names, read off its signature.
"""

import importlib
import math
import pathlib
import re
import shutil
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import ml_collections

from dib_jax import data
from dib_jax.training import build, values

# Sections whose options belong to a factory, and the folder that it is found in.
FACTORIES = {
    "model": "models",
    "head": "models.heads",
    "task": "tasks",
    "objective": "objectives",
}
_SECTIONS = (
    "dataset",
    *FACTORIES,
    "schedule",
    "optimizer",
    "precision",
    "analysis",
)
# The rules of `named_bandwidth`; this module is read before jax is.
_BANDWIDTHS = ("mean", "median", "knn", "quantile", "scott")
_TOPS = ("seed", "workdir", *_SECTIONS, "epochs", "batch_size")
# Where a run and its data lie may change without its being another run.
_PLACES = ("workdir", "dataset.data_dir", "dataset.placement")
_REQUIRED: Any = object()


class Field(NamedTuple):
    """One field of a config.

    Attributes:
        type: annotation of its values.
        meaning: for `--help`.
        default: what a config without the field means.
        allowed: which values of that type are possible, in words; "" for all.
        holds: whether a value of that type is possible.
        names: the possible values, where they are few.
    """

    type: Any
    meaning: str
    default: Any = _REQUIRED
    allowed: str = ""
    holds: Callable[[Any], bool] = lambda value: True
    names: tuple[str, ...] = ()


def schema(config: ml_collections.ConfigDict | Mapping[str, Any]) -> dict[str, Field]:
    """Every field that a config of these names has, dotted, in the order of a config.

    Args:
        config: as far as it is there: only the names of its factories are read.

    Returns:
        Field by dotted name.

    Raises:
        ValueError: a section is none, or names no factory.
    """
    sections = _plain_dict(config)
    fields = {
        "seed": Field(
            int,
            "all random numbers of the run follow from it",
            default=0,
            allowed="an integer from 0 to 4294967295",
            holds=lambda value: 0 <= value < 2**32,
        ),
        "workdir": Field(
            str,
            "folder of the run; empty for runs/CONFIG-VARIANT-seedSEED",
            default="",
        ),
        "dataset.name": Field(
            str,
            "data set: a folder in data_dir, or one that is built in",
            allowed="a name that is not empty",
            holds=bool,
        ),
        "dataset.data_dir": Field(
            str, "folder that holds data sets; empty for the usual places", default=""
        ),
        "dataset.val_fraction": Field(
            float,
            "share of the training split that is kept for model selection; 0 for none",
            default=0.1,
            allowed="a number from 0 to 1, 1 excluded",
            holds=lambda value: 0 <= value < 1,
        ),
        "dataset.augment": Field(
            str,
            'augmentation of training pictures, e.g. "crop,flip", or "crop,affine:2" '
            "for twice as strong; empty for none",
            default="",
        ),
        "dataset.skip_bad_boxes": Field(
            bool,
            "leave pictures with a bad box out, where the task uses boxes",
            default=False,
        ),
        "dataset.skip_groups": Field(
            tuple[int, ...],
            "groups of the training data to leave out, for instance one whose pictures "
            "stand in the test split too",
            default=(),
        ),
        "dataset.samples": Field(
            int,
            "samples of the training split that are used, always the same ones; 0 for "
            "all",
            default=0,
            allowed="an integer from 0",
            holds=lambda value: value >= 0,
        ),
        "dataset.placement": Field(
            Literal["auto", "device", "stream"],
            "where the pictures are while they are used: device, stream (from the "
            "host's memory), or auto: device if they fill at most half of its memory",
            default="auto",
            names=("auto", "device", "stream"),
        ),
    }
    for section, package in FACTORIES.items():
        fields |= _factory_fields(section, package, sections)
    return fields | _training_fields()


def _training_fields() -> dict[str, Field]:
    return {
        "schedule.name": _choice(
            "schedules", "SCHEDULES", "which stages train together, and in which order"
        ),
        "schedule.blocks": Field(
            int,
            "neighbouring stages that train together as one block",
            default=1,
            allowed="an integer from 1",
            holds=lambda value: value >= 1,
        ),
        "schedule.cache": _choice(
            "cache",
            "CHOICES",
            "where the output of frozen stages for the training split is kept, so that "
            "they run once; auto is the first place with room, none runs them at every "
            "step",
            default="auto",
        ),
        "schedule.copies": Field(
            int,
            "with augmentation: augmented copies of the training split that are kept "
            "with the frozen stages' output, one for each epoch in turn; 0 for new "
            "augmentation and a forward pass of the frozen stages at every step",
            default=0,
            allowed="an integer from 0",
            holds=lambda value: value >= 0,
        ),
        "schedule.renew": Field(
            int,
            "with schedule.copies: epochs after which the kept copies are drawn anew "
            "and pass through the frozen stages again; 0 for never",
            default=0,
            allowed="an integer from 0",
            holds=lambda value: value >= 0,
        ),
        "schedule.remat": Field(
            bool,
            "whether the backward pass recomputes each stage from its input: less "
            "memory, more time, the same gradient",
            default=False,
        ),
        "optimizer.name": _choice("optimizers", "OPTIMIZERS", "update rule"),
        "optimizer.learning_rate": Field(
            float,
            "its highest value",
            allowed="a number above 0",
            holds=lambda value: 0 < value < math.inf,
        ),
        "optimizer.weight_decay": Field(
            float,
            "decay of the weights",
            default=0.0,
            allowed="a number from 0",
            holds=lambda value: 0 <= value < math.inf,
        ),
        "optimizer.momentum": Field(
            float,
            "momentum of the update rule; 0 for none",
            default=0.9,
            allowed="a number from 0 to 1, 1 excluded",
            holds=lambda value: 0 <= value < 1,
        ),
        "optimizer.schedule": _choice(
            "optimizers", "SCHEDULES", "course of the learning rate within a block"
        ),
        "optimizer.warmup_epochs": Field(
            float,
            "epochs in which the learning rate grows from 0",
            default=0.0,
            allowed="a number from 0",
            holds=lambda value: 0 <= value < math.inf,
        ),
        "epochs": Field(
            int | tuple[int, ...],
            "passes over the training split by each block; a tuple has one per block, "
            "or one number where all blocks train at once",
            allowed="an integer from 1, or a tuple of such, one per block",
            holds=_counts,
        ),
        "batch_size": Field(
            int,
            "samples per update",
            allowed="an integer from 1",
            holds=lambda value: value >= 1,
        ),
        "precision.compute": Field(
            Literal["float32", "bfloat16"],
            "type of numbers in the network",
            default="float32",
            names=("float32", "bfloat16"),
        ),
        "precision.information": Field(
            Literal["float32"],
            "type of numbers in the information measures",
            default="float32",
            names=("float32",),
        ),
        "analysis.every_epochs": Field(
            int,
            "epochs from one probe of the network's information to the next, beside "
            "the first and the last of each block; 0 for no probes",
            default=5,
            allowed="an integer from 0",
            holds=lambda value: value >= 0,
        ),
        "analysis.samples": Field(
            int,
            "pictures of each split that a probe measures; no more than the smaller "
            "split has, 0 for no probes",
            default=256,
            allowed="0, or an integer from 2",
            holds=lambda value: value >= 0 and value != 1,
        ),
        "analysis.alpha": Field(
            float,
            "order of the Rényi entropy that a probe measures",
            default=1.01,
            allowed="a number above 0",
            holds=lambda value: value > 0,
        ),
        "analysis.bandwidth": Field(
            str,
            "how a probe's Gaussian kernels get their width from the activations: "
            f"{', '.join(_BANDWIDTHS)}; or the width itself",
            default="mean",
            allowed=f"one of {', '.join(_BANDWIDTHS)}, or a number above 0",
            holds=_is_bandwidth,
            names=_BANDWIDTHS,
        ),
    }


def _is_bandwidth(value: str) -> bool:
    if value in _BANDWIDTHS:
        return True
    try:
        return 0 < float(value) < math.inf
    except ValueError:
        return False


def _counts(value: int | tuple[int, ...]) -> bool:
    counts = value if isinstance(value, tuple) else (value,)
    return len(counts) > 0 and min(counts) >= 1


def _choice(
    module: str, mapping: str, meaning: str, *, default: Any = _REQUIRED
) -> Field:
    # Imported late: this module is also for those who only read or print a config.
    home = importlib.import_module(f"dib_jax.training.{module}")
    names = tuple(getattr(home, mapping))
    return Field(
        str,
        f"{meaning}: {', '.join(names)}",
        default=default,
        allowed=f"one of {', '.join(names)}",
        holds=lambda value: value in names,
        names=names,
    )


def _factory_fields(
    section: str, package: str, sections: Mapping[str, Any]
) -> dict[str, Field]:
    factory = _factory(section, package, sections)
    summary = (factory.__doc__ or "").strip().split("\n\n")[0]
    fields = {f"{section}.name": Field(str, _clause(summary))}
    for option in build.options(factory).values():
        fields[f"{section}.{option.name}"] = Field(
            option.type, _clause(option.meaning), default=option.default
        )
    return fields


def _clause(text: str) -> str:
    return " ".join(text.split()).removesuffix(".")


def _factory(
    section: str, package: str, sections: Mapping[str, Any]
) -> Callable[..., Any]:
    chosen = sections.get(section, {})
    if not isinstance(chosen, Mapping):
        raise ValueError(
            f"{section}: got {chosen!r}; must be a section with a name and its options"
        )
    if "name" not in chosen:
        known = ", ".join(build.known(package))
        raise ValueError(f"{section}.name: missing; must be one of {known}")
    try:
        return build.find(package, chosen["name"])
    except ValueError as error:
        raise ValueError(f"{section}.name: {error}") from None


def check(config: ml_collections.ConfigDict | Mapping[str, Any]) -> None:
    """Refuse a config with a mistake.

    Args:
        config: a config, as `get_config` returns it or as it was overridden.

    Raises:
        ValueError: one line: the field, its value, what is allowed, the nearest
            spelling.
    """
    complete(config)


def complete(
    config: ml_collections.ConfigDict | Mapping[str, Any],
) -> ml_collections.ConfigDict:
    """A checked copy of a config, in which every field is there.

    Fields that are missing get their default, lists become tuples, and integers become
    floats where floats are wanted. An option of the objective that may be one value or
    a tuple of such (`float | tuple[float, ...]`) is one per stage of the network.

    Args:
        config: as for `check`.

    Returns:
        The copy, its fields in the order of `schema`.

    Raises:
        ValueError: as for `check`.
    """
    sections = _plain_dict(config)
    for top, value in sections.items():
        if top not in _TOPS:
            raise ValueError(unknown(top, value, _TOPS))
        if top in _SECTIONS and not isinstance(value, Mapping):
            raise ValueError(f"{top}: got {value!r}; must be a section with fields")
    fields = schema(sections)
    given = flatten(sections)
    for dotted, value in given.items():
        if dotted not in fields and not (dotted in _SECTIONS and value == {}):
            raise ValueError(unknown(dotted, value, fields))
    full = {
        dotted: _checked(dotted, field, given.get(dotted, field.default))
        for dotted, field in fields.items()
    }
    _try_out(full, fields)
    return ml_collections.ConfigDict(_nest(full))


def unknown(dotted: str, value: Any, known: Iterable[str]) -> str:
    """What to say of a field that does not exist.

    Args:
        dotted: the field.
        value: that it was to have.
        known: the dotted fields there are.

    Returns:
        One line, with the nearest spelling where one is near.
    """
    known = list(known)
    section, _, name = dotted.rpartition(".")
    if inside := _siblings(dotted, known):
        return f"{dotted}: got {value!r}; set its fields: {', '.join(inside)}"
    siblings = _siblings(section, known)
    shown = "" if isinstance(value, Mapping) else f" (with value {value!r})"
    of = f" of {section}" if section else ""
    there = f"; the fields{of} are {', '.join(siblings)}" if siblings else ""
    hint = (
        build.nearest(name, siblings, form=f"{section}.{{}}" if section else "{}")
        or _elsewhere(name, known)
        or build.nearest(dotted, known, form="{}")
    )
    return f"{dotted}: unknown field{shown}{there}{hint}"


def _siblings(section: str, known: list[str]) -> list[str]:
    prefix = f"{section}." if section else ""
    inner = (f.removeprefix(prefix) for f in known if f.startswith(prefix))
    return list(dict.fromkeys(name.partition(".")[0] for name in inner))


def _elsewhere(name: str, known: list[str]) -> str:
    lasts = {field.rpartition(".")[2]: field for field in reversed(known)}
    return f"; did you mean {lasts[name]}?" if name in lasts else ""


def _checked(dotted: str, field: Field, value: Any) -> Any:
    if value is _REQUIRED:
        allowed = field.allowed or values.wording(field.type)
        raise ValueError(f"{dotted}: missing; must be {allowed}")
    try:
        fitted = values.fit(value, field.type)
    except ValueError as error:
        allowed = f"must be {field.allowed}" if field.allowed else str(error)
        raise ValueError(_impossible(dotted, field, value, allowed)) from None
    if not field.holds(fitted):
        raise ValueError(_impossible(dotted, field, value, f"must be {field.allowed}"))
    return fitted


def _impossible(dotted: str, field: Field, value: Any, allowed: str) -> str:
    hint = build.nearest(value, field.names) if isinstance(value, str) else ""
    return f"{dotted}: got {value!r}; {allowed}{hint}"


def _try_out(full: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Build what the config names, so that its factories see their options now."""
    try:
        # Imported late, as all that imports jax.
        importlib.import_module("dib_jax.data.augment").augment(full["dataset.augment"])
    except ValueError as error:
        raise ValueError(f"dataset.augment: {error}") from None
    if full["schedule.renew"] and not full["schedule.copies"]:
        raise ValueError(
            f"schedule.renew: got {full['schedule.renew']}, but schedule.copies = 0 "
            "keeps no copies that could be renewed; use schedule.copies=1, or renew=0"
        )
    built: dict[str, Any] = {}
    for section, package in FACTORIES.items():
        factory = build.find(package, full[f"{section}.name"])
        chosen = {
            dotted.partition(".")[2]: value
            for dotted, value in full.items()
            if dotted.startswith(f"{section}.") and dotted != f"{section}.name"
        }
        supplied = build.supplied(factory)
        # Any stage will do, and the first is always there.
        known: dict[str, Any] = {"stage": 0}
        if isinstance(built.get("model"), tuple | list):
            known["stages"] = tuple(built["model"])
        wanted = [own for name, own in supplied.items() if name not in known]
        if any(annotation is not int for annotation in wanted):
            continue  # it wants something of the data, which are not read here
        try:
            built[section] = factory(
                **chosen, **{name: known.get(name, 2) for name in supplied}
            )
        except ValueError as error:
            raise ValueError(_refused(section, chosen, str(error))) from None
    stages = built.get("model")
    if not isinstance(stages, tuple | list):
        return
    schedule = importlib.import_module("dib_jax.training.schedules").SCHEDULES[
        full["schedule.name"]
    ]
    blocks = schedule.blocks(len(stages), full["schedule.blocks"])
    turns = schedule.turns(len(blocks))
    _one_for_each("epochs", full["epochs"], turns, "block")
    if schedule.every_stage and hasattr(built.get("objective"), "modules"):
        raise ValueError(
            f"schedule.name: got {full['schedule.name']!r}, which cannot train the "
            f"modules of the objective {full['objective.name']!r}; use sequential or "
            "parallel"
        )
    if hasattr(built.get("head"), "follower_decay") and not schedule.together:
        raise ValueError(
            f"schedule.name: got {full['schedule.name']!r}, but the head "
            f"{full['head.name']!r} follows the next stage while it trains; use "
            "parallel or parallel_readout"
        )
    for dotted, field in fields.items():
        section = dotted.partition(".")[0]
        is_by_stage = section == "head" or (schedule.local and section == "objective")
        if is_by_stage and _is_one_or_several(field.type):
            _one_for_each(dotted, full[dotted], len(stages), "stage")


def _refused(section: str, chosen: Mapping[str, Any], message: str) -> str:
    """A factory's own message, with the field in front that it is about."""
    message = " ".join(message.split())
    named = [word for word in re.findall(r"\w+", message) if word in chosen]
    if not named:
        return f"{section}: {message}"
    value, quoted = chosen[named[0]], re.findall(r"'([^']*)'", message)
    hint = ""
    if isinstance(value, str) and "did you mean" not in message:
        hint = build.nearest(value, [word for word in quoted if word != value])
    return f"{section}.{named[0]}: {message}{hint}"


def _is_one_or_several(annotation: Any) -> bool:
    members = typing.get_args(annotation)
    several = [m for m in members if typing.get_origin(m) is tuple]
    return any(
        typing.get_args(m)[1:] == (Ellipsis,) and typing.get_args(m)[0] in members
        for m in several
    )


def _one_for_each(dotted: str, value: Any, count: int, what: str) -> None:
    if isinstance(value, tuple) and len(value) != count:
        raise ValueError(
            f"{dotted}: got {value!r}, {len(value)} numbers for {count} {what}s; must "
            f"be one number, or one for each {what}"
        )


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """A config as plain JSON can hold it: tuples as lists, infinity as "inf".

    Args:
        config: a config.

    Raises:
        ValueError: a value cannot be written as JSON.
    """
    return values.plain(_plain_dict(config))


def from_json(saved: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The complete config that `to_json` has written down.

    Args:
        saved: what was read from JSON.

    Raises:
        ValueError: it is not a config, or no longer one that can be used.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"got {saved!r}; a config must be a mapping of fields")
    return complete(saved)


def differences(
    config_a: ml_collections.ConfigDict | Mapping[str, Any],
    config_b: ml_collections.ConfigDict | Mapping[str, Any],
) -> list[str]:
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
    one, other = (flatten(values.plain(_plain_dict(c))) for c in (config_a, config_b))
    absent = object()
    return [
        dotted
        for dotted in sorted(one | other)
        if dotted not in _PLACES
        and one.get(dotted, absent) != other.get(dotted, absent)
    ]


def describe(config: ml_collections.ConfigDict, *, width: int | None = None) -> str:
    """Every field of a config with its value and its meaning, in columns.

    Args:
        config: a complete config.
        width: of a line, in characters; None for the terminal's.

    Returns:
        Some lines of text.
    """
    width = width or shutil.get_terminal_size().columns
    flat = flatten(_plain_dict(config))
    rows = [
        (dotted, _shown(flat.get(dotted, "")), _meaning(dotted, field))
        for dotted, field in schema(config).items()
    ]
    names = max(len(name) for name, _, _ in rows) + 2
    shown = min(max(len(value) for _, value, _ in rows), 20) + 2
    meanings = width - names - shown
    lines: list[str] = []
    for name, value, meaning in rows:
        start = f"{name:<{names}}{value:<{shown}}"
        if len(value) + 2 > shown or meanings < 24:  # the meaning goes below
            lines.append(start.rstrip())
            start = " " * (4 if meanings < 24 else names + shown)
        wrapped = textwrap.wrap(
            meaning, width, initial_indent=start, subsequent_indent=" " * len(start)
        )
        lines.extend(wrapped or [start.rstrip()])
    return "\n".join(line for line in lines if line)


def _meaning(dotted: str, field: Field) -> str:
    section, _, name = dotted.partition(".")
    if name != "name" or section not in (*FACTORIES, "dataset"):
        return field.meaning
    is_data = section == "dataset"
    known = data.known_names() if is_data else build.known(FACTORIES[section])
    return f"{field.meaning} (known: {', '.join(known)})"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else repr(value)


def default_workdir(
    config_name: str,
    variant: str,
    config: ml_collections.ConfigDict,
    *,
    usual_schedule: str = "",
) -> pathlib.Path:
    """Where a run goes when no workdir is given.

    Args:
        config_name: the config file without folder and ending.
        variant: "full" or "quick".
        config: a complete config.
        usual_schedule: the schedule that the config file itself asks for. A run by
            another one, such as its baseline, gets a folder of its own; "" where there
            is none to compare with.

    Returns:
        runs/CONFIG-VARIANT-seedSEED, and the schedule where it is not the usual one.
    """
    name = f"{config_name}-{variant}-seed{config.seed}"
    if usual_schedule and config.schedule.name != usual_schedule:
        name += f"-{config.schedule.name}"
    return pathlib.Path("runs") / name


def flatten(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, by dotted names; an empty section stays, as {}.

    Args:
        sections: nested mappings.
    """
    flat: dict[str, Any] = {}
    for key, value in sections.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{key}.{inner}": v for inner, v in flatten(value).items()}
        else:
            flat[str(key)] = value
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for dotted, value in flat.items():
        section, _, name = dotted.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _plain_dict(
    config: ml_collections.ConfigDict | Mapping[str, Any],
) -> dict[str, Any]:
    if isinstance(config, ml_collections.ConfigDict):
        return config.to_dict()
    if isinstance(config, Mapping):
        return ml_collections.ConfigDict(dict(config)).to_dict()
    raise ValueError(f"got {config!r}; a config must be an ml_collections.ConfigDict")
