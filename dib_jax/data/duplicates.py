"""Pictures that stand in more than one split."""

import hashlib
from collections.abc import Iterator

import numpy as np

from dib_jax.data.dataset import Dataset


def count_duplicates(dataset: Dataset) -> dict[str, int]:
    """How many pictures of a split are, byte for byte, also in the training split.

    Args:
        dataset: as `dib_jax.data.load` returns it.

    Returns:
        The number of pictures of `test` and of `validation` that are also in train.
    """
    known = set(_digests(dataset.train["images"]))
    return {
        name: sum(digest in known for digest in _digests(split["images"]))
        for name, split in (("test", dataset.test), ("validation", dataset.validation))
    }


def describe_duplicates(dataset: Dataset) -> str:
    """The same in a line.

    Args:
        dataset: as `dib_jax.data.load` returns it.
    """
    counts = count_duplicates(dataset)
    shown = ", ".join(
        f"{count} of {len(getattr(dataset, name)['labels'])} {name} pictures"
        for name, count in counts.items()
    )
    return f"exact duplicates of training pictures: {shown}"


def _digests(images: np.ndarray) -> Iterator[bytes]:
    # One by one: of a large set only 16 bytes a training picture are held.
    return (
        hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images
    )
