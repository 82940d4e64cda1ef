"""The index page of a folder of predictions, and how many of them are right."""

import html
import os
import pathlib
import urllib.parse
from collections.abc import Sequence
from typing import Any, NamedTuple

from dib_jax.data.picture_folder import class_name


class Predicted(NamedTuple):
    """A picture with its prediction.

    Attributes:
        entry: of predictions.json.
        drawing: the name of the picture that was drawn.
        truth: the class that its folder is named like; "" where it is of none.
    """

    entry: dict[str, Any]
    drawing: str
    truth: str

    @property
    def is_right(self) -> bool:
        """Whether what is most certain is of the class of its folder."""
        found = self.entry["objects"]
        best = max(found, key=lambda one: one["score"], default={"class_name": None})
        return best["class_name"] == self.truth


def class_of_folder(
    file: pathlib.Path, top: pathlib.Path, class_names: Sequence[str]
) -> str:
    """The class that the nearest folder of a picture is named like, or "".

    Args:
        file: the picture.
        top: the outermost folder that is looked at.
        class_names: of the data set.
    """
    names = {class_name(name): name for name in class_names}
    folders = [folder for folder in file.parents if folder.is_relative_to(top)]
    for folder in folders:
        if name := names.get(class_name(folder.name)):
            return name
    return ""


def accuracy_line(predicted: Sequence[Predicted]) -> str:
    """The accuracy over pictures in folders of classes; "" where there are none.

    Args:
        predicted: all pictures.
    """
    known = [one for one in predicted if one.truth]
    if not known:
        return ""
    right = sum(one.is_right for one in known)
    rest = len(predicted) - len(known)
    others = f"; {rest} others are in no folder named like a class" if rest else ""
    return (
        f"accuracy {right / len(known):.4f}: {right} of {len(known)} pictures are of "
        f"the class that their folder is named like{others}"
    )


def index_page(predicted: Sequence[Predicted], workdir: pathlib.Path) -> str:
    """A page of all pictures, those that are wrong first.

    Args:
        predicted: all pictures, whose drawings lie beside the page.
        workdir: of the run.
    """
    from dib_jax.analysis import page  # a slow import

    known = [one for one in predicted if one.truth]
    rest = [one for one in predicted if not one.truth]
    groups = [
        ("wrong", "Wrong", [one for one in known if not one.is_right]),
        ("right", "Right", [one for one in known if one.is_right]),
        ("others", "Others" if known else "Pictures", rest),
    ]
    sections = [
        page.Section(
            name,
            f"{title} ({len(some)})",
            f'<div class="cards">{"".join(map(_card, some))}</div>',
        )
        for name, title, some in groups
        if some
    ]
    line = accuracy_line(predicted)
    return page.page(
        "Predictions",
        subtitle=f"{len(predicted)} pictures, by the run {workdir.resolve().name}",
        lead=f"<p>{page.escape(line[:1].upper() + line[1:])}.</p>" if line else "",
        sections=sections,
        footer="Every number is in predictions.json.",
        images="'self' file:",
    )


def _card(one: Predicted) -> str:
    address = urllib.parse.quote(os.fsencode(one.drawing))
    file = pathlib.Path(one.entry["file"]).parts[-2:]
    found = sorted(one.entry["objects"], key=lambda found: -found["score"])
    words = ", ".join(
        f"{_apart(x['class_name'])} {100 * x['score']:.0f} %" for x in found
    )
    truth = f"<br>is {_apart(one.truth)}" if one.truth else ""
    return (
        f'<div class="card"><a href="{address}"><img src="{address}" loading="lazy" '
        f'alt="{html.escape("/".join(file))}"></a><b>{words or "nothing found"}'
        f"</b>{truth}<br>{'/'.join(map(_apart, file))}</div>"
    )


def _apart(name: str) -> str:
    """A name as HTML; one that is written from the right moves nothing around it."""
    return f"<bdi>{html.escape(name)}</bdi>"
