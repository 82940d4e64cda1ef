"""The section on exits: what leaving early brings, and who leaves where."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dib_jax.analysis import exit_figures, page
from dib_jax.analysis.exits import FILE
from dib_jax.analysis.page import Section, escape
from dib_jax.analysis.report import shown, wording
from dib_jax.analysis.report.material import Maker, Material
from dib_jax.analysis.runs import read_json
from dib_jax.tasks.exhibits import (
    Drawing,
    Example,
    Examples,
    Exhibit,
    Line,
    Part,
    Table,
    share,
)


def _exits(material: Material) -> Section | None:
    """What `evaluate --exits` has measured; None where it has not."""
    if not (material.run.workdir / FILE).exists():
        return None
    measured = read_json(material.run.workdir / FILE)
    parts: list[Part] = [_work(measured), _costs(measured), _shares(measured)]
    if measured["calibration"]:
        parts.append(_reliability(measured))
    parts += _examples(material, measured)
    made = shown.section(
        material.run.workdir, Exhibit("exits", "Leaving early", tuple(parts))
    )
    return made._replace(html=page.note(escape(_sentence(measured))) + made.html)


def _sentence(measured: Mapping[str, Any]) -> str:
    whole, given = measured["end_to_end"], measured["goal"]["tau"] is not None
    said = (
        "A sample leaves at the first exit where its "
        f"{measured['rule']} is {measured['tau']:.4g} or more; the threshold was "
        f"{'given' if given else 'chosen on the validation split'}. "
        f"Test accuracy {share(measured['accuracy'])}"
    )
    if whole["accuracy"] is not None:
        said += f", end to end {share(whole['accuracy'])}"
    ratios = [
        f"{measured[name] / whole[name]:.2f} times the {words}"
        for name, words in _COSTS.items()
    ]
    return f"{said}. Of the same network end to end it takes {', '.join(ratios)}."


_COSTS = {
    "train_flops": "FLOPs to train",
    "inference_flops": "FLOPs a sample",
    "inference_seconds": "time a sample",
}


def _costs(measured: Mapping[str, Any]) -> Drawing:
    seen = "".join(
        ", and of the same stages trained in turn on all samples"
        for _ in measured["beside"]
    )
    rows = [
        (
            f"{row['tau']:.4g}",
            _cost("seconds", row["seconds"]),
            f"{row['flops']:.4g}",
            share(row["accuracy"]),
        )
        for row in measured["timed"]
    ]
    return Drawing(
        "exits_cost",
        functools.partial(exit_figures.costs, measured),
        "Test accuracy against FLOPs and against time, for every threshold.",
        "Test accuracy for every threshold, by each rule" + seen + ". Left: operations "
        "of the mean sample by the compiler’s count. Right: measured time, only "
        "undecided samples running through the next piece. One seed.",
        table=Table(
            "", ("τ", "Time a sample", "FLOPs a sample", "Test accuracy"), rows
        ),
    )


def _work(measured: Mapping[str, Any]) -> Table:
    whole = measured["end_to_end"]
    rows = [
        (
            words.capitalize().replace("Flops", "FLOPs"),
            _cost(name, measured[name]),
            _cost(name, whole[name]),
        )
        for name, words in _COSTS.items()
    ]
    return Table("", ("", "With exits", "End to end"), rows, words=(0,))


def _cost(name: str, value: float) -> str | None:
    return (wording.moment if name.endswith("seconds") else wording.work)(value)


def _shares(measured: Mapping[str, Any]) -> Drawing:
    rows = [
        (
            f"{each['exit']}",
            share(each["share"], digits=1),
            None if each["accuracy"] is None else share(each["accuracy"], digits=1),
            wording.work(each["flops"]),
        )
        for each in measured["exits"]
    ]
    header = ("Exit", "Share that leaves", "Of these right", "FLOPs until there")
    return Drawing(
        "exits_shares",
        functools.partial(exit_figures.shares, measured),
        "Share of the test split that leaves at each exit.",
        "Who leaves at which exit at this threshold, test split.",
        title="Who leaves where",
        table=Table("", header, rows, words=(0,)),
    )


def _reliability(measured: Mapping[str, Any]) -> Drawing:
    rows = [
        (f"{each['exit']}", each["rule"], share(each["ece"]))
        for each in measured["calibration"]
    ]
    return Drawing(
        "exits_reliability",
        functools.partial(exit_figures.reliability, measured),
        "Share of samples that are right against how sure the exit is of them.",
        "Of the test samples that come to an exit: the share that is right against "
        "sureness, in 15 bins. On the diagonal sureness is that share. ECE is the mean "
        "distance from it.",
        title="How sure is right",
        table=Table("", ("Exit", "Rule", "ECE"), rows, words=(0, 1)),
    )


def _examples(material: Material, measured: Mapping[str, Any]) -> list[Examples]:
    notes = {
        "first": "Those of which the first exit is surest.",
        "last": "Those of which the first exit is least sure, among those that stay.",
    }
    titles = {"first": "Leaving first", "last": "Staying to the last exit"}
    return [
        Examples(f"exits_{name}", titles[name], notes[name], _items(material, samples))
        for name, samples in measured["first_and_last"].items()
        if samples
    ]


def _items(
    material: Material, samples: Sequence[Mapping[str, Any]]
) -> tuple[Example, ...]:
    names, test = material.answers.class_names, material.answers.test
    images: np.ndarray | None = test.get("images")
    return tuple(
        Example(
            each["sample"],
            (
                Line("true", names[test["labels"][each["sample"]]]),
                Line("answer", names[each["class"]], wrong=not each["right"]),
                Line(f"sure at the first exit {share(each['sure'], digits=1)}"),
            ),
            None if images is None else images[each["sample"]],
        )
        for each in samples
    )


SECTIONS: tuple[Maker, ...] = (_exits,)
