"""The section on corrupted pictures: accuracy and calibration by strength."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from dib_jax.analysis import corruption_figures
from dib_jax.analysis.corruptions import FILE, mean_of
from dib_jax.analysis.page import Section
from dib_jax.analysis.report import shown, wording
from dib_jax.analysis.report.material import Maker, Material
from dib_jax.analysis.runs import read_json
from dib_jax.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from dib_jax.tasks.exhibits import (
    Cell,
    Drawing,
    Example,
    Examples,
    Exhibit,
    Line,
    Table,
    share,
)


def _corruptions(material: Material) -> Section | None:
    """What `evaluate --corruptions` has measured; None where it has not."""
    path = material.run.workdir / FILE
    if not path.exists():
        return None
    measured = read_json(path)
    images = material.answers.test["images"]
    parts = (_sentence(measured, len(images)), _drawing(measured), _table(measured))
    exhibit = Exhibit(
        "corruptions", "Corrupted pictures", (*parts, _examples(images, measured))
    )
    return shown.section(material.run.workdir, exhibit)


def _sentence(measured: Mapping[str, Any], count: int) -> str:
    clean, mean = measured["clean"], measured["mean"]
    return (
        f"Test accuracy {share(clean['accuracy'])} on clean pictures, "
        f"{share(mean['accuracy'])} in the mean of {len(measured['corrupted'])} "
        f"corruptions at {len(STRENGTHS)} strengths. Calibration error "
        f"{share(clean['ece'])} and {share(mean['ece'])}. Of {measured['samples']:,} "
        f"of the {count:,} test pictures."
    )


def _drawing(measured: Mapping[str, Any]) -> Drawing:
    rows = [
        (
            name,
            f"{row['strength']}",
            f"{row['parameter']:g}, {CORRUPTIONS[name].means}",
            *_cells(row),
        )
        for name, rows in measured["corrupted"].items()
        for row in rows
    ]
    header = ("Corruption", "Strength", "Parameter", *_MEASURES)
    return Drawing(
        "corruptions",
        functools.partial(corruption_figures.strengths, measured),
        "Test accuracy and calibration error against the strength of each corruption.",
        "Test pictures with one corruption. Calibration error: the mean "
        "distance of the largest probability from the share that is right, in "
        f"{measured['bins']} bins. One seed.",
        table=Table("", header, rows, words=(0, 2)),
    )


_MEASURES = ("Test accuracy", "Calibration error", "Negative log likelihood, nats")


def _cells(row: Mapping[str, float]) -> tuple[Cell, ...]:
    return share(row["accuracy"]), share(row["ece"]), wording.decimal(row["loss"])


def _table(measured: Mapping[str, Any]) -> Table:
    rows = [
        ("none", *_cells(measured["clean"])),
        *(
            (name, *_cells(mean_of(rows)))
            for name, rows in measured["corrupted"].items()
        ),
        ("mean of all", *_cells(measured["mean"])),
    ]
    title = "Mean over the strengths"
    return Table(title, ("Corruption", *_MEASURES), rows, words=(0,))


def _examples(images: np.ndarray, measured: Mapping[str, Any]) -> Examples:
    strength = STRENGTHS[-1]
    made = {"clean": images[:1]} | {
        name: corrupt(images[:1], name, strength=strength, seed=measured["seed"])
        for name in measured["corrupted"]
    }
    items = tuple(
        Example(0, (Line("corruption", name),), one[0]) for name, one in made.items()
    )
    note = f"The first test picture with each corruption at strength {strength}."
    return Examples("corruptions_examples", "What it looks like", note, items)


SECTIONS: tuple[Maker, ...] = (_corruptions,)
