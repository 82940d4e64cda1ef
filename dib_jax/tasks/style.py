"""How all figures look: colours, sizes of type, axes, panels, legends.

Colours are Okabe and Ito's, which stay apart for colour-blind eyes, up to seven stages,
and a sequential map beyond. Type keeps its size whatever the width, which is in inches.
pyplot and its global state are not used.
"""

import contextlib
import functools
import math
import pathlib
import re
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font, get_font_names
from matplotlib.ticker import MaxNLocator
from PIL import ImageFont

# Okabe & Ito's palette without black and without yellow, which is lost on white paper.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PALETTE = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#5F5F5F")
INK, GREY, RULE, GRID = "#222222", "#666666", "#C8C8C8", "#EDEDED"
TITLE, LABEL, TICK = 9.5, 9, 8  # points
WIDE, NARROW = 8.3, 3.7  # inches: the page's column, and a phone's
DOTTED: Any = (0, (1, 2))


def stage_colors(count: int) -> list[str]:
    """Colours of `count` stages, as hexadecimal strings.

    Args:
        count: number of stages, ≥ 0.

    Returns:
        `count` different colours, in an order that shows depth beyond seven.
    """
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    # Its upper end is too light for white paper.
    positions = np.linspace(0.0, 0.88, count)
    return [to_hex(color) for color in matplotlib.colormaps["viridis"](positions)]


# Matplotlib's own, which is there wherever we run and has Greek and accents; and others
# that have more scripts, where they are installed.
_OWN = "DejaVu Sans"
_WIDER = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC",
    "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "MS Gothic",
    "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo",
    "Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali",
)  # fmt: skip
_MISSING = re.compile(r"Glyph (\d+) .*missing from")


@functools.cache
def fonts() -> tuple[str, ...]:
    """The fonts of figures: each is used for what those before it do not have."""
    there = set(get_font_names())
    return (_OWN, *(name for name in _WIDER if name in there))


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Draw with `fonts`; what no font has is said in a line."""
    letters: set[str] = set()
    with (
        matplotlib.rc_context({"font.family": list(fonts())}),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.filterwarnings("always", message="Glyph")
        yield
    for each in caught:
        if found := _MISSING.search(str(each.message)):
            letters.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(
                each.message, each.category, each.filename, each.lineno
            )
    say_missing(letters)


def font_file(text: str) -> pathlib.Path:
    """The file of the first font that has most of a text's letters.

    Args:
        text: to be drawn; what no font has is said in a line.
    """
    files = [pathlib.Path(findfont(name)) for name in fonts()]
    loaded = [get_font(str(file)) for file in files]
    shown = {letter for letter in text if letter.isprintable()}
    missing = [{x for x in shown if not f.get_char_index(ord(x))} for f in loaded]
    best = min(range(len(files)), key=lambda number: len(missing[number]))
    say_missing(missing[best])
    return files[best]


def wrapped(text: str, width: float, size: float) -> str:
    """Text broken into lines that are no wider than there is room.

    Args:
        text: of one or more lines.
        width: inches.
        size: of the letters, points.
    """
    # Ten times as large: a font's widths are whole pixels.
    font = ImageFont.truetype(str(font_file(text)), 10 * size)

    def broken(line: str) -> str:
        for most in range(max(len(line), 1), 0, -1):
            parts = textwrap.wrap(line, most)
            if all(font.getlength(part) <= 720 * width for part in parts):
                break
        return "\n".join(parts)

    return "\n".join(map(broken, text.split("\n")))


_said: set[str] = set()


def say_missing(letters: Iterable[str]) -> None:
    """Say which letters figures cannot show, each once.

    Args:
        letters: that no font has.
    """
    new = sorted(set(letters) - _said)
    _said.update(new)
    if new:
        some = "".join(new[:8]) + ("…" if len(new) > 8 else "")
        print(
            f"figures: no font that is installed has {some}; they are drawn as boxes: "
            "install one, such as Noto Sans CJK",
            file=sys.stderr,
        )


def panels(
    count: int,
    columns: int,
    *,
    width: float,
    height: float,
    margin: float,
    **options: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, line by line.

    Args:
        count: of the panels.
        columns: of them beside each other.
        width: of the figure, inches.
        height: of a panel, inches.
        margin: inches of height beside the panels.
        options: passed to `Figure.subplots`.
    """
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * lines + margin), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, **options)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return figure, list(grid.flat[:count])


def finish(axes: Axes, x: str, y: str) -> None:
    """Labels, spines, ticks and grid as all figures here have them.

    Args:
        axes: to be changed.
        x: label of the x axis, with its unit; "" for none.
        y: likewise.
    """
    name_axes(axes, x, y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(labelsize=TICK, color=RULE, labelcolor=INK, length=3)
    axes.grid(axis="y", color=GRID, lw=0.7)
    axes.set_axisbelow(True)


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Labels of both axes; "" leaves one as it is."""
    if x:
        axes.set_xlabel(x, fontsize=LABEL, color=INK)
    if y:
        axes.set_ylabel(y, fontsize=LABEL, color=INK)


def heading(axes: Axes, text: str, **options: Any) -> None:
    """A title above a panel, at its left."""
    axes.set_title(text, fontsize=TITLE, color=INK, loc="left", **options)


def whole_numbers(axis: Any, most: int) -> None:
    """At most about so many ticks, at whole numbers."""
    axis.set_major_locator(MaxNLocator(nbins=most, integer=True, steps=[1, 2, 5, 10]))


def legend(
    figure: Figure,
    handles: Sequence[Any],
    *,
    columns: int = 3,
    place: Any = "outside upper right",
) -> None:
    """A legend outside the panels; none without handles, which bring their labels."""
    if handles:
        figure.legend(
            handles=list(handles), loc=place, frameon=False, fontsize=TICK,
            labelcolor=INK, borderaxespad=0.2, ncols=min(len(handles), columns),
        )  # fmt: skip


def lines_of(axes: Axes) -> list[Any]:
    """The handles of what is labelled in a panel."""
    return axes.get_legend_handles_labels()[0]


def color_bar(
    figure: Figure,
    shown: Any,
    axes: Axes | Sequence[Axes],
    label: str = "",
    **options: Any,
) -> Colorbar:
    """A colour bar without a frame.

    Args:
        figure: to be changed.
        shown: what has the colours, or a pair of norm and colour map.
        axes: beside which it stands.
        label: of its axis.
        options: passed to `Figure.colorbar`.
    """
    if isinstance(shown, tuple):
        shown = ScalarMappable(*shown)
    bar = figure.colorbar(shown, ax=axes, **{"pad": 0.02, **options})
    bar.set_label(label, fontsize=LABEL, color=INK)
    bar.ax.tick_params(labelsize=TICK, length=2, color=RULE)
    bar.outline.set_visible(False)
    return bar
