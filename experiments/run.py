"""Train, evaluate and report one experiment, its data set downloaded where it can be.

python -m experiments.run --config=configs/NAME.py[:quick] [--workdir=DIR]
    [--devices=N | --distributed] [--config.FIELD=VALUE …]
"""

import hashlib
import os
import pathlib
import platform
import shlex
import sys
from typing import TYPE_CHECKING

import ml_collections
import numpy as np

from experiments import command_line
from experiments.prepare import prepare

if TYPE_CHECKING:
    from dib_jax.analysis.report import Predictions
    from dib_jax.training.train import Trained

_PURPOSE = (
    "Trains the network of a config stage by stage, evaluates it on the test split and "
    "writes a report. The same command goes on where it stopped."
)


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    *,
    config_name: str,
    command: str = "",
    devices: int | None = None,
) -> pathlib.Path:
    """Everything that the command does, for a notebook too.

    Args:
        config: a config, as its file's `get_config` returns it.
        workdir: a new or empty folder, or that of an earlier start of the same config.
        config_name: of the experiment, for results.json and the report.
        command: that makes the run, for the report; one is composed where it is empty.
        devices: as for `dib_jax.training.train.train`.

    Returns:
        The path of the report.
    """
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax.analysis.findings import find, read_run, write_findings
    from dib_jax.analysis.recording import recorder, write_information
    from dib_jax.analysis.report import write_report
    from dib_jax.training.config import complete
    from dib_jax.training.devices import from_first, in_turn
    from dib_jax.training.train import load_trained, train
    from dib_jax.training.workdir import finished

    config = complete(config)
    if from_first(lambda: finished(workdir)):
        trained = load_trained(workdir)
    else:
        # Not at once: they may share a disk, and then the first one does it for all.
        in_turn(lambda: _prepare_missing(config))
        trained = train(
            config,
            workdir,
            config_name=config_name,
            observer=recorder(workdir, config),
            devices=devices,
        )

    def report() -> str:
        if write_information(workdir):
            write_findings(workdir, find([read_run(workdir)]))
        return str(write_report(workdir, predictions(trained), command=command))

    return pathlib.Path(from_first(report))


def _prepare_missing(config: ml_collections.ConfigDict) -> None:
    """Download the data set of a config, if it is one that can be and is not there."""
    from dib_jax import data
    from dib_jax.data.preparation import is_downloadable, is_prepared

    name, root = config.dataset.name, data.data_root(config.dataset.data_dir)
    if is_downloadable(name) and not is_prepared(name, root):
        print(f"contact sheet: {prepare(name, data_dir=str(root))}")


def predictions(trained: "Trained") -> "Predictions":
    """What the last stage says of the test split, as the report wants it.

    Args:
        trained: a finished run.
    """
    import jax

    from dib_jax.analysis.report import Predictions
    from dib_jax.tasks.detection import largest_found
    from dib_jax.tasks.worth import gather

    task, dataset = trained.experiment.task, trained.experiment.dataset
    said = jax.tree.map(np.asarray, jax.jit(task.objects)(trained.outputs))
    labels, scores, boxes = said.labels[:, 0], said.scores[:, 0], None
    if task.uses_boxes:
        labels, scores = map(np.asarray, largest_found(said)[:2])
        boxes = gather(said, dataset.test, dataset.train)
    return Predictions(
        images=dataset.test["images"],
        labels=dataset.test["labels"],
        predicted=labels,
        confidence=scores,
        class_names=dataset.class_names,
        boxes=boxes,
    )


def keep_programs() -> None:
    """Have JAX keep compiled programs for the next run; unless it is told where to.

    In the user's cache folder, apart for each kind of processor: a home may be shared,
    and what is compiled for one need not run on another.
    """
    import jax

    if jax.config.jax_compilation_cache_dir:
        return
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    facts, about = [platform.machine(), platform.processor()], "/proc/cpuinfo"
    if os.path.exists(about):
        with open(about, encoding="utf-8") as lines:
            facts += [line for line in lines if line.startswith(("flags", "Features"))]
    digest = hashlib.sha256("".join(facts[:3]).encode()).hexdigest()[:12]
    folder = pathlib.Path(base) / "dib_jax" / f"programs-{digest}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def main(arguments: list[str]) -> None:
    """The command."""
    experiment = command_line.read_experiment(
        arguments, command="experiments.run", purpose=_PURPOSE
    )
    keep_programs()
    from dib_jax.training.devices import from_first, initialize, is_first
    from dib_jax.training.workdir import finished, read_results

    if experiment.distributed:
        initialize()
    workdir = experiment.workdir
    report = workdir / "report.html"
    already = from_first(lambda: finished(workdir) and report.is_file())
    if not already:
        report = run(
            experiment.config,
            workdir,
            config_name=experiment.config_name,
            command=f"python -m experiments.run {shlex.join(arguments)}",
            devices=experiment.devices,
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
    sys.exit(command_line.main(main, command="experiments.run", goes_on=True))
