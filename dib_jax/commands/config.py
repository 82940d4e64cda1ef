"""What a config may hold, and every mistake in one found before anything starts.

The fields of the engine are the sections below; those of `model`, `head`, `task`,
`objective` and `algorithm` are the options of whatever factory the config names, read
off its signature. A config states what is special about it: all else has a default.
"""

import math
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from ml_collections import ConfigDict

from dib_jax import data
from dib_jax.commands import registry, values
from dib_jax.commands.registry import Option, prefixed
from dib_jax.commands.values import Allowed
from dib_jax.settings import flatten

# Sections whose options belong to a factory, and the folder that it is found in.
FACTORIES = {
    "model": "models",
    "head": "models.heads",
    "task": "tasks",
    "objective": "objectives",
    "algorithm": "algorithms",
}
# What a config means that names none, in that order.
_DEFAULTS = ("cnn", "linear", "classification", "dib", "sequential")
_USUAL = dict(zip(FACTORIES, _DEFAULTS, strict=True))
# Fields that configs of older versions have, and what they are called now.
_MOVED = {
    "schedule": "algorithm.name",
    "schedule.name": "algorithm.name",
    "schedule.blocks": "algorithm.blocks",
    "schedule.remat": "algorithm.remat",
    "schedule.cache": "cache.place",
    "schedule.copies": "cache.copies",
    "schedule.renew": "cache.renew",
    "head.decay": "algorithm.decay, with algorithm.name=momentum",
}
# The rules of `named_bandwidth`; this module is read before jax is.
_BANDWIDTHS = ("mean", "median", "knn", "quantile", "scott")


def _is_bandwidth(value: str) -> bool:
    try:
        return value in _BANDWIDTHS or 0 < float(value) < math.inf
    except ValueError:
        return False


def _counts(value: int | tuple[int, ...]) -> bool:
    return min(value if isinstance(value, tuple) else (value,), default=0) >= 1


_Count = Annotated[int, Allowed("an integer from 1", lambda x: x >= 1)]
_Natural = Annotated[int, Allowed("an integer from 0", lambda x: x >= 0)]
_Positive = Annotated[float, Allowed("a number above 0", lambda x: x > 0)]
_Weight = Annotated[float, Allowed("a number from 0", lambda x: 0 <= x < math.inf)]
_Share = Annotated[
    float, Allowed("a number from 0 to 1, 1 excluded", lambda x: 0 <= x < 1)
]


class Run(NamedTuple):
    """What belongs to no section.

    Attributes:
        seed: all random numbers of the run follow from it
        workdir: folder of the run; empty for runs/CONFIG-VARIANT-seedSEED
        epochs: passes over the training split in each phase; a tuple has one per phase.
            Blocks in turn are a phase each, blocks at once are one
        batch_size: samples per update
    """

    seed: Annotated[
        int, Allowed("an integer from 0 to 4294967295", lambda x: 0 <= x < 2**32)
    ] = 0
    workdir: str = ""
    epochs: Annotated[
        int | tuple[int, ...],
        Allowed("an integer from 1, or a tuple of such, one per phase", _counts),
    ] = 20
    batch_size: _Count = 128


class Dataset(NamedTuple):
    """What is learnt.

    Attributes:
        name: data set: a folder in data_dir, or one that is built in
        data_dir: folder that holds data sets; empty for the usual places
        val_fraction: share of the training split that is set aside for model
            selection; 0 for none
        augment: augmentation of training samples, e.g. "crop,flip", or "crop,affine:2"
            for twice as strong; empty for none
        views: changed copies of a test picture over which outputs are averaged, "flip",
            "shift" or "flip,shift"; empty for none
        skip_bad_boxes: leave pictures with a bad box out, where the task uses boxes
        skip_groups: groups of the training data to leave out, for instance one whose
            pictures stand in the test split too
        samples: samples of the training split that are used, always the same ones; 0
            for all
        repeat_rare: share of the training split below which a class is rare; its
            samples stand several times; 0 for none
        whiten: side of the patches of pictures that are whitened before the network,
            by the training split's covariance; 2 makes 24 channels of 3; 0 for none
        placement: where the samples are while they are used: device, stream (from the
            host's memory), or auto: device if they fill at most half of its memory
    """

    name: Annotated[str, Allowed("a name that is not empty", bool)] = "digits"
    data_dir: str = ""
    val_fraction: _Share = 0.1
    augment: str = ""
    views: str = ""
    skip_bad_boxes: bool = False
    skip_groups: tuple[int, ...] = ()
    samples: _Natural = 0
    repeat_rare: _Share = 0.0
    whiten: _Natural = 0
    placement: Literal["auto", "device", "stream"] = "auto"


