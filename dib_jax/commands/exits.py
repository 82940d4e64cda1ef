"""Exits on the command line: what is asked for, what is measured and where it goes."""

import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from dib_jax.analysis.exits import Goal
    from dib_jax.training.experiment import Experiment
    from dib_jax.training.finished import Trained

FLAGS = ("--exits", "--rule=RULE", "--loss=POINTS", "--cost=SHARE", "--tau=TAU")
_WANTED = ("loss", "cost", "tau")
# Of a threshold in per cent or as a share, how large it may be.
_LARGEST = {"loss": 100.0, "cost": math.inf, "tau": 1.0}


def read_goal(flags: Mapping[str, str]) -> "tuple[str | None, Goal]":
    """The rule that is asked for, None for the usual one, and what τ is chosen for.

    Args:
        flags: value by name, as `split_arguments` gives them.

    Raises:
        ValueError: a flag without `--exits`, two goals, or a number out of range.
    """
    from dib_jax.algorithms.exits import check_rule
    from dib_jax.analysis.exits import Goal

    asked = [name for name in ("rule", *_WANTED) if name in flags]
    if asked and "exits" not in flags:
        raise ValueError(f"--{asked[0]} belongs to --exits; give both")
    goals = [name for name in _WANTED if name in flags]
    if len(goals) > 1:
        raise ValueError(
            f"--{goals[0]} and --{goals[1]} are two goals; give one of --loss, --cost "
            "and --tau"
        )
    if "rule" in flags:
        check_rule(flags["rule"])
    numbers = {name: _number(name, flags[name]) for name in goals}
    if "loss" in numbers:
        numbers["loss"] /= 100
    return flags.get("rule"), Goal(**numbers)


def _number(name: str, text: str) -> float:
    largest = _LARGEST[name]
    allowed = "a number above 0" if name == "cost" else f"a number 0 to {largest:g}"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= largest or (name == "cost" and not 0 < value < math.inf):
        raise ValueError(f"--{name} must be {allowed}, got {text!r}")
    return value


class Leaving(NamedTuple):
    """When a sample leaves a network.

    Attributes:
        rule: by which it is sure.
        tau: sureness from which it leaves, 0 to 1.
    """

    rule: str
    tau: float

    def outputs(self, experiment: "Experiment", network: Any) -> Callable[..., Any]:
        """(experiment, network, samples) → outputs, and of each the stage it left at.

        Args:
            experiment: whose network it is.
            network: a trained one.

        Raises:
            ValueError: the network has no exits, or not this rule.
        """
        from dib_jax.analysis import exits

        exits.check_rule(self.rule, exits.available(experiment, network))
        numbers = [n for p in experiment.phases if p.predicts for n in p.exits]
        run = exits.runner(experiment, self.rule)

        def outputs_of(
            experiment: "Experiment", network: Any, samples: dict[str, np.ndarray]
        ) -> tuple[np.ndarray, list[int]]:
            found = run(network, dict(experiment.common), samples, self.tau)
            return found.outputs, [numbers[place] for place in found.exits]

        return outputs_of


def read_leaving(workdir: pathlib.Path, flags: Mapping[str, str]) -> Leaving | None:
    """When samples leave a network, as flags say, or exits.json where they do not.

    Args:
        workdir: of the run.
        flags: value by name, as `split_arguments` gives them.

    Returns:
        None without `--exits`.

    Raises:
        ValueError: a flag is wrong, τ is given neither by one nor in exits.json, or
            exits.json is damaged.
    """
    rule, goal = read_goal(flags)
    if "exits" not in flags:
        return None
    from dib_jax.analysis.exits import FILE
    from dib_jax.analysis.runs import read_json

    path = workdir / FILE
    chosen = read_json(path) if path.exists() else {}
    if chosen and not isinstance(found := chosen.get("tau"), int | float):
        raise ValueError(f"{path} is damaged: its threshold tau is {found!r}")
    same = rule in (None, chosen.get("rule"))
    tau = goal.tau if goal.tau is not None else chosen.get("tau") if same else None
    if tau is None:
        of = f" for the rule {rule}" if chosen and rule else ""
        raise ValueError(
            f"--exits: no threshold has been chosen{of} in {workdir}; give --tau, or "
            "first run `python -m experiments.evaluate --exits` on that folder"
        )
    return Leaving(rule or chosen.get("rule", "confidence"), tau)


