"""What every command does with its command line, and how it says what is wrong.

A mistake gives one line on standard error and exit status 2, and nothing is written.
"""

import ast
import importlib
import inspect
import os
import pathlib
import re
import shutil
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import ml_collections

from dib_jax import settings
from dib_jax.commands import config as configs
from dib_jax.commands import surroundings, values
from dib_jax.commands.registry import nearest, prefixed

# Commands that go on where they were stopped.
_RESUMED = ("run", "prepare", "compare")


class Arguments(NamedTuple):
    """A command line, taken apart.

    Attributes:
        flags: value of each flag that was given, by name without dashes; "" of one that
            takes none.
        overrides: text of each `--config.field=value`, by dotted field.
        rest: what is no flag.
        help: whether `--help` was given.
    """

    flags: dict[str, str]
    overrides: dict[str, str]
    rest: list[str]
    help: bool


class Request(NamedTuple):
    """What the command line of `experiments.run` asks for.

    Attributes:
        config: complete and checked.
        config_name: the config file without folder and ending.
        variant: "full", or what stands behind the colon: "quick".
        workdir: where the run goes.
        devices: how many of this machine's share each batch; None for all.
        distributed: whether several processes make the run.
        watch: name of who gets every line of metrics.jsonl; "" for nobody.
    """

    config: ml_collections.ConfigDict
    config_name: str
    variant: str
    workdir: pathlib.Path
    devices: int | None
    distributed: bool
    watch: str


class ConfigFile(NamedTuple):
    """A config file that was read.

    Attributes:
        path: where it lies.
        name: without folder and ending.
        variant: "full", or what stands behind the colon.
        config: what `get_config` returned, not yet checked.
        required: fields that it leaves to the command line, dotted.
    """

    path: pathlib.Path
    name: str
    variant: str
    config: ml_collections.ConfigDict
    required: tuple[str, ...] = ()


def split_arguments(
    arguments: Sequence[str], flags: Iterable[str], *, rest: str = "", help: str = ""
) -> Arguments:
    """Take a command line apart.

    `--flag=value` and `--flag value` are the same; `--` ends the flags.

    Args:
        arguments: without the command's name.
        flags: as help shows them: "--workdir=DIR", or "--distributed" of one without a
            value; "--config.FIELD=VALUE" stands for every field of a config.
        rest: what else the command takes, in words; "" for nothing.
        help: what is printed for `--help`, which ends the command; "" to go on.

    Raises:
        ValueError: an unknown flag, one without a value or given twice, or something
            that is no flag where the command takes nothing else.
    """
    takes_value = {flag.partition("=")[0]: "=" in flag for flag in flags}
    takes_fields = takes_value.pop("--config.FIELD", False)
    found = Arguments({}, {}, [], any(word in ("--help", "-h") for word in arguments))
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            found.rest.extend(waiting)
            break
        if word in ("--help", "-h"):
            continue
        if not word.startswith("-") or word == "-":
            found.rest.append(word)
            continue
        flag, _, value = word.partition("=")
        name = flag.lstrip("-")
        is_field = takes_fields and name.startswith("config.")
        field = name.removeprefix("config.") if is_field else ""
        if not field and flag not in takes_value:
            raise ValueError(_unknown_flag(flag, takes_value, fields=takes_fields))
        if field or takes_value[flag]:
            value = value if "=" in word else _next_value(flag, waiting)
        elif "=" in word:
            raise ValueError(f"{flag} has no value: write it alone")
        target = found.overrides if field else found.flags
        key = field or flag.removeprefix("--")
        if key in target:
            raise ValueError(
                f"{flag} is given twice, as {target[key]!r} and as {value!r}; "
                "give it once"
            )
        if not field:
            check_local(f"{flag}: got {value!r}", value)
        target[key] = value
    for word in found.rest:
        check_local(f"got {word!r}", word)
    if found.rest and not rest:
        known = ", ".join(flag for flag, takes in takes_value.items() if takes)
        raise ValueError(
            f"{found.rest[0]!r} is no flag; write --FLAG=VALUE, with one of {known}"
        )
    if found.help and help:
        print(help)
        raise SystemExit(0)
    return found


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def check_local(words: str, place: str) -> None:
    """Refuse an address, such as gs://bucket, which would become a folder here.

    Args:
        words: what starts the message.
        place: a file or folder.

    Raises:
        ValueError: it is an address.
    """
    if _ADDRESS.match(place):
        raise ValueError(
            f"{words}; only folders and files of this machine are read and written: "
            "mount the place, or copy it"
        )


