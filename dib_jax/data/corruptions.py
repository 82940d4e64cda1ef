"""Corrupted pictures: noise, blur, JPEG, brightness and contrast at five strengths.

For test pictures, to see what a network does with what it was not trained on. Kinds and
parameters are those of CIFAR-10-C, for pictures of 32 × 32. Three things differ. Values
are rounded, not cut off. One draw of noise serves all strengths, so that a stronger
noise is the same noise, more of it. And `blur` is the Gaussian one of the additional
corruptions there, in place of the four other blurs.

Source: Hendrycks & Dietterich, arXiv 1903.12261, with the parameters of the authors'
make_cifar_c.py.
"""

import io
import numbers
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

STRENGTHS = (1, 2, 3, 4, 5)
_BLOCK = 1_000  # pictures that are held as floats at once

# (pictures uint8 (n, h, w, c), parameter, generator) → grey levels (n, h, w, c)
_Apply = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


class Corruption(NamedTuple):
    """A way in which pictures suffer.

    Attributes:
        parameters: of strengths 1 to 5.
        means: what the parameter is.
        apply: the function; grey levels may be fractions and out of range.
    """

    parameters: tuple[float, float, float, float, float]
    means: str
    apply: _Apply


def _noise(images: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    return images + 255 * scale * random.standard_normal(images.shape, np.float32)


def _blur(images: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    widths = (0.0, sigma, sigma, 0.0)
    return ndimage.gaussian_filter(images.astype(np.float32), widths, mode="nearest")


def _jpeg(
    images: np.ndarray, quality: float, random: np.random.Generator
) -> np.ndarray:
    made = np.empty_like(images)
    for image, place in zip(images, made, strict=True):
        buffer = io.BytesIO()
        # Pillow wants grey pictures without an axis of channels.
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        picture.save(buffer, "JPEG", quality=int(quality))
        place[...] = np.asarray(Image.open(buffer, formats=["JPEG"])).reshape(
            place.shape
        )
    return made


def _brightness(
    images: np.ndarray, more: float, random: np.random.Generator
) -> np.ndarray:
    # Of hue, saturation and value the value alone changes: all channels by one factor.
    value = images.max(axis=-1, keepdims=True).astype(np.float32)
    wanted = np.minimum(value + 255 * more, 255)
    return np.where(value > 0, images * (wanted / np.maximum(value, 1)), wanted)


def _contrast(
    images: np.ndarray, share: float, random: np.random.Generator
) -> np.ndarray:
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return mean + share * (images - mean)


CORRUPTIONS = {
    "noise": Corruption(
        (0.04, 0.06, 0.08, 0.09, 0.10), "standard deviation, white = 1", _noise
    ),
    "blur": Corruption((0.4, 0.6, 0.7, 0.8, 1.0), "width σ in pixels", _blur),
    "jpeg": Corruption((80, 65, 58, 50, 40), "quality", _jpeg),
    "brightness": Corruption(
        (0.05, 0.1, 0.15, 0.2, 0.3), "added to the value, white = 1", _brightness
    ),
    "contrast": Corruption(
        (0.75, 0.5, 0.4, 0.3, 0.15), "share of the contrast that stays", _contrast
    ),
}


def check_channels(images: np.ndarray) -> None:
    """Refuse pictures that JPEG cannot hold.

    Args:
        images: (n, h, w, c).

    Raises:
        ValueError: they are neither grey nor RGB.
    """
    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f"corruptions: pictures must have 1 or 3 channels, got {images.shape[-1]}; "
            "JPEG holds no others"
        )


def corrupt(
    images: np.ndarray, name: str, *, strength: int, seed: int = 0
) -> np.ndarray:
    """Pictures with one corruption.

    Args:
        images: uint8 (n, h, w, c), grey (c = 1) or RGB (c = 3).
        name: noise, blur, jpeg, brightness or contrast.
        strength: 1 to 5.
        seed: draws the noise, ≥ 0; the others draw nothing.

    Returns:
        uint8 (n, h, w, c), new.

    Raises:
        ValueError: there is no such corruption or strength, or `images` are no such
            pictures.

    Source: see the module.
    """
    if name not in CORRUPTIONS:
        raise ValueError(
            f"corruptions: must be one of {', '.join(CORRUPTIONS)}, got {name!r}"
        )
    whole = isinstance(strength, numbers.Integral) and not isinstance(strength, bool)
    if not whole or strength not in STRENGTHS:
        raise ValueError(
            f"corruptions: strength must be an integer from 1 to 5, got {strength!r}"
        )
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            "corruptions: pictures must be uint8 of shape (n, h, w, c), got "
            f"{images.dtype} {images.shape}"
        )
    check_channels(images)
    corruption, random = CORRUPTIONS[name], np.random.default_rng(seed)
    parameter, made = corruption.parameters[strength - 1], np.empty_like(images)
    for start in range(0, len(images), _BLOCK):
        rows = slice(start, start + _BLOCK)
        levels = corruption.apply(images[rows], parameter, random)
        made[rows] = np.clip(np.rint(levels), 0, 255)
    return made
