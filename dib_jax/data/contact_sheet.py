"""A contact sheet: pictures of a data set, with their labels and boxes."""

import os
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dib_jax.data.dataset import Dataset
from dib_jax.data.kind import Split

_TILE, _CAPTION, _GAP = 96, 14, 6
_COLOUR = (255, 40, 90)


def write_contact_sheet(
    dataset: Dataset, path: pathlib.Path, *, columns: int = 10, rows: int = 6
) -> None:
    """Write a PNG of training pictures, as many classes as there is room for.

    Args:
        dataset: as `dib_jax.data.load` returns it.
        path: of the file.
        columns: pictures in a row.
        rows: of pictures.
    """
    chosen = _spread(dataset.train["labels"], columns * rows)
    height = -(-len(chosen) // columns) * (_TILE + _CAPTION + _GAP) + _GAP
    width = min(columns, len(chosen)) * (_TILE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    for position, row in enumerate(chosen):
        down, right = divmod(position, columns)
        place = _GAP + right * (_TILE + _GAP), _GAP + down * (_TILE + _CAPTION + _GAP)
        sheet.paste(_tile(dataset.train, row, dataset.class_names), place)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    sheet.save(unfinished, "PNG")
    unfinished.replace(path)


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Rows of the first picture of each class, then of the second of each, and on."""
    rank = np.empty(len(labels), int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return np.lexsort((labels, rank))[:count]


def _tile(split: Split, row: int, class_names: tuple[str, ...]) -> Image.Image:
    pixels = split["images"][row]
    height, width, channels = pixels.shape
    if channels not in (1, 3):  # no colours that a screen could show: their mean
        pixels = pixels.mean(axis=-1, keepdims=True).astype(np.uint8)
    scale = _TILE / max(height, width)
    picture = Image.fromarray(np.broadcast_to(pixels, (height, width, 3)))
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tile = Image.new("RGB", (_TILE, _TILE + _CAPTION), "white")
    tile.paste(picture.resize(size, way), (0, 0))
    draw = ImageDraw.Draw(tile)
    for box in _boxes(split, row):
        x1, y1, x2, y2 = (float(side) * scale for side in box)
        if x1 < x2 and y1 < y2:  # NaN and boxes without area are not drawn
            draw.rectangle(
                (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=_COLOUR, width=2
            )
    label = split["labels"][row]
    name = " ".join(class_names[label].split())  # on one line
    if any(ord(letter) > 255 for letter in name):  # not every font has it
        name = f"class {label}"
    font = ImageFont.load_default()
    while name and draw.textlength(name, font=font) > _TILE:
        name = name[:-1]
    draw.text((0, _TILE + 1), name, fill="black", font=font)
    return tile


def _boxes(split: Split, row: int) -> np.ndarray:
    if "boxes" not in split:
        return np.empty((0, 4))
    boxes = split["boxes"][row].reshape(-1, 4)
    if "box_labels" in split:
        boxes = boxes[split["box_labels"][row] >= 0]
    return boxes