def _next_value(flag: str, waiting: list[str]) -> str:
    if not waiting or waiting[0].startswith("--"):
        raise ValueError(f"{flag} needs a value: {flag}=VALUE")
    return waiting.pop(0)


def _unknown_flag(flag: str, known: Iterable[str], *, fields: bool) -> str:
    known = [*known, "--help"]
    also = ", --config.FIELD" if fields else ""
    bare = flag.lstrip("-")
    # A field by the end of its name alone, such as --seed or --data-dir.
    if meant := configs.ending(bare.replace("-", "_")) if fields else []:
        hint = f"; did you mean {' or '.join(f'--config.{field}' for field in meant)}?"
    else:
        hint = nearest(f"--{bare}", known, form="{}")
    return f"unknown flag {flag}; the flags are {', '.join(known)}{also}{hint}"


def read_request(arguments: Sequence[str], *, help: str) -> Request:
    """What a command with `--config` and `--workdir` is asked to do.

    With `--help` it prints the help and exits.

    Args:
        arguments: without the command's name.
        help: what is printed for `--help`, before all that depends on the config.

    Returns:
        A checked config, and a workdir that may be used for it, which with
        `--distributed` is still to be checked, in the first process. Nothing is
        written.

    Raises:
        ValueError: a mistake in flags, config or workdir.
        FileNotFoundError: there is no such config file.
    """
    flags = ("--config=PATH", "--workdir=DIR", "--devices=N", "--distributed")
    more = ("--watch=NAME", "--config.FIELD=VALUE")
    given = split_arguments(arguments, (*flags, *more))
    path = given.flags.get("config")
    if given.help and path is None:
        print("\n".join([help, *_listed_configs()]))
        raise SystemExit(0)
    if path is None:
        raise ValueError(
            "--config is missing: give --config=PATH, one of "
            f"{', '.join(map(str, config_files())) or 'your own'}; --help says more"
        )
    file = load_config(path)
    for field in file.required:
        if field not in given.overrides:
            raise ValueError(
                f"{field} is left to you by {file.path}: give --config.{field}=VALUE"
            )
    config = configs.complete(override(file.config, given.overrides))
    check_local(
        f"dataset.data_dir: got {config.dataset.data_dir!r}", config.dataset.data_dir
    )
    check_local(f"workdir: got {config.workdir!r}", config.workdir)
    workdir = _workdir(given, file, config)
    devices = whole_number(given.flags, "devices")
    distributed = "distributed" in given.flags
    if devices and distributed:
        raise ValueError(
            "--devices and --distributed exclude each other: several processes use all "
            "their devices"
        )
    if given.help:
        print(help.replace("configs/NAME.py[:quick]", path))
        print(f"\nThe fields of {path}, as they are set now:\n")
        width = min(shutil.get_terminal_size().columns, 120)
        print(configs.describe(config, width=width))
        print(f"\nThe run would go to {workdir}.")
        raise SystemExit(0)
    if not distributed:  # which one of several processes owns it is not known yet
        check_workdir(workdir, config)
    config.workdir = str(workdir)
    return Request(
        config=config,
        config_name=file.name,
        variant=file.variant,
        workdir=workdir,
        devices=devices,
        distributed=distributed,
        watch=given.flags.get("watch", ""),
    )


def _workdir(
    given: Arguments, file: ConfigFile, config: ml_collections.ConfigDict
) -> pathlib.Path:
    flag, field = given.flags.get("workdir"), given.overrides.get("workdir")
    if flag is not None and field is not None:
        raise ValueError(
            f"the workdir is given twice, as --workdir={flag} and as "
            f"--config.workdir={field}; give it once"
        )
    if flag == "":
        raise ValueError("--workdir is empty; give a folder, or leave the flag out")
    there = settings.flatten(file.config.to_dict())
    usual = {
        section: there[f"{section}.name"]
        for section in configs.FACTORIES
        if f"{section}.name" in there
    }
    default = configs.default_workdir(file.name, file.variant, config, usual=usual)
    return pathlib.Path(flag or config.workdir or default).expanduser()


