"""Train, evaluate and report one experiment, its data set downloaded where it can be.

python -m experiments.run --config=configs/NAME.py[:quick] [--workdir=DIR]
    [--devices=N | --distributed] [--watch=NAME] [--config.FIELD=VALUE …]

Trains the network of a config stage by stage, evaluates it on the test split
and writes a report. The same command goes on where it stopped.

  --config=PATH[:VARIANT]  config file; :quick is a run of a minute or two
  --workdir=DIR            where the run goes; the same command on the same
                           folder goes on where it stopped
  --devices=N              devices that share each batch; otherwise all
  --distributed            one of several processes, all with this command; the
                           workdir is the first one's
  --watch=NAME             who gets every line of metrics.jsonl at once: tensorboard,
                           or file:function of your own, called with the workdir
  --config.FIELD=VALUE     set a field of the config, e.g. --config.seed=1
  --help                   this; with --config also every field and its value
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import shlex
from typing import TYPE_CHECKING, Any

import ml_collections

from dib_jax import settings
from dib_jax.commands import command_line, surroundings
from dib_jax.commands.config import complete
from dib_jax.commands.prepare import prepare
from dib_jax.commands.registry import find, prefixed

if TYPE_CHECKING:
    from dib_jax.training.finished import Trained
    from dib_jax.training.records import Watch


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    *,
    config_name: str,
    command: str = "",
    devices: int | None = None,
    watch: "Watch | None" = None,
) -> pathlib.Path:
    """Everything that the command does, for a notebook too.

    Args:
        config: a config, as its file's `get_config` returns it.
        workdir: a new or empty folder, or that of an earlier start of the same config.
        config_name: of the experiment, for results.json and the report.
        command: that makes the run, for the report; one is composed where it is empty.
        devices: how many of this process's devices share each batch; None for all
            devices of all processes.
        watch: called with every line of metrics.jsonl as soon as it is written, a dict.

    Returns:
        The path of the report.

    Raises:
        ValueError: the config or the data cannot be used, or the workdir is another
            config's or in use by another process.
    """
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax.commands import exits
    from dib_jax.training.devices import from_first, is_first, together
    from dib_jax.training.finished import on_own_device
    from dib_jax.training.lock import owned
    from dib_jax.training.workdir import finished

    with contextlib.ExitStack() as stack:

        def own() -> None:
            # What is not there is made when the config and the data are known to do.
            if is_first() and (workdir / "config.json").exists():
                stack.enter_context(owned(workdir))

        together(own)  # before the data are read
        if from_first(lambda: finished(workdir)):
            from_first(lambda: _check_own(workdir, config))
            trained = load_run(workdir)
        else:
            trained = train_run(
                config,
                workdir,
                config_name=config_name,
                command=command,
                devices=devices,
                watch=watch,
                held=stack,
            )

        def finish() -> str:
            mine = on_own_device(trained)
            exits.record_own(workdir, mine)
            return str(write_report(workdir, mine, command=command))

        report = from_first(finish)
    return pathlib.Path(report)


def write_report(
    workdir: pathlib.Path, trained: "Trained", *, command: str = ""
) -> pathlib.Path:
    """Write what the probes of a finished run show, and its report.

    Args:
        workdir: of the run.
        trained: the run.
        command: that makes it; one is composed where it is empty.

    Returns:
        The path of the report.
    """
    from dib_jax.analysis import findings, recording, report

    if recording.write_information(workdir):
        found = findings.find([findings.read_probed(workdir)])
        findings.write_findings(workdir, found)
    return report.write_report(workdir, trained, command=command)


def train_run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    *,
    config_name: str,
    command: str = "",
    devices: int | None = None,
    watch: "Watch | None" = None,
    held: contextlib.ExitStack | None = None,
) -> "Trained":
    """Train the experiment of a config with its probes, and write no report.

    Args:
        config: as for `run`.
        workdir: as for `run`.
        config_name: as for `run`.
        command: as for `run`.
        devices: as for `run`.
        watch: as for `run`.
        held: until it is closed no other process gets the workdir; None: until the end.

    Returns:
        The finished run.
    """
    from dib_jax.analysis.recording import recorder
    from dib_jax.commands.assemble import assemble
    from dib_jax.data.dataset import SPLITS, lacking_classes
    from dib_jax.training.devices import (
        choose,
        from_first,
        in_turn,
        is_first,
        together,
    )
    from dib_jax.training.train import train

    config = complete(config)
    # Not at once: they may share a disk, and then the first one does it for all.
    in_turn(lambda: _prepare_missing(config))
    mesh = choose(devices, batch_size=config.batch_size)
    experiment = together(lambda: assemble(config, name=config_name, mesh=mesh))
    if command:
        about = {**experiment.about, "command": command}
        experiment = experiment._replace(about=about)
    dataset = experiment.dataset
    splits = {split: getattr(dataset, split) for split in SPLITS}
    if is_first() and (lacking := lacking_classes(splits, dataset.class_names)):
        command_line.say(command_line.called("run"), lacking)
    if saved := from_first(lambda: _saved(workdir, config)):
        experiment = experiment._replace(config=saved)
    observer = recorder(workdir, config.to_dict())
    return train(experiment, workdir, observer=observer, watch=watch, held=held)


def _check_own(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Refuse another config's finished run, whose numbers would pass for ours."""
    from dib_jax.training.workdir import check_owner

    check_owner(
        workdir,
        settings.plain(complete(config)),
        completed=lambda saved: settings.plain(complete(saved)),
    )


