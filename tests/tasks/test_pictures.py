"""Pictures with marks drawn into them."""

import numpy as np
from PIL import Image, ImageColor

from dib_jax.tasks.pictures import Mark, draw


def test_words_wider_than_the_picture_are_not_cut():
    color = "#0072B2"
    narrow = Image.new("RGB", (30, 200), "white")
    mark = Mark((2, 90, 28, 150), "Right-of-way at the next intersection", color)
    drawn = np.asarray(draw(narrow, [mark]))
    filled = (drawn == ImageColor.getrgb(color)).all(axis=-1)
    # The label is a filled rectangle: white is left at its right.
    columns = np.flatnonzero(filled.any(axis=0))
    assert columns.max() < drawn.shape[1] - 1
    # A picture that is wide enough keeps its shape.
    assert draw(Image.new("RGB", (800, 200)), [mark]).size == (800, 200)
