"""Data sets that can be downloaded, one module each, written as TFDS writes them.

A module `<name>.py` has three names: `ARCHIVES`; `builder()`, which returns the class
of a TFDS builder, that of TFDS where there is one (`tfds_builder`), so that name,
version and features are the same; and `read(archives)`, which parses the original
archives, by name, into `Examples` without TensorFlow. `read` raises a ValueError where
an archive is damaged or not in this format.
"""

import functools
import io
import pathlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Paths = Mapping[str, pathlib.Path]
Example = dict[str, Any]  # feature → value, as the features of the builder take it


class Examples(NamedTuple):
    """The content of archives.

    Attributes:
        splits: examples by split, in the order of the original; their features are
            those of the builder, pictures as `picture` makes them.
        class_names: class names by feature, where the archives contain them.
    """

    splits: Mapping[str, Iterable[Example]]
    class_names: Mapping[str, list[str]] = {}


def tfds_builder(place: str) -> Callable[[], type]:
    """The `builder` of a set that TFDS has; it imports TFDS only when it is called.

    Args:
        place: module:class, below `tensorflow_datasets`.
    """
    return functools.partial(pkgutil.resolve_name, f"tensorflow_datasets.{place}")


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
