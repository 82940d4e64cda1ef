"""Samples that stand in more than one split."""

import hashlib
from collections.abc import Iterator

from dib_jax.data.dataset import Dataset
from dib_jax.data.kind import Split, size


def count_duplicates(dataset: Dataset) -> dict[str, int]:
    """How many samples of a split are, byte for byte, also in the training split.

    Args:
        dataset: as `dib_jax.data.load` returns it.

    Returns:
        The number of samples of `test` and of `validation` that are also in train.
    """
    known = set(_digests(dataset, dataset.train))
    return {
        name: sum(digest in known for digest in _digests(dataset, split))
        for name, split in (("test", dataset.test), ("validation", dataset.validation))
    }


def describe_duplicates(dataset: Dataset) -> str:
    """The same in a line.

    Args:
        dataset: as `dib_jax.data.load` returns it, of pictures.
    """
    shown = ", ".join(
        f"{count} of {size(getattr(dataset, name))} {name} pictures"
        for name, count in count_duplicates(dataset).items()
    )
    return f"exact duplicates of training pictures: {shown}"


def _digests(dataset: Dataset, split: Split) -> Iterator[bytes]:
    # One by one: of a large set only 16 bytes a training sample are held.
    arrays = [split[name] for name in dataset.kind.content if name in split]
    for sample in zip(*arrays, strict=True):
        content = b"".join(part.tobytes() for part in sample)
        yield hashlib.blake2b(content, digest_size=16).digest()
