"""Data sets that TensorFlow Datasets prepared, read without TensorFlow.

TFDS needs TensorFlow for tfrecord files, but not for array_record files. This module
looks into the directory first: TFDS asks the network about a set that it does not find,
and waits for minutes where there is none.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dib_jax.data.dataset import Dataset
from dib_jax.data.kind import Split
from dib_jax.data.messages import one_line

_INFO = "dataset_info.json"


def find_prepared(folder: Path) -> Path | None:
    """The newest version in `<data_dir>/<name>` that TFDS prepared, or None.

    Args:
        folder: holds a folder per version, such as `3.0.2`.
    """
    versions = {
        _version(path.parent.name): path.parent for path in folder.glob(f"*/{_INFO}")
    }
    return versions[max(versions)] if versions else None


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
    if "array_record" not in stored:
        raise ValueError(
            f"{folder}: prepared as {' and '.join(sorted(stored))}, which only "
            "TensorFlow reads; prepare it with file_format=array_record"
        )
    try:
        import tensorflow_datasets as tfds  # slow, and only needed here
    except ImportError as error:
        raise ValueError(
            f"{folder}: reading it needs tensorflow-datasets with importlib_resources "
            f"and array_record ({one_line(error)}); install them"
        ) from error
    with quiet():
        try:
            builder = tfds.builder_from_directory(folder)
            features = builder.info.features
            bbox = dict(features.items()).get("bbox")
            form = getattr(bbox, "bbox_format", None)
            with_boxes = getattr(form, "name", form) == "REL_YXYX"
            missing = [key for key in ("image", "label") if key not in features]
            if not missing:
                class_names = tuple(str(value) for value in features["label"].names)
            splits = {
                key: _read(
                    builder.as_data_source(split=key, file_format="array_record"),
                    with_boxes,
                )
                for key in ("train", "validation", "test")
                if key in builder.info.splits and not missing
            }
        except Exception as error:  # many types, from TFDS, protobuf, Pillow
            raise ValueError(
                f"{folder}: TFDS cannot read it ({one_line(error)}); prepare it again"
            ) from error
    if missing:
        raise ValueError(
            f"{folder}: has no feature {missing[0]!r}, only {', '.join(features)}; a "
            "set here needs image and label"
        )
    for key in ("train", "test"):
        if key not in splits:
            raise ValueError(
                f"{folder}: has no {key} split, only {', '.join(builder.info.splits)}"
            )
    return Dataset(
        name=name,
        train=splits["train"],
        validation=splits.get("validation", {}),
        test=splits["test"],
        class_names=class_names,
        description=f"{name} {folder.name} as prepared by TFDS",
    )


def _read(source: Sequence[dict[str, Any]], with_boxes: bool) -> Split:
    count = len(source)
    labels = np.empty(count, np.int32)
    images = np.empty((0, 0, 0, 0), np.uint8)
    boxes, groups = np.empty((count, 4), np.float32), np.full(count, -1, np.int64)
    for row in range(count):
        example = source[row]
        if not row:
            images = np.empty((count, *example["image"].shape), np.uint8)
        if example["image"].shape != images.shape[1:]:
            raise ValueError(
                f"pictures differ in shape: row 0 {images.shape[1:]}, row {row} "
                f"{example['image'].shape}"
            )
        images[row], labels[row] = example["image"], example["label"]
        if with_boxes:
            y1, x1, y2, x2 = example["bbox"]
            height, width = images.shape[1:3]
            boxes[row] = x1 * width, y1 * height, x2 * width, y2 * height
        if "group" in example:
            groups[row] = example["group"]
    split: Split = {"images": images, "labels": labels}
    if with_boxes:
        split["boxes"] = boxes
    if (groups != -1).any():
        split["groups"] = groups
    return split


def _file_formats(folder: Path) -> set[str]:
    path = folder / _INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        formats = [info.get("fileFormat", "tfrecord")]
        formats += info.get("alternativeFileFormats", [])
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path}: cannot be read ({one_line(error)}); prepare the set again"
        ) from error
    return {str(value) for value in formats}


def _version(name: str) -> tuple[int, ...]:
    parts = name.split(".")
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