class Cache(NamedTuple):
    """What frozen stages make of the training split.

    Attributes:
        place: where the output of frozen stages for the training split is stored, so
            that they run once: auto (the first place with room), device, host, file,
            or none, which runs them at every step
        copies: with augmentation: augmented copies of the training split that are
            stored with that output, one for each epoch in turn; 0 for new augmentation
            and a forward pass of the frozen stages at every step
        renew: with cache.copies: epochs after which the copies are drawn anew and pass
            through the frozen stages again; 0 for never
    """

    place: Literal["auto", "device", "host", "file", "none"] = "auto"
    copies: _Natural = 0
    renew: _Natural = 0


class Optimizer(NamedTuple):
    """How weights follow gradients.

    Attributes:
        name: update rule: sgd, adamw, muon
        learning_rate: its highest value
        weight_decay: decay of the weights
        momentum: momentum of the update rule; 0 for none
        schedule: course of the learning rate within a phase: constant, cosine, linear
        warmup_epochs: epochs in which the learning rate grows
        warmup_from: share of the learning rate that it grows from
        decay_to: share of the learning rate that cosine and linear fall to
        norm_rate: factor of the learning rate of norms' scales and biases
        lookahead: updates after which weights are set back to their running average,
            at the end too; 0 for never
    """

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    learning_rate: Annotated[
        float, Allowed("a number above 0", lambda x: 0 < x < math.inf)
    ] = 0.05
    weight_decay: _Weight = 5e-4
    momentum: _Share = 0.9
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup_epochs: _Weight = 1.0
    warmup_from: _Share = 0.0
    decay_to: _Share = 0.0
    norm_rate: _Positive = 1.0
    lookahead: _Natural = 0


class Precision(NamedTuple):
    """Types of numbers.

    Attributes:
        compute: type of numbers in the network
        information: type of numbers in the information measures
    """

    compute: Literal["float32", "bfloat16"] = "float32"
    information: Literal["float32"] = "float32"


class Analysis(NamedTuple):
    """How a run's information is measured.

    Attributes:
        every_epochs: epochs from one probe of the network's information to the next,
            beside the first and the last of each phase; 0 for no probes
        samples: samples of each split that a probe measures; no more than the smaller
            split has, 0 for no probes
        alpha: order of the Rényi entropy that a probe measures
        bandwidth: how a probe's Gaussian kernels get their width from the activations:
            mean, median, knn, quantile, scott; or the width itself
    """

    every_epochs: _Natural = 5
    samples: Annotated[
        int, Allowed("0, or an integer from 2", lambda x: x >= 0 and x != 1)
    ] = 256
    alpha: _Positive = 1.01
    bandwidth: Annotated[
        str,
        Allowed(
            f"one of {', '.join(_BANDWIDTHS)}, or a number above 0",
            _is_bandwidth,
            _BANDWIDTHS,
        ),
    ] = "mean"


# In the order of a config; those of `FACTORIES` depend on what it names.
_SECTIONS: dict[str, Any] = {
    "": Run,
    "dataset": Dataset,
    **dict.fromkeys(FACTORIES),
    "cache": Cache,
    "optimizer": Optimizer,
    "precision": Precision,
    "analysis": Analysis,
}