def whole_number(flags: Mapping[str, str], name: str) -> int | None:
    """The number that a flag gives, from 1; None where it is not given.

    Args:
        flags: value by name, as `split_arguments` gives them.
        name: of the flag.

    Raises:
        ValueError: it is no such number.
    """
    text = flags.get(name)
    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"--{name} must be a whole number ≥ 1, got {text!r}")
    return None if text is None else int(text)


def find_workdir(flags: Mapping[str, str]) -> pathlib.Path:
    """The folder of a run that `--workdir` names.

    Args:
        flags: value by name, as `split_arguments` gives them.

    Raises:
        ValueError: the flag is missing, or no run is there.
    """
    if not flags.get("workdir"):
        raise ValueError(
            "--workdir is missing: give --workdir=DIR, the folder of a run"
        )
    workdir = pathlib.Path(flags["workdir"]).expanduser()
    if not (workdir / "config.json").is_file():
        what = "holds no config.json" if workdir.is_dir() else "is no folder"
        raise ValueError(
            f"--workdir: {workdir} {what}; give the folder of a run, which "
            "`python -m experiments.run` makes"
        )
    return workdir


def parse_flags(flags: Mapping[str, str], types: Mapping[str, Any]) -> dict[str, Any]:
    """What flags mean.

    Args:
        flags: text by name, as `split_arguments` gives them.
        types: annotation of each one's values.

    Raises:
        ValueError: a text cannot mean such a value.
    """
    found = {}
    for flag, text in flags.items():
        with prefixed(f"--{flag}: got {text!r}; "):
            found[flag] = values.parse(text, types[flag])
    return found


def load_config(path_and_variant: str) -> ConfigFile:
    """Run the `get_config` of a config file.

    Args:
        path_and_variant: "configs/NAME.py", or "configs/NAME.py:VARIANT"; outside of
            the checkout that this package lies in, also of that checkout.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no config file, or has no such variant, or has a mistake.
    """
    path, variant = pathlib.Path(path_and_variant), ""
    if not path.is_file() and ":" in path_and_variant[1:]:
        before, _, variant = path_and_variant.rpartition(":")
        path = pathlib.Path(before)
    if not path.is_file() and path.parts[:1] == ("configs",):
        in_checkout = _CHECKOUT / path
        path = in_checkout if in_checkout.is_file() else path
    if not path.is_file():
        raise FileNotFoundError(_not_found(path))
    module = types.ModuleType("config")
    module.__file__ = str(path)
    try:
        # Not by import, which would leave a __pycache__ beside the file.
        code = compile(path.read_bytes(), str(path), "exec")
        exec(code, vars(module))
        get_config = vars(module).get("get_config")
        if not callable(get_config):
            raise ValueError("there is no function get_config in it")
        wanted = inspect.signature(get_config).parameters.values()
        if variant and not wanted:
            raise ValueError(f"it has no variants, so no {variant!r} either")
        if not variant and any(_must_be_given(one) for one in wanted):
            raise ValueError(f"it needs a variant: --config={path}:VARIANT")
        config = get_config(variant) if variant else get_config()
    except surroundings.StartError:
        raise
    except OSError as error:
        raise ValueError(f"--config: {_one_line(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {_one_line(error)}") from None
    except (Exception, SystemExit) as error:
        raise ValueError(_where(path, error)) from None
    if isinstance(config, Mapping):
        config = ml_collections.ConfigDict(dict(config))
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(
            f"{path}: get_config returned {config!r}; it must return an "
            "ml_collections.ConfigDict"
        )
    plain, required = _resolved(config)
    config = ml_collections.ConfigDict(plain)
    return ConfigFile(path, path.stem, variant or "full", config, tuple(required))