def _saved(
    workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> dict[str, Any] | None:
    """The config of a run by an earlier version, which lacks what is a default now."""
    from dib_jax.training.workdir import read_config

    if not (workdir / "config.json").exists():
        return None
    saved = read_config(workdir)
    with contextlib.suppress(ValueError):
        if not settings.differences(complete(saved), config):
            return saved
    return None


def load_run(workdir: pathlib.Path) -> "Trained":
    """A finished run, its test outputs computed anew.

    Args:
        workdir: of the run.

    Raises:
        ValueError: there is no finished run.
        FileNotFoundError: the data set is not there any more.
        dib_jax.checkpoints.CheckpointError: the checkpoint of its end is damaged.
    """
    from dib_jax.commands.assemble import assemble
    from dib_jax.training.devices import from_first, together
    from dib_jax.training.finished import load_trained
    from dib_jax.training.workdir import read_config, read_results

    from_first(lambda: read_results(workdir))  # whether there is one
    config = complete(from_first(lambda: read_config(workdir)))
    return load_trained(together(lambda: assemble(config)), workdir)


def _prepare_missing(config: ml_collections.ConfigDict) -> None:
    """Download the data set of a config, if it is one that can be and is not there."""
    from dib_jax import data
    from dib_jax.data.preparation import is_downloadable, is_prepared

    name, root = config.dataset.name, data.data_root(config.dataset.data_dir)
    if is_downloadable(name) and not is_prepared(name, root):
        print(f"contact sheet: {prepare(name, data_dir=str(root))}")


def keep_programs() -> None:
    """Have JAX keep compiled programs for the next run; unless it is told where to.

    In the user's cache folder, apart for each kind of processor: a home may be shared,
    and what is compiled for one need not run on another.
    """
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    facts, about = [platform.machine(), platform.processor()], "/proc/cpuinfo"
    if os.path.exists(about):
        with open(about, encoding="utf-8") as lines:
            facts += [line for line in lines if line.startswith(("flags", "Features"))]
    digest = hashlib.sha256("".join(facts[:3]).encode()).hexdigest()[:12]
    folder = surroundings.programs_folder(f"programs-{digest}")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def main(arguments: list[str]) -> None:
    """The command."""
    name = command_line.called("run")
    help = command_line.documented("run", __doc__, summary=False)
    request = command_line.read_request(arguments, help=help)
    keep_programs()
    from dib_jax.training import digests
    from dib_jax.training.devices import from_first, initialize, is_first
    from dib_jax.training.workdir import finished, read_results

    if request.distributed:
        initialize()
        from_first(lambda: command_line.check_workdir(request.workdir, request.config))
    watch = watcher = None
    if request.watch:
        with prefixed("--watch: "):
            watcher = find("commands.watchers", request.watch)
    workdir = request.workdir
    report = workdir / "report.html"
    already = from_first(lambda: finished(workdir) and report.is_file())
    if already:
        from_first(lambda: digests.check(workdir, ""))
    if not already:
        # Of a run that trains, and of the process that has its lines.
        if watcher and is_first():
            with prefixed("--watch: "):
                watch = watcher(workdir)
        report = run(
            request.config,
            workdir,
            config_name=request.config_name,
            command=f"python -m {name} {shlex.join(arguments)}",
            devices=request.devices,
            watch=watch,
        )
    if not is_first():
        return
    results = read_results(workdir)
    metric = results["metric"]
    print(
        f"{'already finished: ' if already else ''}test {metric} "
        f"{results['test'][metric]:.4f}, report {report}"
    )


if __name__ == "__main__":
    command_line.start("run")
