"""Evaluate a finished run once more: the metrics of every exit on the test split.

python -m experiments.evaluate --workdir=DIR [--exits [--rule=RULE]
    [--loss=POINTS | --cost=SHARE | --tau=TAU] [DIR …]]
    [--corruptions [--samples=N] [DIR …]]

Restores the network of a finished run from its checkpoint and evaluates every
stage's head on the test split. With --exits a sample leaves at the first head
that is sure of it: a threshold τ is chosen on the validation split, and
accuracy, work and time are measured on the test split, beside the same network
end to end. They go into exits.json, results.json and the report. With
--corruptions the test pictures get noise, blur, JPEG, more brightness and less
contrast at five strengths; accuracy, calibration error and negative log
likelihood go into corruptions.json and the report. Several folders are runs
that differ in their seed: their means follow.

  --workdir=DIR  the folder of a run
  --exits        leave at the first head that is sure
  --rule=RULE    confidence, entropy or commitment (what algorithm.name=cascade
                 has learnt of it, the usual rule where it is there)
  --loss=POINTS  τ is the cheapest that is at most so many points of accuracy
                 below the best one on the validation split; 0.5 where no goal
                 is given
  --cost=SHARE   τ is the most accurate one of at most so many times the FLOPs
                 of the network end to end
  --tau=TAU      the threshold itself, 0 to 1
  --corruptions  classify corrupted test pictures
  --samples=N    so many of them, the same ones for every run; all without it
  --help         this
"""

import pathlib
from typing import TYPE_CHECKING, Any

from dib_jax.commands import command_line, corruptions, exits

if TYPE_CHECKING:
    from dib_jax.analysis.exits import Goal
    from dib_jax.training.finished import Trained


def evaluate_exits(
    workdirs: list[pathlib.Path], *, rule: "str | None" = None, goal: "Goal"
) -> list[dict[str, Any]]:
    """What `--exits` does, for a notebook too.

    Args:
        workdirs: of finished runs.
        rule: by which samples leave; None for the usual one.
        goal: what τ is chosen for.

    Returns:
        What exits.json of each run holds now.

    Raises:
        ValueError: a run is not finished, has no exits, or not this rule.
    """
    from dib_jax.commands.run import load_run
    from dib_jax.training.lock import owned

    found = []
    for workdir in workdirs:
        with owned(workdir):
            trained = load_run(workdir)
            found.append(exits.record(workdir, trained, rule, goal))
            _write_report(workdir, trained)
    return found


def evaluate_corruptions(
    workdirs: list[pathlib.Path], *, samples: int = 0
) -> list[dict[str, Any]]:
    """What `--corruptions` does, for a notebook too.

    Args:
        workdirs: of finished runs.
        samples: how many test pictures are used; 0 for all.

    Returns:
        What corruptions.json of each run holds now.

    Raises:
        ValueError: a run is not finished, its task is not classification of pictures,
            or there are not so many.
    """
    from dib_jax.commands.run import load_run
    from dib_jax.training.lock import owned

    found = []
    for workdir in workdirs:
        with owned(workdir):
            trained = load_run(workdir)
            found.append(corruptions.record(workdir, trained, samples=samples))
            _write_report(workdir, trained)
    return found


def _write_report(workdir: pathlib.Path, trained: "Trained") -> None:
    """The report with what was measured; findings are left as `analyze` made them."""
    from dib_jax.analysis.findings import FILE
    from dib_jax.analysis.report import write_report
    from dib_jax.commands import run

    # A run that has none yet, as one that Python trained, gets them.
    (write_report if (workdir / FILE).exists() else run.write_report)(workdir, trained)
    if any((workdir / "figures").glob("information_*")):
        command_line.say(
            command_line.called("evaluate"),
            f"the figures of analyze are no longer in {workdir}/report.html; run it "
            "again to have them there",
        )


def main(arguments: list[str]) -> None:
    """The command."""
    help = command_line.documented("evaluate", __doc__, summary=False)
    flags = ("--workdir=DIR", *exits.FLAGS, *corruptions.FLAGS)
    given = command_line.split_arguments(arguments, flags, rest="folders", help=help)
    workdir = command_line.find_workdir(given.flags)
    others = [command_line.find_workdir({"workdir": word}) for word in given.rest]
    asked = [name for name in ("exits", "corruptions") if name in given.flags]
    if len(asked) > 1:
        raise ValueError("--exits and --corruptions measure apart; give one of them")
    if others and not asked:
        raise ValueError(
            "several folders belong to --exits or --corruptions; give one, or one of "
            "these"
        )
    rule, goal = exits.read_goal(given.flags)
    samples = corruptions.read_samples(given.flags)
    # A folder that is given twice is one run, and no second sample of an interval.
    folders = {folder.resolve(): folder for folder in [workdir, *others]}
    workdirs = list(folders.values())
    if not asked:
        _evaluate(workdir)
    elif asked == ["exits"]:
        _exits(workdirs, rule, goal)
    else:
        _corruptions(workdirs, samples)


def _check_seeds(workdirs: list[pathlib.Path]) -> None:
    from dib_jax.analysis.runs import check_seeds
    from dib_jax.training.workdir import read_config

    if len(workdirs) > 1:
        check_seeds([(folder, read_config(folder)) for folder in workdirs])


def _exits(workdirs: list[pathlib.Path], rule: "str | None", goal: "Goal") -> None:
    _check_seeds(workdirs)
    found = evaluate_exits(workdirs, rule=rule, goal=goal)
    for folder, measured in zip(workdirs, found, strict=True):
        print(f"{folder}\n{exits.as_text(measured)}\n")
    if len(found) > 1:
        print(exits.over_seeds(found))


def _corruptions(workdirs: list[pathlib.Path], samples: int) -> None:
    _check_seeds(workdirs)
    found = evaluate_corruptions(workdirs, samples=samples)
    for folder, measured in zip(workdirs, found, strict=True):
        print(f"{folder}\n{corruptions.as_text([measured])}\n")
    if len(found) > 1:
        print(corruptions.as_text(found))


def _evaluate(workdir: pathlib.Path) -> None:
    # Late, so that a mistake on the command line is answered at once.
    from dib_jax.commands.run import load_run

    trained = load_run(workdir)
    names = list(trained.test[-1])
    print("stage" + "".join(f"{'test ' + name:>16}" for name in names))
    differences = []
    for entry, metrics in zip(trained.results["stages"], trained.test, strict=True):
        row = "".join(f"{metrics[name]:16.4f}" for name in names)
        print(f"{entry['stage']:5d}{row}")
        differences += [abs(metrics[name] - entry["test"][name]) for name in names]
    print(f"largest difference from results.json: {max(differences):.2g}")


if __name__ == "__main__":
    command_line.start("evaluate")
