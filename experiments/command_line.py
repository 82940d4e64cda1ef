"""What every command does with its command line, and how it says what is wrong.

A mistake gives one line on standard error and exit status 2, and nothing is written.
"""

import ast
import dis
import inspect
import os
import pathlib
import shutil
import site
import sys
import sysconfig
import textwrap
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import ml_collections

from dib_jax.training import config as configs
from dib_jax.training import values
from dib_jax.training.build import nearest

_HELP = "--help"
# Where our own errors come from; what `python -m` runs is "__main__".
_OWN = ("dib_jax", "experiments", "__main__")


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


class Experiment(NamedTuple):
    """What the command line of `experiments.run` asks for.

    Attributes:
        config: complete and checked.
        config_name: the config file without folder and ending.
        variant: "full", or what stands behind the colon: "quick".
        workdir: where the run goes.
        devices: how many of this machine's share each batch; None for all.
        distributed: whether several processes make the run.
    """

    config: ml_collections.ConfigDict
    config_name: str
    variant: str
    workdir: pathlib.Path
    devices: int | None
    distributed: bool


class ConfigFile(NamedTuple):
    """A config file that was read.

    Attributes:
        path: where it lies.
        name: without folder and ending.
        variant: "full", or what stands behind the colon.
        config: what `get_config` returned, not yet checked.
    """

    path: pathlib.Path
    name: str
    variant: str
    config: ml_collections.ConfigDict


def split_arguments(
    arguments: Sequence[str],
    flags: Sequence[str],
    *,
    switches: Sequence[str] = (),
    overrides: bool = False,
    rest: str = "",
) -> Arguments:
    """Take a command line apart.

    `--flag=value` and `--flag value` are the same; `--` ends the flags.

    Args:
        arguments: without the command's own name.
        flags: names of those that the command knows, without dashes; each has a value.
        switches: names of those that have none.
        overrides: whether `--config.field=value` is one of them.
        rest: what else the command takes, in words; "" for nothing.

    Raises:
        ValueError: an unknown flag, one without a value or given twice, or something
            that is no flag where the command takes nothing else.
    """
    found = Arguments({}, {}, [], False)
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            found.rest.extend(waiting)
            break
        if word in (_HELP, "-h"):
            found = found._replace(help=True)
            continue
        if not word.startswith("-") or word == "-":
            found.rest.append(word)
            continue
        dashed, equals, value = word.partition("=")
        name = dashed.lstrip("-")
        is_override = overrides and name.startswith("config.") and name != "config."
        is_known = name in (*flags, *switches) and dashed.startswith("--")
        if not is_override and not is_known:
            known = [f"--{flag}" for flag in (*flags, *switches, "help")]
            also = ", --config.FIELD" if overrides else ""
            raise ValueError(
                f"unknown flag {dashed}; the flags are {', '.join(known)}{also}"
                f"{nearest(f'--{name}', known, form='{}')}"
            )
        if name in switches:
            if equals:
                raise ValueError(f"{dashed} has no value: write it alone")
        elif not equals:
            if not waiting or waiting[0].startswith("--"):
                raise ValueError(f"{dashed} needs a value: {dashed}=VALUE")
            value = waiting.pop(0)
        target = found.overrides if is_override else found.flags
        key = name.removeprefix("config.") if is_override else name
        if key in target:
            raise ValueError(
                f"{dashed} is given twice, as {target[key]!r} and as {value!r}; "
                "give it once"
            )
        target[key] = value
    if found.rest and not rest:
        raise ValueError(
            f"{found.rest[0]!r} is no flag; write --FLAG=VALUE, with one of "
            f"{', '.join(f'--{flag}' for flag in flags)}"
        )
    return found


