"""Samples that stand in more than one split, or in more than one class."""

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


def count_contradictions(dataset: Dataset) -> int:
    """How many training samples are, byte for byte, one of another class.

    Args:
        dataset: as `dib_jax.data.load` returns it.
    """
    if "labels" not in dataset.train:
        return 0
    classes: dict[bytes, set[int]] = {}
    digests = list(_digests(dataset, dataset.train))
    for digest, label in zip(digests, dataset.train["labels"].tolist(), strict=True):
        classes.setdefault(digest, set()).add(label)
    return sum(len(classes[digest]) > 1 for digest in digests)


def describe_duplicates(dataset: Dataset) -> str:
    """Both in a line.

    Args:
        dataset: as `dib_jax.data.load` returns it, of pictures.
    """
    shown = ", ".join(
        f"{count} of {size(getattr(dataset, name))} {name} pictures"
        for name, count in count_duplicates(dataset).items()
    )
    count = count_contradictions(dataset)
    several = f"; {count} training pictures stand in several classes" if count else ""
    return f"exact duplicates of training pictures: {shown}{several}"


def _digests(dataset: Dataset, split: Split) -> Iterator[bytes]:
    # One by one: of a large set only 16 bytes a training sample are held.
    arrays = [split[name] for name in dataset.kind.content if name in split]
    for sample in zip(*arrays, strict=True):
        content = b"".join(part.tobytes() for part in sample)
        yield hashlib.blake2b(content, digest_size=16).digest()