def _resolved(
    config: ml_collections.ConfigDict, prefix: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """Values in place of references, and the required ones that are not set."""
    plain: dict[str, Any] = {}
    required: list[str] = []
    for name in config:
        try:
            value = config[name]
        except ml_collections.config_dict.RequiredValueError:
            required.append(f"{prefix}{name}")
            continue
        if isinstance(value, ml_collections.ConfigDict):
            value, inner = _resolved(value, f"{prefix}{name}.")
            required += inner
        plain[name] = value
    return plain, required


def _must_be_given(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not named


def _where(path: pathlib.Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        line, message = error.lineno, error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        # What it imports may have gone wrong, in none of its own lines.
        own = [frame for frame in frames if frame.filename == str(path)] or frames
        path, line = pathlib.Path(own[-1].filename), own[-1].lineno
        message = _one_line(error)
    return f"{path}:{line}: {type(error).__name__}: {message}"


# In a checkout the folder `configs` lies beside the package; a wheel has none.
_CHECKOUT = pathlib.Path(__file__).parents[2]


def config_files(folder: pathlib.Path | None = None) -> list[pathlib.Path]:
    """The config files in a folder.

    Args:
        folder: None for `configs` here, or in the checkout that this package lies in.
    """
    if folder is None:
        folder = pathlib.Path("configs")
        folder = folder if folder.is_dir() else _CHECKOUT / "configs"
    return sorted(
        file
        for file in folder.glob("*.py")
        if "get_config" in file.read_text(encoding="utf-8", errors="replace")
    )


def _not_found(path: pathlib.Path) -> str:
    what = "a folder, not a config file" if path.is_dir() else "not there"
    there = (*config_files(), *config_files(path.parent))
    by_name = {file.name: str(file) for file in there}
    if not by_name:
        return (
            f"--config: {path} is {what}; give the path of a config file: those that "
            "dib_jax is described with lie in configs/ of its repository, which a "
            "package without a checkout does not hold"
        )
    hint = nearest(path.name if path.suffix else f"{path.name}.py", by_name)
    for name, written in by_name.items():
        hint = hint.replace(repr(name), written)
    return f"--config: {path} is {what}; there are {', '.join(by_name.values())}{hint}"


def override(
    config: ml_collections.ConfigDict, overrides: Mapping[str, str]
) -> ml_collections.ConfigDict:
    """A copy of a config with fields as the command line has them.

    Where the name of a model, head, task, objective or algorithm is another than the
    file's, the file's options of that section are dropped: they were the other one's.

    Args:
        config: as the file has it.
        overrides: text by dotted field.

    Raises:
        ValueError: an unknown field, or text that cannot be one of its values.
    """
    if not overrides:
        return config
    sections = config.to_dict()
    for section in configs.FACTORIES:
        name, chosen = overrides.get(f"{section}.name"), sections.get(section)
        own = chosen.get("name") if isinstance(chosen, Mapping) else None
        if name not in (None, own):
            sections[section] = {"name": name}
    fields = configs.schema(sections)
    for dotted, text in overrides.items():
        if dotted not in fields:
            raise ValueError(f"--config.{configs.unknown(dotted, text, fields)}")
        try:
            value = values.parse(text, fields[dotted].type)
        except ValueError:
            value = text  # `complete` says what is wrong with it
        section, _, name = dotted.rpartition(".")
        target = sections.setdefault(section, {}) if section else sections
        if isinstance(target, dict):  # if not, `complete` says so
            target[name] = value
    return ml_collections.ConfigDict(sections)


def check_workdir(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Refuse a workdir that cannot be used for a config; nothing is written.

    Args:
        workdir: a folder, perhaps not made yet.
        config: a complete config.

    Raises:
        ValueError: it is no folder, cannot be written, belongs to another config, or
            holds files that are not a run's.
    """
    try:
        str(workdir.absolute()).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"--workdir: {str(workdir)!a} is no UTF-8, which checkpoints need in the "
            "names of their folders; give another, or set PYTHONUTF8=1 if it is"
        ) from None
    try:
        place = next(each for each in (workdir, *workdir.parents) if each.exists())
    except OSError as error:
        raise ValueError(f"--workdir: {_one_line(error)}") from None
    if not place.is_dir():
        raise ValueError(
            f"--workdir: {workdir} cannot be used, for {place} is a file; give a folder"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(
            f"--workdir: {workdir} cannot be used, for {place} cannot be written; "
            "give a folder that can"
        )
    # Late, for it needs JAX, and --help should not wait for that.
    from dib_jax.training.workdir import check_owner

    check_owner(
        workdir,
        settings.plain(config),
        completed=lambda saved: settings.plain(configs.complete(saved)),
    )


def _listed_configs() -> list[str]:
    first_lines = {}
    for path in config_files():
        try:
            docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        except (SyntaxError, ValueError):
            docstring = "(cannot be read)"
        first_lines[str(path)] = docstring.strip().partition("\n")[0]
    widest = max(map(len, first_lines), default=0)
    lines = [f"  {path:<{widest}}  {x}".rstrip() for path, x in first_lines.items()]
    return ["", "Configs:", "", *lines] if lines else []


def called(name: str) -> str:
    """How this process was told to run a command, for what is said of it.

    Args:
        name: of the command, "run".

    Returns:
        "experiments.run", or "dib_jax.commands.run" where the process was started so.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    package = f"dib_jax.commands.{name}"
    return package if spec and spec.name == package else f"experiments.{name}"


def documented(name: str, docstring: str | None, *, summary: bool = True) -> str:
    """The docstring of a command's module as its help, with the name it is called by.

    Args:
        name: of the command, "compare".
        docstring: it.
        summary: whether with its first paragraph.
    """
    text = (docstring or "").strip()
    text = text if summary else text.partition("\n\n")[2]
    return text.replace(f"-m experiments.{name}", f"-m {called(name)}")


def start(name: str) -> NoReturn:
    """Run a command on the arguments of this process, and end with its exit status.

    Args:
        name: of its module in this package: "run".
    """
    aside, command = surroundings.settle(), called(name)

    def run(arguments: list[str]) -> int | None:
        if not {"--help", "-h"} & {*arguments}:
            for line in aside:
                say(command, line)
        return importlib.import_module(f"dib_jax.commands.{name}").main(arguments)

    sys.exit(main(run, command=command, goes_on=name in _RESUMED))


def main(
    function: Callable[[list[str]], int | None],
    *,
    command: str,
    goes_on: bool = False,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a command, and turn what goes wrong into one line and an exit status.

    Status 2: bad input, that is a `ValueError` that our code or the user's raises, or a
    file or folder that cannot be used. Status 1: a failure while running, that is one
    of dib_jax's own errors. 130: Ctrl-C. Whatever else is raised, also a `ValueError`
    from inside a library, is a defect: its traceback is left as it is.

    Args:
        function: takes the arguments; returns the exit status, None for 0.
        command: "experiments.run", which starts the line.
        goes_on: whether the same command goes on where it was stopped.
        arguments: None for those of this process.

    Returns:
        The exit status, for `sys.exit`.
    """
    try:
        return _call(function, sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        again = "; the same command goes on from the last checkpoint" if goes_on else ""
        say(command, f"interrupted{again}")
        return surroundings.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; Python must not try to flush it at exit.
        surroundings.nowhere(sys.stdout)
        return 1
    except Exception as error:
        is_ours = _is_ours(type(error).__module__)
        is_bad_value = isinstance(error, ValueError) and (
            is_ours or _is_raised_by_us(error)
        )
        is_bad_input = is_bad_value or isinstance(error, OSError) or _is_start(error)
        if not (is_bad_input or is_ours):
            raise
        say(command, _one_line(error))
        return 2 if is_bad_input else 1


def _call(function: Callable[[list[str]], int | None], given: Sequence[str]) -> int:
    """The exit status, when all that was printed is out."""
    try:
        status = function(list(given))
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status or 0


# How JAX says that it has not what it was told to start with.
_STARTING = ("jax._src.xla_bridge", "jax._src.config")
_NO_START = ("Unable to initialize backend", "Unknown backend")


def _is_start(error: Exception) -> bool:
    """Whether JAX does not start in this environment: no defect of ours."""
    if not isinstance(error, RuntimeError | ValueError | AssertionError):
        return False
    frames = (frame.f_globals for frame, _ in traceback.walk_tb(error.__traceback__))
    starts = any(each.get("__name__") in _STARTING for each in frames)
    return starts or str(error).startswith(_NO_START)


def _is_raised_by_us(error: Exception) -> bool:
    """Whether a `raise` of ours or of the user's threw it.

    The traceback's last line tells. It must be a `raise`, for a call that fails in C
    leaves no line of its own, and JAX takes its lines off: then a call of ours is last.
    """
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    (last,) = traceback.extract_tb(error.__traceback__, limit=-1)
    module = frame.f_globals.get("__name__", "")
    folders = {"site-packages", "dist-packages"} & {*pathlib.Path(last.filename).parts}
    is_library = folders or module.partition(".")[0] in sys.stdlib_module_names
    is_raised = "raise" in (last.line or "").split()
    return is_raised and (_is_ours(module) or not is_library)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "dib_jax"  # installed or not


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error).split()) or type(error).__name__


def say(command: str, message: str) -> None:
    """Write a line about a command on standard error.

    Args:
        command: "experiments.run".
        message: what is to be said.
    """
    print(f"{command}: {message}", file=sys.stderr)
