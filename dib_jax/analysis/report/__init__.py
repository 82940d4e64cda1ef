"""The report of a finished run: one HTML page that shows what was measured.

`write_report` reads config.json, results.json and metrics.jsonl of a workdir and writes
figures/*.png and report.html. The page is a list of sections: those of the training,
what the task has to show of its answers (`dib_jax.tasks.exhibits`), settings and
commands.
"""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dib_jax.analysis import page
from dib_jax.analysis.figures import Rendered
from dib_jax.analysis.report import (
    commands,
    corruptions,
    exits,
    nodes,
    overview,
    shown,
    training,
)
from dib_jax.analysis.report.material import Material
from dib_jax.analysis.runs import find_baseline, read_metrics, read_run
from dib_jax.tasks.exhibits import Answers
from dib_jax.training.workdir import write_atomically

if TYPE_CHECKING:
    from dib_jax.training.finished import Trained

__all__ = ["find_baseline", "write_report"]


def write_report(
    workdir: pathlib.Path,
    trained: "Trained",
    *,
    command: str = "",
    information: Sequence[Rendered] = (),
) -> pathlib.Path:
    """Write figures/*.png and report.html of a finished run.

    Args:
        workdir: the run's folder.
        trained: the run, as `train` and `load_trained` return it.
        command: the one that made the run, to be shown; where empty, that of
            results.json, or else one that sets every field of the config is.
        information: figures of the probes, to be shown; they are saved by whoever
            draws them.

    Returns:
        The path of report.html.

    Raises:
        ValueError: the run is not finished, a file of it is damaged, or its outputs
            are not those of the test split.
        OSError: the workdir cannot be written.
    """
    run = read_run(workdir)
    dataset, task = trained.experiment.dataset, trained.experiment.task
    count = len(next(iter(dataset.test.values()), ()))
    if not 0 < count == len(trained.outputs):
        raise ValueError(
            f"outputs of {len(trained.outputs)} samples for a test split of {count}: a "
            "report needs one for each, and one at least"
        )
    answers = Answers(
        trained.outputs,
        dataset.test,
        dataset.train,
        dataset.class_names,
        run.results.get("seed") or 0,
        dataset.kind.name,
    )
    material = Material(
        run,
        read_metrics(workdir / "metrics.jsonl"),
        find_baseline(workdir),
        command or run.results.get("command") or commands.full_command(run),
        task.measures,
        answers,
        count,
        information,
        nodes.layer_features(trained),
    )
    exhibits = [shown.section(workdir, exhibit) for exhibit in task.exhibits(answers)]
    sections = (
        *training.SECTIONS, *exits.SECTIONS, *corruptions.SECTIONS, *nodes.SECTIONS,
    )  # fmt: skip
    before = [make(material) for make in sections]
    after = [make(material) for make in commands.SECTIONS]
    text = page.page(
        overview.title(run),
        subtitle=overview.subtitle(run),
        lead=overview.lead(material),
        sections=[part for part in (*before, *exhibits, *after) if part],
        footer=overview.footer(run),
    )
    path = workdir / "report.html"
    write_atomically(path, text.encode())
    return path
