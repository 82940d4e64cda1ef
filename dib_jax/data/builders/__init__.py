"""Data sets that can be downloaded, one module each, written as TFDS writes them.

A module `<name>.py` has `ARCHIVES`, `builder()`, which returns the class of a TFDS
builder (TFDS' own where there is one, so that name, version and features are the same),
and `read(archives)`, which parses the original archives without TensorFlow.
"""

import io
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Paths = Mapping[str, pathlib.Path]


class Examples(NamedTuple):
    """What archives hold.

    Attributes:
        splits: examples by split, in the order of the original; their features are
            those of the builder, pictures as `picture` makes them.
        class_names: of the features whose names stand in the archives.
    """

    splits: Mapping[str, Iterable[dict[str, Any]]]
    class_names: Mapping[str, list[str]] = {}


def picture(pixels: np.ndarray) -> io.BytesIO:
    """Pixels as a PNG file: of a file TFDS stores the bytes, without TensorFlow.

    Args:
        pixels: uint8 (h, w), (h, w, 1) or (h, w, 3).
    """
    file = io.BytesIO()
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file
