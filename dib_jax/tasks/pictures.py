"""Boxes and words drawn on pictures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dib_jax.tasks.style import font_file

_SMALLEST, _LARGEST = 480, 1920  # pixels of the longer side of what is drawn on

Area = tuple[float, float, float, float]


class Mark(NamedTuple):
    """What is drawn of one object.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the picture; None for the picture as a whole.
        words: beside the box, or below the picture.
        color: as Pillow knows colours.
    """

    box: Sequence[float] | None
    words: str
    color: str


def viewable(image: np.ndarray) -> np.ndarray:
    """A picture that can be shown: (h, w) grey or (h, w, 3).

    Args:
        image: uint8 (h, w, c).

    Returns:
        uint8; grey where c = 1, the mean of the channels where c is neither 1 nor 3.
    """
    if image.shape[-1] == 3:
        return image
    return np.round(image.mean(axis=-1)).astype(np.uint8)


def draw(picture: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """A copy of a picture with boxes drawn into it, and words.

    Small pictures are enlarged, that the words can be read, and large ones made
    smaller.

    Args:
        picture: any Pillow picture that is RGB or grey.
        marks: what to draw, the most important one first.

    Returns:
        RGB, its longer side 480 to 1920 pixels; words about the picture as a whole are
        in a band below it, and a narrow picture has a band at its right where its words
        need it.
    """
    longer = max(picture.size)
    scale = min(max(1.0, _SMALLEST / longer), max(_LARGEST / longer, 1 / longer))
    drawn = _scaled(picture, scale)
    size, letters = drawn.size, max(14, round(max(drawn.size) / 40))
    file = font_file("".join(mark.words for mark in marks))
    font = ImageFont.truetype(str(file), letters)
    line = round(1.5 * letters)
    below = [mark for mark in marks if mark.box is None]
    # A narrow picture gets as much white beside it as its words need.
    words = [mark.words for mark in marks if mark.words]
    needed = [round(font.getlength(text)) + letters for text in words]
    whole = max([size[0], *needed]), size[1] + line * len(below)
    if whole != size:
        band = Image.new("RGB", whole, "white")
        band.paste(drawn, (0, 0))
        drawn = band
    canvas = ImageDraw.Draw(drawn)
    boxed = [
        ([float(side) * scale for side in mark.box], mark)
        for mark in marks
        if mark.box is not None
    ]
    thickness = max(2, round(max(size) / 250))
    # The most important one last, above the others.
    for (x1, y1, x2, y2), mark in reversed(boxed):
        corners = (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
        canvas.rectangle(corners, outline=mark.color, width=thickness)
    placed: list[Area] = []
    for box, mark in boxed:
        if mark.words:
            wide = round(font.getlength(mark.words)) + letters // 2
            area = drawn.width, size[1]
            place = _place(box, (wide, round(1.3 * letters)), area, placed)
            placed.append(place)
            canvas.rectangle(place, fill=mark.color)
            start = (place[0] + letters // 4, place[1])
            canvas.text(start, mark.words, fill="white", font=font)
    for number, mark in enumerate(below):
        origin = (letters // 2, size[1] + number * line + letters // 4)
        canvas.text(origin, mark.words, fill=mark.color, font=font)
    return drawn


def outlined(
    picture: Image.Image, boxes: Sequence[tuple[Sequence[float], str]], *, side: int
) -> Image.Image:
    """A picture with bare boxes, for a small view.

    Args:
        picture: RGB or grey.
        boxes: x1, y1, x2, y2 as shares of width and height, and a colour; the last one
            above the others.
        side: its longer side becomes that many pixels.
    """
    drawn = _scaled(picture, side / max(picture.size))
    canvas = ImageDraw.Draw(drawn)
    last = [side - 1 for side in drawn.size]
    for box, color in boxes:
        x1, y1, x2, y2 = (x * end for x, end in zip(box, last * 2, strict=True))
        corners = (x1, y1, max(x1, x2), max(y1, y2))
        canvas.rectangle(corners, outline=color, width=max(2, side // 96))
    return drawn


def _scaled(picture: Image.Image, scale: float) -> Image.Image:
    width, height = (max(1, round(side * scale)) for side in picture.size)
    smooth = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    return picture.convert("RGB").resize((width, height), smooth)


def _place(
    box: Sequence[float],
    label: tuple[int, int],
    size: tuple[int, int],
    taken: Sequence[Area],
) -> Area:
    """Where words of a size go: above the box, else below it, else within."""
    (wide, tall), (width, height) = label, size
    x1, y1, x2, y2 = box
    around = [(x1, y1 - tall), (x2 - wide, y1 - tall), (x1, y2), (x2 - wide, y2),
              (x2, y1), (x1 - wide, y1)]  # fmt: skip
    corners = [
        (x, y) for x, y in around if 0 <= x <= width - wide and 0 <= y <= height - tall
    ]
    corners.append((max(0.0, min(x1, width - wide)), max(0.0, y1)))
    places = [(left, top, left + wide, top + tall) for left, top in corners]
    free = [place for place in places if not any(_meet(place, p) for p in taken)]
    return (free or places)[0]


def _meet(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
