"""The report of a finished run: one HTML page that shows what was measured.

`write_report` reads config.json, results.json and metrics.jsonl of a workdir and writes
figures/*.png and report.html. The page is a list of sections, each made by a function
of what is known of the run that returns None where it has nothing to show; `_SECTIONS`
holds them in order.
"""

import pathlib
from collections.abc import Sequence

from dib_jax.analysis import page
from dib_jax.analysis.information_figures import Rendered
from dib_jax.analysis.report import commands, overview, pictures, training
from dib_jax.analysis.report.material import (
    Material,
    Predictions,
    check,
    find_baseline,
    read_metrics,
    read_run,
)
from dib_jax.tasks.worth import measure
from dib_jax.training.workdir import write_atomically

__all__ = ["Predictions", "find_baseline", "write_report"]

_SECTIONS = (*training.SECTIONS, *pictures.SECTIONS, *commands.SECTIONS)


def write_report(
    workdir: pathlib.Path,
    predictions: Predictions,
    *,
    command: str = "",
    information: Sequence[Rendered] = (),
) -> pathlib.Path:
    """Write figures/*.png and report.html of a finished run.

    Args:
        workdir: the run's folder.
        predictions: of the test split by the last stage.
        command: the one that made the run, to be shown; where empty, one that sets
            every field of the config is.
        information: figures of the probes, to be shown; they are saved by whoever
            draws them.

    Returns:
        The path of report.html.

    Raises:
        ValueError: the run is not finished, a file of it is damaged, or the shapes of
            `predictions` do not fit together.
        OSError: the workdir cannot be written.
    """
    check(predictions)
    run = read_run(workdir)
    material = Material(
        run,
        read_metrics(workdir / "metrics.jsonl"),
        predictions,
        find_baseline(workdir),
        command or commands.full_command(run),
        predictions.boxes
        and measure(predictions.boxes, num_classes=len(predictions.class_names)),
        information,
    )
    (workdir / "figures").mkdir(exist_ok=True)
    sections = [made for section in _SECTIONS if (made := section(material))]
    text = page.page(
        overview.title(run),
        subtitle=overview.subtitle(run),
        lead=overview.lead(material),
        sections=sections,
        footer=overview.FOOTER,
    )
    path = workdir / "report.html"
    write_atomically(path, text.encode())
    return path