def record(
    workdir: pathlib.Path, trained: "Trained", rule: "str | None", goal: "Goal"
) -> dict[str, Any]:
    """Measure the exits of a finished run, and write exits.json and results.json.

    Args:
        workdir: of the run.
        trained: the run; its `results` get the new entries.
        rule: by which samples leave; None for commitment where the network has it, or
            else confidence.
        goal: what τ is chosen for.

    Returns:
        What exits.json holds.

    Raises:
        ValueError: the run has no exits to leave at, or not this rule.
    """
    from dib_jax.analysis import exits
    from dib_jax.analysis.runs import read_metrics
    from dib_jax.training.workdir import write_json, write_results

    experiment, network = trained.experiment, trained.network
    allowed = exits.available(experiment, network)
    rows = read_metrics(workdir / "metrics.jsonl")
    steps = {row["stage"]: row["step"] for row in rows if row["split"] == "train"}
    measured = exits.measure(
        experiment,
        network,
        trained.results,
        steps,
        rule=rule or allowed[-1 if "commitment" in allowed else 0],
        goal=goal,
        reference=_reference(workdir),
        beside=_beside(workdir, experiment),
    )
    write_json(workdir / exits.FILE, measured)
    trained.results.update(summary(measured))
    write_results(workdir, trained.results)
    return measured


