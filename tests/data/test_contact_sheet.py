import numpy as np
import pytest
from PIL import Image

from dib_jax.data import Dataset
from dib_jax.data.contact_sheet import write_contact_sheet

PINK = (255, 40, 90)


def dataset(count, shape, classes=3, **extra):
    images = np.zeros((count, *shape), np.uint8)
    images[:] = np.arange(count).reshape(-1, 1, 1, 1) * 2
    split = {"images": images, "labels": np.arange(count) % classes, **extra}
    return Dataset("x", split, {}, split, tuple("abcdefghijk"[:classes]), "")


def sheet_of(tmp_path, made, **options):
    path = tmp_path / "sheet.png"
    write_contact_sheet(made, path, **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (300, 200, 3), (9, 5, 4)])
def test_pictures_of_every_class_come_first(tmp_path, shape):
    made = dataset(90, shape)
    made.train["labels"][:] = np.arange(90) // 30
    pixels = sheet_of(tmp_path, made, columns=3, rows=2)
    assert pixels.shape == (2 * 116 + 6, 3 * 102 + 6, 3)
    # The first of each class, then the second: rows 0, 30, 60 and 1, 31, 61.
    shown = [
        [pixels[6 + 116 * i + 20, 6 + 102 * j + 20, 0] for j in range(3)]
        for i in range(2)
    ]
    assert shown == [[0, 60, 120], [2, 62, 122]]


def test_boxes_are_drawn_where_they_are_and_where_there_are_any(tmp_path):
    boxes = np.full((4, 2, 4), -1, np.float32)
    boxes[:, 0] = [4, 2, 8, 6]
    box_labels = np.array([[0, -1]] * 4)
    made = dataset(4, (16, 16, 3), boxes=boxes, box_labels=box_labels)
    drawn = (sheet_of(tmp_path, made) == PINK).all(axis=-1)
    rows, columns = np.nonzero(drawn[:, : 6 + 96])
    scale = 96 / 16
    assert (columns.min() - 6, columns.max() - 5) == (4 * scale, 8 * scale)
    assert (rows.min() - 6, rows.max() - 5) == (2 * scale, 6 * scale)
    made.train["boxes"][:, 0] = [8, 2, 8, np.nan]
    assert not (sheet_of(tmp_path, made) == PINK).all(axis=-1).any()


@pytest.mark.parametrize(
    "box", [(4, 2, 4.001, 6), (0, 0, 16, 0.001), (15.99, 0, 16, 1)]
)
def test_a_box_thinner_than_a_pixel_of_the_sheet_is_drawn(tmp_path, box):
    boxes = np.array([box] * 4, np.float32)
    drawn = sheet_of(tmp_path, dataset(4, (16, 16, 3), boxes=boxes)) == PINK
    assert drawn.all(axis=-1).any()


def test_a_name_that_no_font_has_does_no_harm(tmp_path):
    made = dataset(4, (8, 8, 1))._replace(class_names=("停", "Straße " * 20, "c"))
    sheet_of(tmp_path, made)
