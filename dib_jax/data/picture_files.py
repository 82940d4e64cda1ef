"""Picture files: the one way in which a file becomes the pixels of a network's input.

Whoever reads pictures (for training, for predictions, out of an archive) reads them
here, so that a network sees in use what it has seen in training.
"""

import functools
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

_CLEAR = ("rgba", "la", "pa")  # modes with transparency
# What Pillow only passes on to other programs, or opens without pixels in it.
_NO_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_WHITE = 65535  # of 16 bits


class UnreadablePictureError(ValueError):
    """A file that is no picture, or a damaged one; the message says why."""


@functools.cache
def suffixes() -> frozenset[str]:
    """Endings of file names, in small letters, of the formats that Pillow reads."""
    Image.init()
    return frozenset(
        suffix
        for suffix, form in Image.registered_extensions().items()
        if form in {*Image.OPEN, "MPO"} - _NO_PIXELS
    )


def is_picture(path: Path) -> bool:
    """Whether a file has the name of a picture.

    Args:
        path: of the file.
    """
    return path.suffix.lower() in suffixes()


def read_picture(file: Path | IO[bytes], *, upright: bool = True) -> Image.Image:
    """A picture as RGB or grey of 8 bits.

    Palettes are resolved, what is transparent is white, 16 bits become 8, floats of
    0..1 become 0..255, and of several frames the first is taken.

    Args:
        file: what Pillow reads.
        upright: apply the orientation that a camera has noted, as every viewer does.

    Raises:
        UnreadablePictureError: Pillow does not read it, or its values are neither 0..1
            nor 0..255 nor 0..65535.
    """
    try:
        # Pillow warns of damaged notes, and of 90 million pixels and more.
        with warnings.catch_warnings(action="ignore"), Image.open(file) as opened:
            opened.load()
            return eight_bits(ImageOps.exif_transpose(opened) if upright else opened)
    except Exception as error:  # Pillow's decoders raise nearly anything
        # Whoever says this names the file.
        reason = " ".join(str(error).removesuffix(f": {str(file)!r}").split())
        reason = reason or type(error).__name__
        raise UnreadablePictureError(reason) from error


def is_turned(path: Path) -> bool:
    """Whether a picture is stored in another orientation than it is shown.

    Args:
        path: a file that `read_picture` reads.
    """
    with warnings.catch_warnings(action="ignore"), Image.open(path) as opened:
        return opened.getexif().get(0x0112, 1) not in (0, 1)


def eight_bits(picture: Image.Image) -> Image.Image:
    """A picture as RGB or grey of 8 bits, as `read_picture` gives it.

    Args:
        picture: of any mode.

    Raises:
        ValueError: its values are neither 0..1 nor 0..255 nor 0..65535.
    """
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        levels = np.asarray(picture, np.float64)
        levels = np.where(np.isfinite(levels), levels, 0)
        clear = picture.info.get("transparency")
        if isinstance(clear, int) and picture.mode.startswith("I;"):
            levels = np.where(levels == clear, _WHITE, levels)
        low, high = levels.min(), levels.max()
        if low < 0 or high > _WHITE:
            raise ValueError(
                f"values from {low:g} to {high:g}; 0 to 1, 255 or {_WHITE} are known"
            )
        if picture.mode.startswith("I;") or high > 255:
            levels = levels / 257
        elif picture.mode == "F" and high <= 1:
            levels = levels * 255
        return Image.fromarray(np.round(levels).astype(np.uint8))
    if "transparency" in picture.info or picture.mode.lower() in _CLEAR:
        clear = picture.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return picture.convert("L" if picture.mode in ("L", "1") else "RGB")


def fit(picture: Image.Image, shape: tuple[int, ...], *, pad: bool) -> np.ndarray:
    """A picture in the shape of a data set's.

    Args:
        picture: RGB or grey.
        shape: (h, w, c), c of 1 (grey) or 3.
        pad: keep the proportion of the sides, and fill up with black at the right and
            below; else stretch.

    Returns:
        uint8 (h, w, c).

    Raises:
        ValueError: the data set's pictures are neither grey nor RGB.
    """
    channels = shape[-1]
    if channels not in (1, 3):
        raise ValueError(
            f"the run's pictures have {channels} channels; only grey (1) and RGB (3) "
            "ones can be made of files"
        )
    picture = picture.convert("L" if channels == 1 else "RGB")
    size = fitted_size(picture.size, shape, pad=pad)
    resized = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    result = np.zeros(shape, np.uint8)
    result[: size[1], : size[0]] = resized.reshape(size[1], size[0], channels)
    return result


def fitted_size(
    size: tuple[int, int], shape: tuple[int, ...], *, pad: bool
) -> tuple[int, int]:
    """Width and height that a picture has within another shape.

    Args:
        size: width and height of the picture.
        shape: (h, w, …).
        pad: as of `fit`.
    """
    height, width = shape[:2]
    if not pad:
        return width, height
    scale = min(width / size[0], height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
