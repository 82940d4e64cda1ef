"""What the probes of runs show: sentences, tables, findings.json and the report's part.

python -m experiments.analyze --workdir=DIR [DIR …]

Reads the probes of runs, finished or still training, and says what they show:
in which order the stages converge, whether information flows as along a Markov
chain, how far the estimator itself can be trusted. Runs of one config that
differ in their seed are taken together. Writes findings.json and figures into
each folder, and the report of each finished run anew. Several configs are drawn
side by side; a finished run alone, beside its end-to-end baseline.

  --workdir=DIR  the folder of a run
  --help         this
"""

import pathlib
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dib_jax.commands import command_line

if TYPE_CHECKING:
    from dib_jax.analysis.figures import Rendered
    from dib_jax.analysis.findings import Probed


def analyze(workdirs: list[pathlib.Path]) -> str:
    """Everything that the command does, for a notebook too.

    Args:
        workdirs: of probed runs.

    Returns:
        Sentences and tables of all of them, as text.

    Raises:
        ValueError: a run was not probed, two are of one config and seed, or a file is
            damaged.
    """
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax.analysis import figures, findings, information_figures
    from dib_jax.analysis.recording import write_information
    from dib_jax.training.devices import own_devices
    from dib_jax.training.workdir import finished

    own_devices()  # or it is said why there is none
    found = findings.groups([findings.read_probed(workdir) for workdir in workdirs])
    beside, roles = findings.differentiation(found)
    parts = []
    for runs in found:
        made = findings.find(runs, controls=True)
        if beside:
            made = made._replace(tables=[*made.tables, roles])
            made = made._replace(sentences=[*made.sentences, *beside])
        others = [group for group in found if group is not runs]
        others = others or _baseline(runs[0].workdir)
        drawings = information_figures.drawings(runs, others)
        drawn = [figures.render(drawing) for drawing in drawings]
        for run in runs:
            findings.write_findings(run.workdir, made)
            write_information(run.workdir)
            figures.save(run.workdir, drawn)
            if finished(run.workdir):
                _report(run.workdir, drawn)
        # Of all groups together it is said once, at the end.
        said = _filled(s for s in made.sentences if s not in beside)
        tables = [findings.as_text(t) for t in made.tables if t is not roles]
        parts.append("\n\n".join([said, *tables]))
    if len(found) > 1:
        parts.append(findings.as_text(findings.compare(found)))
    if beside:
        parts.append(f"{_filled(beside)}\n\n{findings.as_text(roles)}")
    return "\n\n\n".join(parts)


def _filled(sentences: Iterable[str]) -> str:
    return "\n".join(textwrap.fill(sentence, 88) for sentence in sentences)


def _baseline(workdir: pathlib.Path) -> "list[list[Probed]]":
    """The run that a finished one's report compares it with, where it is probed."""
    from dib_jax.analysis.findings import read_probed
    from dib_jax.analysis.runs import find_baseline
    from dib_jax.training.workdir import finished

    baseline = find_baseline(workdir) if finished(workdir) else None
    try:
        return [[read_probed(baseline.workdir)]] if baseline else []
    except ValueError:
        return []  # not probed, or damaged: the report does not need it


def _report(workdir: pathlib.Path, drawn: "list[Rendered]") -> None:
    """The report of a finished run once more; a line where its data set is not here."""
    from dib_jax.analysis.report import write_report
    from dib_jax.commands.run import load_run

    try:
        trained = load_run(workdir)
    except FileNotFoundError as error:
        print(f"{workdir}: the report stays as it is: {error}", file=sys.stderr)
        return
    write_report(workdir, trained, information=drawn)


def main(arguments: list[str]) -> None:
    """The command."""
    help = command_line.documented("analyze", __doc__, summary=False)
    given = command_line.split_arguments(
        arguments, ("--workdir=DIR",), rest="folders", help=help
    )
    first = command_line.find_workdir(given.flags)
    others = [command_line.find_workdir({"workdir": folder}) for folder in given.rest]
    # A folder that is given twice is one run, and no second sample of an interval.
    folders = {folder.resolve(): folder for folder in [first, *others]}
    print(analyze(list(folders.values())))


if __name__ == "__main__":
    command_line.start("analyze")
