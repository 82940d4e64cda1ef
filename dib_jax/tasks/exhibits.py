"""What a report shows, as plain data: tables, figures to be drawn, examples.

A task says with these what there is to see of it; the report puts them on a page and
knows no task. Nothing here is drawn, and matplotlib is not imported.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = str | float | None


class Answers(NamedTuple):
    """What a network says of the test split, and what is known of it.

    Attributes:
        outputs: of the last exit, (n, …, num_outputs).
        test: the test split.
        train: the training split.
        class_names: of the data set; empty where it has no classes.
        seed: of the run, for examples drawn at random.
        noun: what the samples are, in the plural, such as pictures.
    """

    outputs: np.ndarray
    test: Mapping[str, np.ndarray]
    train: Mapping[str, np.ndarray]
    class_names: tuple[str, ...] = ()
    seed: int = 0
    noun: str = "samples"


class Table(NamedTuple):
    """Numbers that belong together.

    Attributes:
        title: what they are; "" for none.
        header: a name for each column.
        rows: cells, text or numbers; None where there is nothing.
        words: the columns that hold words; None: those with a text in some row.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    words: tuple[int, ...] | None = None


class Drawing(NamedTuple):
    """A figure that can be drawn in any width.

    Attributes:
        name: of its file, without an ending.
        draw: with the option `width`, inches, gives the figure.
        alt: what there is to see, for those who cannot.
        caption: below it.
        title: its heading; "" for none.
        table: its numbers; None where another drawing's table has them.
        animate: makes an animated GIF of it; None where there is none.
        vector: whether a page may show it as vectors, which thousands of marks are too
            many for.
    """

    name: str
    draw: "Callable[..., Figure]"
    alt: str
    caption: str
    title: str = ""
    table: Table | None = None
    animate: Callable[[], bytes] | None = None
    vector: bool = True


class Line(NamedTuple):
    """A line below an example.

    Attributes:
        text: what it is about.
        value: what stands out; "" for none.
        wrong: whether it is a mistake.
    """

    text: str
    value: str = ""
    wrong: bool = False


class Example(NamedTuple):
    """One sample and what is said of it.

    Attributes:
        sample: its number in the test split.
        lines: below it.
        picture: uint8 (h, w, c); None for a sample that is none.
    """

    sample: int
    lines: tuple[Line, ...]
    picture: np.ndarray | None = None


class Examples(NamedTuple):
    """Samples that are shown together.

    Attributes:
        name: of their file, without an ending.
        title: their heading; "" for none.
        note: above them; "" for none.
        items: the samples, in order.
    """

    name: str
    title: str
    note: str
    items: tuple[Example, ...]


class Key(NamedTuple):
    """What colours mean.

    Attributes:
        entries: a colour, its name, and what it means.
    """

    entries: tuple[tuple[str, str, str], ...]


# Of an exhibit; a text is a note.
Part = Table | Drawing | Examples | Key | str


class Exhibit(NamedTuple):
    """A section of the report.

    Attributes:
        name: its anchor, a word.
        title: its heading.
        parts: in order; a table that follows a drawing stands beside it.
    """

    name: str
    title: str
    parts: tuple[Part, ...]


def share(value: Any, *, digits: int = 2) -> str:
    """A share, 0..1, in per cent."""
    return f"{100 * float(value):.{digits}f} %"