def read_experiment(
    arguments: Sequence[str], *, command: str, purpose: str
) -> Experiment:
    """What a command with `--config` and `--workdir` is asked to do.

    With `--help` it prints the help and exits.

    Args:
        arguments: without the command's own name.
        command: "experiments.run".
        purpose: what the command does, in a sentence, for `--help`.

    Returns:
        A checked config, and a workdir that may be used for it; nothing is written.

    Raises:
        ValueError: a mistake in flags, config or workdir.
        FileNotFoundError: there is no such config file.
    """
    given = split_arguments(
        arguments,
        ("config", "workdir", "devices"),
        switches=("distributed",),
        overrides=True,
    )
    if given.help and "config" not in given.flags:
        print(_usage(command, purpose))
        raise SystemExit(0)
    if "config" not in given.flags:
        raise ValueError(
            "--config is missing: give --config=PATH, one of "
            f"{', '.join(map(str, _config_files(_configs_folder()))) or 'your own'}; "
            "--help says more"
        )
    file = load_config(given.flags["config"])
    usual = configs.flatten(file.config.to_dict()).get("schedule.name", "")
    config = configs.complete(override(file.config, given.overrides))
    if "workdir" in given.flags and "workdir" in given.overrides:
        raise ValueError(
            f"the workdir is given twice, as --workdir={given.flags['workdir']} and as "
            f"--config.workdir={given.overrides['workdir']}; give it once"
        )
    devices, distributed = given.flags.get("devices"), "distributed" in given.flags
    if devices is not None and not (devices.isdecimal() and int(devices) > 0):
        raise ValueError(f"--devices must be a whole number ≥ 1, got {devices!r}")
    if devices is not None and distributed:
        raise ValueError(
            "--devices and --distributed exclude each other: several processes use all "
            "their devices"
        )
    if given.flags.get("workdir") == "":
        raise ValueError("--workdir is empty; give a folder, or leave the flag out")
    workdir = pathlib.Path(
        given.flags.get("workdir")
        or config.workdir
        or configs.default_workdir(
            file.name, file.variant, config, usual_schedule=usual
        )
    ).expanduser()
    if given.help:
        print(_usage(command, purpose, given.flags["config"]))
        print(f"\nThe fields of {given.flags['config']}, as they are set now:\n")
        print(configs.describe(config, width=_width()))
        print(f"\nThe run would go to {workdir}.")
        raise SystemExit(0)
    check_workdir(workdir, config)
    config.workdir = str(workdir)
    count = None if devices is None else int(devices)
    return Experiment(config, file.name, file.variant, workdir, count, distributed)


def read_workdir(
    arguments: Sequence[str], *, command: str, purpose: str
) -> pathlib.Path:
    """The folder of a run, for a command that takes only `--workdir`.

    With `--help` it prints the help and exits.

    Args:
        arguments: without the command's own name.
        command: "experiments.evaluate".
        purpose: what the command does, in a sentence, for `--help`.

    Raises:
        ValueError: a mistake in the flags, or no run is there.
    """
    given = split_arguments(arguments, ("workdir",))
    if given.help:
        print(f"python -m {command} --workdir=DIR\n")
        print("\n".join(textwrap.wrap(purpose, _width())))
        print("\n  --workdir=DIR  the folder of a run\n  --help         this")
        raise SystemExit(0)
    return find_workdir(given.flags)


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


def load_config(path_and_variant: str) -> ConfigFile:
    """Run the `get_config` of a config file.

    Args:
        path_and_variant: "configs/NAME.py", or "configs/NAME.py:VARIANT"; also where
            there is no such folder, of the installed package.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no config file, or has no such variant, or has a mistake.
    """
    path, variant = pathlib.Path(path_and_variant), ""
    if not path.is_file():
        before, _, variant = path_and_variant.rpartition(":")
        path = pathlib.Path(before or path_and_variant)
        variant = variant if before else ""
    if not path.is_file() and path.parts[:1] == ("configs",):
        # Outside of a checkout: the files that were installed with the package.
        installed = pathlib.Path(__file__).parents[1] / path
        path = installed if installed.is_file() else path
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
        if variant and not inspect.signature(get_config).parameters:
            raise ValueError(f"it has no variants, so no {variant!r} either")
        config = get_config(variant) if variant else get_config()
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
    return ConfigFile(path, path.stem, variant or "full", config)


def _where(path: pathlib.Path, error: BaseException) -> str:
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if line is None or frame.filename == str(path):
            line = frame.lineno if frame.filename == str(path) else line
    message = error.msg if isinstance(error, SyntaxError) else _one_line(error)
    return f"{path}:{line}: {type(error).__name__}: {message}"


def _not_found(path: pathlib.Path) -> str:
    folders = (path.parent, _configs_folder())
    files = {str(file): file for folder in folders for file in _config_files(folder)}
    name = path.name if path.suffix else f"{path.name}.py"
    by_name = {file.name: written for written, file in reversed(files.items())}
    hint = nearest(name, by_name)
    for file_name, written in by_name.items():
        hint = hint.replace(repr(file_name), written)
    what = "a folder, not a config file" if path.is_dir() else "not there"
    return f"--config: {path} is {what}; there are {', '.join(files) or 'none'}{hint}"


def _config_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        file
        for file in folder.glob("*.py")
        if "get_config" in file.read_text(encoding="utf-8", errors="replace")
    )


