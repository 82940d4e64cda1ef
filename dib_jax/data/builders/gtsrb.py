"""GTSRB, the German Traffic Sign Recognition Benchmark: 51 839 pictures, 43 classes.

Pictures of 15 to 250 pixels, each stretched to one square size, with the box of its
sign. Training pictures come in tracks of thirty of the same sign as a car drives by: a
track is a group.

Source: Stallkamp, Schlipsing, Salmen & Igel, Man vs. computer, Neural Networks 32,
2012.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from dib_jax.data.archives import Archive, open_zip, read_zip
from dib_jax.data.builders import Example, Examples, Paths, picture
from dib_jax.data.messages import blaming
from dib_jax.data.picture_files import read_picture

_URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
ARCHIVES = tuple(
    Archive(f"{_URL}/GTSRB_Final_{part}.zip", digest)
    for part, digest in (
        ("Training_Images", "md5:f33fd80ac59bff73c82d25ab499e03a3"),
        ("Test_Images", "md5:c7e4e6327067d32654124b0fe9e82185"),
        ("Test_GT", "md5:fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    )
)
SIZE = 32
# The benchmark only numbers its classes; these are the names in common use.
CLASS_NAMES = (
    "Speed limit (20km/h)", "Speed limit (30km/h)", "Speed limit (50km/h)",
    "Speed limit (60km/h)", "Speed limit (70km/h)", "Speed limit (80km/h)",
    "End of speed limit (80km/h)", "Speed limit (100km/h)", "Speed limit (120km/h)",
    "No passing", "No passing for vehicles over 3.5 t",
    "Right-of-way at the next intersection", "Priority road", "Yield", "Stop",
    "No vehicles", "Vehicles over 3.5 t prohibited", "No entry", "General caution",
    "Dangerous curve to the left", "Dangerous curve to the right", "Double curve",
    "Bumpy road", "Slippery road", "Road narrows on the right", "Road work",
    "Traffic signals", "Pedestrians", "Children crossing", "Bicycles crossing",
    "Beware of ice/snow", "Wild animals crossing",
    "End of all speed and passing limits", "Turn right ahead", "Turn left ahead",
    "Ahead only", "Go straight or right", "Go straight or left", "Keep right",
    "Keep left", "Roundabout mandatory", "End of no passing",
    "End of no passing by vehicles over 3.5 t",
)  # fmt: skip
_COLUMNS = ("ClassId", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")
_TRACKS = 1000  # more than any class has, so that class and track make one number


def builder(size: int = SIZE) -> type:
    """A builder written here, because TFDS has none.

    Args:
        size: side of the stored pictures, in pixels. Where it is not 32, the name of
            the set ends in it: gtsrb48.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    with registered.skip_registration():

        class Gtsrb(tfds.core.GeneratorBasedBuilder):
            """German Traffic Sign Recognition Benchmark."""

            name = "gtsrb" if size == SIZE else f"gtsrb{size}"
            VERSION = tfds.core.Version("1.0.0")
            pkg_dir_path = None

            def _info(self) -> tfds.core.DatasetInfo:
                features = {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(size, size, 3)),
                    "label": tfds.features.ClassLabel(names=list(CLASS_NAMES)),
                    "bbox": tfds.features.BBoxFeature(),
                    # class and track; −1 where the track is not known
                    "group": tfds.features.Scalar(np.int64),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    description="German Traffic Sign Recognition Benchmark, pictures "
                    f"stretched to {size}x{size}, with the box of the sign.",
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                    homepage="https://benchmark.ini.rub.de/gtsrb_dataset.html",
                )

    return Gtsrb


def read(archives: Paths, size: int = SIZE) -> Examples:
    """The examples of the three archives.

    Args:
        archives: their paths, by name.
        size: side of the stored pictures, in pixels.

    Raises:
        ValueError: one is damaged, or not in this format, or a box has no area.
    """
    train, test, truth = (archives[archive.name] for archive in ARCHIVES)

    def training() -> Iterator[Example]:
        with open_zip(train) as opened:
            names = sorted(opened.namelist())
            tables = [name for name in names if re.search(r"/GT-\d+\.csv$", name)]
            if not tables:
                raise ValueError(f"{train}: there is no table GT-*.csv in it")
            for table in tables:
                for row, line in enumerate(_lines(opened, table)):
                    source = f"{train}: {table}, row {row}"
                    example = _example(opened, table, line, size, source)
                    track = _track(example["id"], source)
                    yield example | {"group": example["label"] * _TRACKS + track}

    def testing() -> Iterator[Example]:
        table, place = "GT-final_test.csv", "GTSRB/Final_Test/Images/"
        with open_zip(truth) as opened:
            lines = list(_lines(opened, table))
        with open_zip(test) as opened:
            for row, line in enumerate(lines):
                source = f"{truth}: {table}, row {row}"
                yield _example(opened, place, line, size, source) | {"group": -1}

    return Examples({"train": training(), "test": testing()})


def _lines(archive: zipfile.ZipFile, table: str) -> Iterator[dict[str, str]]:
    text = read_zip(archive, table).decode("utf-8")
    yield from csv.DictReader(io.StringIO(text), delimiter=";")


def _track(name: str, source: str) -> int:
    found = re.fullmatch(r"(\d+)_\d+\.ppm", name)
    if not found or int(found[1]) >= _TRACKS:
        raise ValueError(f"{source}: {name!r} does not say TRACK_FRAME.ppm")
    return int(found[1])


def _example(
    archive: zipfile.ZipFile, beside: str, line: dict[str, str], size: int, source: str
) -> Example:
    try:
        name = line["Filename"]
        label, width, height, x1, y1, x2, y2 = (int(line[key]) for key in _COLUMNS)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{source}: must hold a file name, width, height, four sides of a box and "
            f"a class as integers, got {dict(line)}"
        ) from error
    if not 0 <= label < len(CLASS_NAMES):
        raise ValueError(
            f"{source}: unknown class {label}; must be 0..{len(CLASS_NAMES) - 1}"
        )
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(
            f"{source}: box {[x1, y1, x2, y2]} has no area or leaves the picture "
            f"{name} of {width}x{height} pixels"
        )
    member = beside.rpartition("/")[0] + "/" + name
    content = read_zip(archive, member)
    with blaming(f"{archive.filename}: {member} is no picture, or truncated"):
        image = read_picture(io.BytesIO(content)).convert("RGB")
    if image.size != (width, height):
        raise ValueError(
            f"{source}: says {width}x{height} pixels, but {name} has "
            f"{image.width}x{image.height}"
        )
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    box = np.array([y1 / height, x1 / width, y2 / height, x2 / width])  # as TFDS has it
    return {"id": name, "image": picture(pixels), "label": label, "bbox": box}