def schema(config: Mapping[str, Any]) -> dict[str, Option]:
    """Every field that a config of these names has, dotted, in the order of a config.

    Args:
        config: a ConfigDict or a mapping, as far as it is there: only the names of its
            factories are read.

    Returns:
        Field by dotted name.

    Raises:
        ValueError: a section is none, or names no factory.
    """
    given = _plain_dict(config)
    fields: dict[str, Option] = {}
    for section, settings in _SECTIONS.items():
        chosen = given.get(section, {})
        if not isinstance(chosen, Mapping):
            raise ValueError(
                f"{section}: got {chosen!r}; must be a section with fields"
            )
        if section in FACTORIES:
            name = chosen.get("name", _USUAL[section])
            with prefixed(f"{section}.name: "):
                settings = registry.find(FACTORIES[section], name)
            summary = (settings.__doc__ or "").strip().split("\n\n")[0]
            fields[f"{section}.name"] = Option(str, _USUAL[section], summary)
        for name, option in registry.options(settings).items():
            fields[f"{section}.{name}".removeprefix(".")] = option
    return fields


def ending(name: str) -> list[str]:
    """The fields whose last part is `name`, of those that every config has, dotted.

    The options of networks, heads and so on are not looked up: that imports JAX.
    """
    fixed = {key: value for key, value in _SECTIONS.items() if key not in FACTORIES}
    dotted = (
        f"{section}.{field}".removeprefix(".")
        for section, settings in fixed.items()
        for field in registry.options(settings)
    )
    return [field for field in dotted if field.rpartition(".")[2] == name]


def complete(config: Mapping[str, Any] | None = None, /, **sections: Any) -> ConfigDict:
    """A checked copy of a config, in which every field is there.

    Fields that are missing get their default, lists become tuples, and integers become
    floats where floats are wanted. An option of the head or the objective that may be
    one value or a tuple of such (`float | tuple[float, ...]`) is one per stage.

    Args:
        config: a ConfigDict or a mapping, as `get_config` returns it, as it was
            overridden, or as JSON has it; None for nothing but defaults.
        sections: fields and sections of it, in place of the config's.

    Returns:
        The copy, its fields in the order of `schema`.

    Raises:
        ValueError: one line: the field, its value, what is allowed, the nearest
            spelling.
    """
    given = _plain_dict({} if config is None else config)
    given |= _plain_dict(sections)
    fields = schema(given)
    flat = flatten(given)
    for dotted, value in flat.items():
        if dotted in fields or (dotted in _SECTIONS and value == {}):
            continue
        top = dotted.partition(".")[0]
        if dotted in _MOVED or top in _siblings("", fields):
            raise ValueError(unknown(dotted, value, fields))
        raise ValueError(unknown(top, given[top], fields))
    full = {}
    for dotted, field in fields.items():
        value = flat.get(dotted, field.default)
        with prefixed(f"{dotted}: got {value!r}; "):
            full[dotted] = values.fit(value, field.type)
    _try_out(full, fields)
    return ConfigDict(_nest(full))


def variant(arg: str, *names: str) -> str:
    """The variant of a config file that is asked for.

    Args:
        arg: what stands behind the colon of `--config=FILE.py:VARIANT`; "" for none.
        names: the variants there are.

    Returns:
        `arg`, so that `if variant(arg, "quick")` is true for that one.

    Raises:
        ValueError: there is no such variant.
    """
    if arg and arg not in names:
        known = "".join(f'":{name}", ' for name in names)
        use = f"use {known}or none" if names else "there is none"
        raise ValueError(f"unknown variant {arg!r}: {use}")
    return arg


def unknown(dotted: str, value: Any, known: Iterable[str]) -> str:
    """What to say of a field that does not exist.

    Args:
        dotted: the field.
        value: that it was to have.
        known: the dotted fields there are.

    Returns:
        One line, with the nearest spelling where one is near, or with the new name of a
        field that has another one now.
    """
    known = list(known)
    section, _, name = dotted.rpartition(".")
    if dotted in _MOVED:
        return f"{dotted}: got {value!r}; this field is {_MOVED[dotted]} now"
    if inside := _siblings(dotted, known):
        return f"{dotted}: got {value!r}; set its fields: {', '.join(inside)}"
    siblings = _siblings(section, known)
    shown = "" if isinstance(value, Mapping) else f" (with value {value!r})"
    of = f" of {section}" if section else ""
    there = f"; the fields{of} are {', '.join(siblings)}" if siblings else ""
    elsewhere = [f"; did you mean {f}?" for f in known if f.rpartition(".")[2] == name]
    hint = registry.nearest(name, siblings, form=f"{section}.{{}}" if section else "{}")
    hint = hint or (elsewhere or [registry.nearest(dotted, known, form="{}")])[0]
    return f"{dotted}: unknown field{shown}{there}{hint}"