def summary(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json says of exits.

    Args:
        measured: exits.json.
    """
    same = ("train_flops", "inference_flops", "inference_seconds", "end_to_end")
    return {
        "exits": measured["exits"],
        "exit_rule": measured["rule"],
        "exit_tau": measured["tau"],
        "exit_accuracy": measured["accuracy"],
        **{name: measured[name] for name in same},
    }


def record_own(workdir: pathlib.Path, trained: "Trained") -> None:
    """Measure exits where the algorithm has trained the network for them, once.

    Args:
        workdir: of a finished run.
        trained: the run.
    """
    from dib_jax.analysis import exits
    from dib_jax.data import size

    experiment = trained.experiment
    if "exits" in trained.results or len(experiment.algorithm.pieces) < 2:
        return
    if experiment.task.ensemble is None or not size(experiment.dataset.validation):
        return
    if "commitment" in exits.available(trained.experiment, trained.network):
        record(workdir, trained, "commitment", exits.Goal())


def _reference(workdir: pathlib.Path) -> Any:
    """The same network end to end: the run beside this one, or one that is not made."""
    from dib_jax.analysis.exits import Reference
    from dib_jax.analysis.runs import END_TO_END, find_baseline
    from dib_jax.commands.assemble import assemble
    from dib_jax.commands.config import complete
    from dib_jax.training.workdir import read_config

    config, accuracy = read_config(workdir), None
    found = find_baseline(workdir)
    if found is not None and found.end_to_end:
        config = found.config
        # Exits see each sample as it is, so no average over views beside them.
        seen = found.results.get("one_view", found.results["test"])
        accuracy = seen[found.results["metric"]]
    elif isinstance(epochs := config["epochs"], list):
        config["epochs"] = sum(epochs)
    algorithm = {"name": END_TO_END}
    return Reference(assemble(complete({**config, "algorithm": algorithm})), accuracy)


def _beside(workdir: pathlib.Path, experiment: "Experiment") -> dict[str, Any]:
    """The stages of the same network trained in turn on all samples, if it was made."""
    from dib_jax.analysis.runs import find_beside
    from dib_jax.commands.assemble import assemble_from
    from dib_jax.training.finished import restore

    name = "sequential"
    if experiment.about["algorithm"] == name:
        return {}
    if (found := find_beside(workdir, name)) is None:
        return {}
    other = assemble_from(found.workdir)
    return {name: (other, restore(other, found.workdir)[0])}


# What is printed ----------------------------------------------------------------------


def as_text(measured: Mapping[str, Any]) -> str:
    """Exits, work and time of a run as a table and sentences.

    Args:
        measured: exits.json.
    """
    whole = measured["end_to_end"]
    lines = [f"{'exit':>5}{'share':>9}{'test accuracy':>16}{'FLOPs':>12}"]
    for each in measured["exits"]:
        right = each["accuracy"]
        shown = "–" if right is None else f"{right:.4f}"
        lines.append(
            f"{each['exit']:5d}{each['share']:9.3f}{shown:>16}{each['flops']:12.4g}"
        )
    validated = measured.get("validation_accuracy")
    lines.append(
        f"{measured['rule']} ≥ {measured['tau']:.4g}: test accuracy "
        f"{measured['accuracy']:.4f}"
        + (f", validation {validated:.4f}" if validated is not None else "")
        + (
            f"; end to end {whole['accuracy']:.4f}"
            if whole["accuracy"] is not None
            else ""
        )
    )
    for name, words in _WORDS.items():
        lines.append(
            f"{words} {measured[name]:.4g}, end to end {whole[name]:.4g}: "
            f"{ratio(measured, name):.2f} times as much"
        )
    return "\n".join(lines)


_WORDS = {
    "train_flops": "FLOPs of the training",
    "inference_flops": "FLOPs of the mean sample",
    "inference_seconds": "seconds of the mean sample",
}


def ratio(measured: Mapping[str, Any], name: str) -> float:
    """A cost in units of the same network's end to end.

    Args:
        measured: exits.json.
        name: of the cost.
    """
    return measured[name] / measured["end_to_end"][name]


def over_seeds(measured: Sequence[Mapping[str, Any]]) -> str:
    """Several runs of one config together: means, standard deviations, intervals.

    Args:
        measured: exits.json of each.
    """
    lines = [f"{len(measured)} runs, mean ± standard deviation:"]

    def said(words: str, values: Sequence[float], digits: int) -> str:
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{words} {statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}"

    accuracy = [100 * each["accuracy"] for each in measured]
    lines.append(said("test accuracy with exits", accuracy, 2))
    whole = [each["end_to_end"]["accuracy"] for each in measured]
    if all(each is not None for each in whole):
        others = [100 * each for each in whole]
        lines.append(said("end to end", others, 2))
        lines.append(_interval("with exits minus end to end", accuracy, others))
    for name, words in _WORDS.items():
        values = [ratio(each, name) for each in measured]
        lines.append(said(f"{words}, end to end = 1:", values, 3))
    for key, where in (("at", "at the chosen work"), ("mean", "over all work")):
        gains = [100 * each["gain"][key] for each in measured if each["gain"]]
        if gains:
            words = f"commitment minus confidence at equal FLOPs, {where}"
            lines.append(_interval(words, gains, [0.0] * len(gains)))
    for name in ("confidence", "commitment"):
        errors = [
            100 * statistics.fmean(found)
            for each in measured
            if (found := [c["ece"] for c in each["calibration"] if c["rule"] == name])
        ]
        if errors:
            lines.append(said(f"calibration error by {name}, %:", errors, 2))
    return "\n".join(lines)


def _interval(words: str, values: Sequence[float], others: Sequence[float]) -> str:
    from dib_jax.analysis.comparison import paired_difference

    mean, low, high = paired_difference(values, others)
    if low is None or high is None:
        return f"{words}: {mean:+.2f} points"
    return f"{words}: {mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
