"""One reader of pictures: what a network is trained on is what it is shown in use."""

import io

import numpy as np
import pytest
from PIL import Image

from dib_jax import data
from dib_jax.data.annotated import write_annotated
from dib_jax.data.picture_files import (
    UnreadablePictureError,
    fit,
    is_picture,
    read_picture,
    suffixes,
)

RAMP = np.linspace(0, 1, 256).reshape(16, 16)
GREY = np.round(RAMP * 255).astype(np.uint8)


def pillow(form):
    """A ramp of greys, or a black sign on nothing, in a form that files have."""
    if form == "clear":
        pixels = np.zeros((16, 16, 4), np.uint8)
        pixels[4:8, 4:12, 3] = 255
        return Image.fromarray(pixels)
    levels = {
        "16 bits": (RAMP * 65535).round().astype(np.uint16),
        "12 of 16 bits": (RAMP * 4095).round().astype(np.uint16),
        "32 bits": (RAMP * 65535).round().astype(np.int32),
        "32 bits up to 255": GREY.astype(np.int32),
        "floats": RAMP.astype(np.float32),
        "floats up to 255": (RAMP * 255).astype(np.float32),
        "floats with gaps": np.where(RAMP > 0, RAMP, np.inf).astype(np.float32),
    }
    return Image.fromarray(levels[form])


RIGHT = {
    "12 of 16 bits": np.round(RAMP * 4095 / 257).astype(np.uint8),
    "clear": np.where(np.pad(np.ones((4, 8)), ((4, 8), (4, 4))), 0, 255),
}
FORMS = [
    "16 bits", "12 of 16 bits", "32 bits", "32 bits up to 255", "floats",
    "floats up to 255", "floats with gaps", "clear",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_prepare_and_predict_see_the_same_picture(tmp_path, form):
    ending = "tif" if "32" in form or "floats" in form else "png"
    folder = tmp_path / "set"
    for name in ("a", "b"):
        for number in range(2):
            path = folder / name / f"{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pillow(form).save(path)
            if number:  # no duplicates: of two alike none could be held out
                Image.fromarray(np.full((16, 16), 9 * ord(name) % 256, np.uint8)).save(
                    path
                )
    write_annotated(
        folder, tmp_path / "d" / "mine", size=16, test_fraction=0.5, report=len
    )
    dataset = data.load("mine", data_dir=str(tmp_path / "d"), val_fraction=0)
    stored = [*dataset.train["images"], *dataset.test["images"]]
    seen = fit(read_picture(path.with_name(f"0.{ending}")), (16, 16, 3), pad=False)
    assert sum(np.array_equal(image, seen) for image in stored) == 2
    right = RIGHT.get(form, GREY)
    np.testing.assert_allclose(seen[..., 0].astype(int), right, atol=1)


@pytest.mark.parametrize("values", [[-1, 0.5], [0, 1e6]])
def test_values_that_mean_no_grey_are_refused(tmp_path, values):
    pixels = np.array([values], np.float32)
    Image.fromarray(pixels).save(tmp_path / "x.tif")
    with pytest.raises(UnreadablePictureError, match="0 to 1, 255 or 65535 are known"):
        read_picture(tmp_path / "x.tif")


def test_a_large_picture_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(GREY[:12, :12]).save(tmp_path / "large.png")  # 144: a warning
    assert read_picture(tmp_path / "large.png").size == (12, 12)
    Image.fromarray(GREY).save(tmp_path / "larger.png")  # 256: refused
    with pytest.raises(UnreadablePictureError, match="exceeds limit"):
        read_picture(tmp_path / "larger.png")


def test_a_grey_that_a_file_calls_transparent_is_white(tmp_path):
    levels = np.array([[0, 257 * 99]], np.uint16)
    for pixels, clear in ((levels, 0), ((levels // 257).astype(np.uint8), 0)):
        Image.fromarray(pixels).save(tmp_path / "x.png", transparency=clear)
        grey = read_picture(tmp_path / "x.png").convert("L")
        assert np.asarray(grey).tolist() == [[255, 99]]


def test_bytes_are_read_as_files_are():
    file = io.BytesIO()
    pillow("16 bits").save(file, "PNG")
    np.testing.assert_array_equal(read_picture(io.BytesIO(file.getvalue())), GREY)


def test_what_is_a_picture_is_told_by_its_name(tmp_path):
    for name in ("a.JPG", "a.jfif", "a.gif", "a.pgm", "a.avif", "a.mpo", "a.webp"):
        assert is_picture(tmp_path / name)
    # Programs that Pillow starts, films, documents and notes.
    for name in ("a.eps", "a.mpg", "a.pdf", "a.txt", "a.xml", "jpg", "a.heic"):
        assert not is_picture(tmp_path / name)
    assert all(suffix == suffix.lower() for suffix in suffixes())