def _siblings(section: str, known: Iterable[str]) -> list[str]:
    prefix = f"{section}." if section else ""
    inner = (f.removeprefix(prefix) for f in known if f.startswith(prefix))
    return list(dict.fromkeys(name.partition(".")[0] for name in inner))


def _try_out(full: Mapping[str, Any], fields: Mapping[str, Option]) -> None:
    """Build what the config names, so that its factories see their options now."""
    # Imported late, as all that imports jax.
    from dib_jax.data.augment import augment
    from dib_jax.data.views import views

    # Samples of somebody's own data set may be no pictures.
    factories: dict[str, Callable[[str], Any]] = {"augment": augment, "views": views}
    for name, factory in factories.items():
        with prefixed(f"dataset.{name}: "):
            factory("" if ":" in full["dataset.name"] else full[f"dataset.{name}"])
    if full["cache.renew"] and not full["cache.copies"]:
        raise ValueError(
            f"cache.renew: got {full['cache.renew']}, but cache.copies = 0 stores no "
            "copies that could be renewed; use cache.copies=1, or renew=0"
        )
    sections = _nest(full)
    # Any stage will do, and the first is always there.
    known: dict[str, Any] = {"stage": 0}
    built: dict[str, Any] = {}

    def build(section: str, **more: Any) -> Any:
        package, chosen = FACTORIES[section], sections[section]
        try:
            return registry.build(package, chosen, **{**known, **more})
        except ValueError as error:
            raise ValueError(_refused(section, full, str(error))) from None

    for section, package in FACTORIES.items():
        wanted = registry.supplied(registry.find(package, sections[section]["name"]))
        # What the data will tell is 2 where it is a number; else it cannot be tried.
        known = {name: 2 for name, wants in wanted.items() if wants is int} | known
        if section == "algorithm" and len(built) == len(FACTORIES) - 1:
            given = {name: built[name] for name in ("task", "objective")}
            known["parts"] = parts_of(
                sections, build, steps=0, stages=known["stages"], **given
            )
        if wanted.keys() <= known.keys():
            built[section] = build(section)
            if section in _MADE:
                _check_made(section, sections[section]["name"], built[section])
        if section == "model" and section in built:
            stages = tuple(built[section])
            known |= {"stages": stages, "num_stages": len(stages)}
            _check_stages(full, fields, len(stages))


# What factories of a section return.
_MADE = {
    "model": "a tuple of modules, one for each stage",
    "head": "a module",
    "task": "a dib_jax.tasks.Task",
    "objective": "an objective, (signals) → (loss, terms)",
    "algorithm": "a dib_jax.algorithms.Algorithm",
}


def _check_made(section: str, name: str, made: Any) -> None:
    """Refuse what a factory must have forgotten to return, or to put into a tuple."""
    if made is None or (section == "model" and not isinstance(made, tuple | list)):
        raise ValueError(
            f"{section}.name: {name!r} must return {_MADE[section]}, got "
            f"{type(made).__name__}"
        )


def parts_of(
    config: Mapping[str, Any], build: Callable[..., Any], *, steps: int, **built: Any
) -> Any:
    """The `Parts` that an algorithm is given.

    Args:
        config: a complete config.
        build: makes the factory of a section.
        steps: updates in an epoch.
        built: stages, task and objective.
    """
    # Imported late, as all that imports jax.
    import jax.numpy as jnp

    from dib_jax.algorithms import Parts
    from dib_jax.commands.optimizers import optimizer

    return Parts(
        **built,
        head=lambda stage: build("head", stage=stage),
        optimizer=lambda epochs, per_epoch=steps: optimizer(
            **config["optimizer"], epochs=epochs, steps_per_epoch=per_epoch
        ),
        epochs=config["epochs"],
        steps=steps,
        compute_dtype=jnp.dtype(config["precision"]["compute"]),
    )


