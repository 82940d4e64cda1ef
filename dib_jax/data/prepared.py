"""Data sets that TensorFlow Datasets prepared, read without TensorFlow.

TFDS needs TensorFlow for tfrecord files, but not for array_record files. This module
looks into the directory first: TFDS asks the network about a set that it does not find,
and waits for minutes where there is none.
"""

import contextlib
import io
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dib_jax.data.dataset import SPLITS, Dataset
from dib_jax.data.kind import Split
from dib_jax.data.messages import blaming
from dib_jax.data.picture_files import read_picture
from dib_jax.data.picture_folder import split_named

_INFO, _FORMAT = "dataset_info.json", "array_record"


def find_prepared(folder: Path) -> Path | None:
    """The newest version in `<data_dir>/<name>` that TFDS prepared, or None.

    Args:
        folder: holds a folder per version, such as `3.0.2`.
    """
    found = [path.parent for path in folder.glob(f"*/{_INFO}")]
    return max(found, key=_version, default=None)


def read_prepared(folder: Path, name: str) -> Dataset:
    """A classification set that TFDS prepared as array_record files.

    The features `image` and `label` become `images` and `labels`; `bbox`, one box for
    each picture as y1, x1, y2, x2 in units of the sides, becomes `boxes`; the integer
    `group` becomes `groups`, unless it is −1 for unknown throughout a split.

    Args:
        folder: one version, from `find_prepared`.
        name: the data set's name.

    Raises:
        ValueError: the files have another format, are damaged, or hold no `image` and
            `label`.
    """
    stored = _file_formats(folder)
    if _FORMAT not in stored:
        raise ValueError(
            f"{folder}: prepared as {' and '.join(sorted(stored))}, which only "
            "TensorFlow reads; prepare it with file_format=array_record"
        )
    needs = "tensorflow-datasets with importlib_resources and array_record"
    with blaming(f"{folder}: reading it needs {needs}", ImportError, "; install them"):
        import tensorflow_datasets as tfds  # slow, and only needed here
    problem, remedy = f"{folder}: TFDS cannot read it", "; prepare it again"
    with quiet(), blaming(problem, remedy=remedy):
        builder = tfds.builder_from_directory(folder)
        features, there = dict(builder.info.features.items()), builder.info.splits
    for key in ("image", "label"):
        if key not in features:
            raise ValueError(
                f"{folder}: has no feature {key!r}, only {', '.join(features)}; a set "
                "here needs image and label"
            )
    if features["image"].np_dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"{folder}: pictures must be uint8 or uint16, got "
            f"{features['image'].np_dtype}"
        )
    names = {split_named(key): key for key in there} | {key: key for key in there}
    for key in ("train", "test"):
        if key not in names:
            raise ValueError(f"{folder}: has no {key} split, only {', '.join(there)}")
    used = {key: names[key] for key in SPLITS if key in names}
    decoders = {"image": tfds.decode.SkipDecoding()}  # to read them as all pictures
    with quiet(), blaming(problem, remedy=remedy):
        class_names = tuple(map(str, features["label"].names))
        splits = {
            key: _read(
                builder.as_data_source(stored, file_format=_FORMAT, decoders=decoders),
                features,
            )
            for key, stored in used.items()
        }
    description = f"{name} {folder.name} as prepared by TFDS"
    if unused := sorted(there.keys() - used.values()):
        description += f"; not used: {', '.join(unused)}"
    validation = splits.get("validation", {})
    return Dataset(
        name, splits["train"], validation, splits["test"], class_names, description
    )


def _read(source: Sequence[dict[str, Any]], features: dict[str, Any]) -> Split:
    form = getattr(features.get("bbox"), "bbox_format", None)
    with_boxes = getattr(form, "name", form) == "REL_YXYX"
    mode = "L" if features["image"].shape[-1] == 1 else "RGB"
    count = len(source)
    labels = np.empty(count, np.int32)
    images = np.empty((0, 0, 0, 0), np.uint8)
    boxes, groups = np.empty((count, 4), np.float32), np.full(count, -1, np.int64)
    for row in range(count):
        example = source[row]
        # Boxes of TFDS are of the picture as it is stored.
        picture = read_picture(io.BytesIO(example["image"]), upright=not with_boxes)
        pixels = np.atleast_3d(np.asarray(picture.convert(mode)))
        if not row:
            images = np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise ValueError(
                f"pictures differ in shape: row 0 {images.shape[1:]}, row {row} "
                f"{pixels.shape}"
            )
        images[row], labels[row] = pixels, example["label"]
        groups[row] = example.get("group", -1)
        if with_boxes:
            boxes[row] = example["bbox"]
    split: Split = {"images": images, "labels": labels}
    if with_boxes:
        height, width = images.shape[1:3]
        sides = np.array([width, height, width, height], np.float32)
        split["boxes"] = boxes[:, [1, 0, 3, 2]] * sides
    if (groups != -1).any():
        split["groups"] = groups
    return split


def _file_formats(folder: Path) -> set[str]:
    path = folder / _INFO
    with blaming(f"{path}: cannot be read", remedy="; prepare the set again"):
        info = json.loads(path.read_text(encoding="utf-8"))
        formats = [info.get("fileFormat", "tfrecord")]
        formats += info.get("alternativeFileFormats", [])
    return {str(value) for value in formats}


def _version(folder: Path) -> tuple[int, ...]:
    parts = folder.name.split(".")
    return tuple(int(part) if part.isdigit() else -1 for part in parts)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the advice of TFDS to install OpenCV."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