def override(
    config: ml_collections.ConfigDict, overrides: Mapping[str, str]
) -> ml_collections.ConfigDict:
    """A copy of a config with fields as the command line has them.

    Where the name of a model, head, task or objective is another than the file's, the
    file's options of that section are dropped: they were the other one's.

    Args:
        config: as the file has it.
        overrides: text by dotted field.

    Raises:
        ValueError: an unknown field, or text that cannot be one of its values.
    """
    sections = config.to_dict()
    for section in configs.FACTORIES:
        name = overrides.get(f"{section}.name")
        chosen = sections.get(section)
        if name is not None and not (
            isinstance(chosen, Mapping) and chosen.get("name") == name
        ):
            sections[section] = {"name": name}
    if not overrides:
        return config
    fields = configs.schema(sections)
    for dotted, text in overrides.items():
        if dotted not in fields:
            raise ValueError(f"--config.{configs.unknown(dotted, text, fields)}")
        field = fields[dotted]
        try:
            value = values.parse(text, field.type)
        except ValueError:
            value = text  # `complete` says what is wrong with it
        section, _, name = dotted.rpartition(".")
        if not section:
            sections[name] = value
        elif isinstance(sections.setdefault(section, {}), dict):
            sections[section][name] = value
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
    for place in (workdir, *workdir.parents):
        try:
            exists = place.exists()
        except OSError as error:
            raise ValueError(f"--workdir: {_one_line(error)}") from None
        if not exists:
            continue
        if not place.is_dir():
            raise ValueError(
                f"--workdir: {workdir} cannot be used, for {place} is a file; give a "
                "folder"
            )
        if not os.access(place, os.W_OK | os.X_OK):
            raise ValueError(
                f"--workdir: {workdir} cannot be used, for {place} cannot be written; "
                "give a folder that can"
            )
        break
    # Late, for it needs JAX, and --help should not wait for that.
    from dib_jax.training.workdir import check_owner

    check_owner(workdir, config)


def _usage(command: str, purpose: str, config: str = "") -> str:
    shown = config or "configs/NAME.py[:quick]"
    lines = [
        f"python -m {command} --config={shown} [--workdir=DIR]",
        "    [--devices=N | --distributed] [--config.FIELD=VALUE …]",
        "",
        *textwrap.wrap(purpose, _width()),
        "",
        "  --config=PATH[:VARIANT]  config file; :quick is a run of a minute or two",
        "  --workdir=DIR            where the run goes; the same command on the same",
        "                           folder goes on where it stopped",
        "  --devices=N              devices that share each batch; otherwise all",
        "  --distributed            one of several processes, all with this command;",
        "                           the workdir is the first one's",
        "  --config.FIELD=VALUE     set a field of the config, e.g. --config.seed=1",
        "  --help                   this; with --config also every field and its value",
    ]
    if not config:
        lines += ["", "Configs:", "", *_listed_configs()]
    return "\n".join(lines)


def _listed_configs() -> list[str]:
    rows = []
    for path in _config_files(_configs_folder()):
        try:
            docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        except (SyntaxError, ValueError):
            docstring = "(cannot be read)"
        rows.append((str(path), docstring.strip().partition("\n")[0]))
    widest = max((len(path) for path, _ in rows), default=0)
    return [f"  {path:<{widest}}  {summary}".rstrip() for path, summary in rows]


def _configs_folder() -> pathlib.Path:
    here = pathlib.Path("configs")
    return here if here.is_dir() else pathlib.Path(__file__).parents[1] / "configs"


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 120)


def main(
    function: Callable[[list[str]], int | None],
    *,
    command: str,
    goes_on: bool = False,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a command, and turn what goes wrong into one line and an exit status.

    Status 2: bad input, that is a `ValueError` raised by our code or the user's, or a
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
        status = function(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return status or 0
    except KeyboardInterrupt:
        again = "; the same command goes on from the last checkpoint" if goes_on else ""
        _say(command, f"interrupted{again}")
        return 130
    except BrokenPipeError:
        # The reader of our output is gone; Python must not try to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        status = _status(error)
        if status is None:
            raise
        _say(command, _one_line(error))
        return status


def _status(error: Exception) -> int | None:
    is_own = type(error).__module__.partition(".")[0] in _OWN
    if isinstance(error, OSError):
        return 2
    if isinstance(error, ValueError):
        return 2 if is_own or _raised_by_own_code(error) else None
    return 1 if is_own else None


def _raised_by_own_code(error: Exception) -> bool:
    """Whether a `raise` outside of installed libraries and Python itself did it.

    JAX takes its own frames off a traceback, so that the last one left can be an
    innocent call of ours: only a frame that stands at a `raise` counts.
    """
    last = error.__traceback__
    if last is None:
        return False
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    if dis.opname[code.co_code[last.tb_lasti]] != "RAISE_VARARGS":
        return False
    module = last.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    if module in _OWN:  # they may be installed, too
        return True
    paths = sysconfig.get_paths()
    libraries = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    path = os.path.realpath(code.co_filename)
    return not any(
        path.startswith(os.path.realpath(library) + os.sep)
        for library in (*libraries, *site.getsitepackages(), site.getusersitepackages())
    )


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error).split()) or type(error).__name__


def _say(command: str, message: str) -> None:
    print(f"{command}: {message}", file=sys.stderr)