def _refused(section: str, full: Mapping[str, Any], message: str) -> str:
    """A factory's own message, with the field in front that it is about."""
    message = " ".join(message.split())
    if message.partition(":")[0] in full:
        return message
    words = [word for word in re.findall(r"\w+", message) if word != "name"]
    fields = [f"{section}.{word}" for word in words if f"{section}.{word}" in full]
    if not fields:
        return f"{section}: {message}"
    value, quoted = full[fields[0]], re.findall(r"'([^']*)'", message)
    hint = ""
    if isinstance(value, str) and "did you mean" not in message:
        hint = registry.nearest(value, [word for word in quoted if word != value])
    return f"{fields[0]}: {message.removeprefix(fields[0]).lstrip(' :')}{hint}"


def _check_stages(
    full: Mapping[str, Any], fields: Mapping[str, Option], stages: int
) -> None:
    for dotted, value in full.items():
        if not dotted.startswith(("head.", "objective.")):
            continue
        is_by_stage = values.one_or_several(fields[dotted].type)
        if is_by_stage and isinstance(value, tuple) and len(value) != stages:
            raise ValueError(
                f"{dotted}: got {value!r}, {len(value)} numbers for {stages} stages; "
                "must be one number, or one for each stage"
            )


def describe(config: ConfigDict, *, width: int) -> str:
    """Every field of a config with its value and its meaning, in columns.

    Args:
        config: a complete config.
        width: of a line, in characters.

    Returns:
        Some lines of text.
    """
    flat = flatten(config)
    rows = [
        (dotted, _shown(flat.get(dotted, "")), _meaning(dotted, field))
        for dotted, field in schema(config).items()
    ]
    names = max(len(name) for name, _, _ in rows) + 2
    shown = min(max(len(value) for _, value, _ in rows), 20) + 2
    is_narrow = width - names - shown < 24
    indent = " " * (4 if is_narrow else names + shown)
    lines: list[str] = []
    for name, value, meaning in rows:
        start = f"{name:<{names}}{value:<{shown}}"
        text = textwrap.fill(
            meaning, width, initial_indent=indent, subsequent_indent=indent
        )
        if text and not is_narrow and len(value) + 2 <= shown:
            lines.append(start + text[len(start) :])
        else:  # the meaning goes below
            lines += filter(None, [start.rstrip(), text])
    return "\n".join(lines)


def _meaning(dotted: str, field: Option) -> str:
    meaning = " ".join(field.meaning.split()).removesuffix(".")
    section, _, name = dotted.partition(".")
    if name != "name" or section not in (*FACTORIES, "dataset"):
        return meaning
    package = FACTORIES.get(section)
    known = registry.known(package) if package else data.known_names()
    return f"{meaning} (known: {', '.join(known)})"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else repr(value)


def default_workdir(
    config_name: str,
    variant: str,
    config: ConfigDict,
    *,
    usual: Mapping[str, str] | None = None,
) -> pathlib.Path:
    """Where a run goes when no workdir is given.

    Args:
        config_name: the config file without folder and ending.
        variant: "full" or "quick".
        config: a complete config.
        usual: names that the config file itself has, by section: of its algorithm, its
            objective and so on. A run by others, such as its baseline, gets a folder of
            its own; None where there are none to compare with.

    Returns:
        runs/CONFIG-VARIANT-seedSEED, and the names that are not the usual ones.
    """
    name = f"{config_name}-{variant}-seed{config.seed}"
    for section in reversed(FACTORIES):
        chosen = config[section].name
        if chosen != (usual or {}).get(section, chosen):
            # One of somebody's own has a colon, which a folder must not have.
            name += f"-{chosen.replace(':', '-')}"
    return pathlib.Path("runs") / name


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for dotted, value in flat.items():
        section, _, name = dotted.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _plain_dict(config: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(config, Mapping | ConfigDict):
        raise ValueError(
            f"got {config!r}; a config must be an ml_collections.ConfigDict"
        )
    return ConfigDict(dict(config)).to_dict()
