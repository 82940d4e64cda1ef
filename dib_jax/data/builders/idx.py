"""The idx format of MNIST and of the sets that are modelled on it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dib_jax.data.archives import Archive, read_gzip
from dib_jax.data.builders import Example, Examples, Paths, picture

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_CLASSES = 10


def idx_archives(url: str, digests: tuple[str, str, str, str]) -> tuple[Archive, ...]:
    """The four files of a set.

    Args:
        url: the folder of the files.
        digests: their digests, in the order of `FILES`.
    """
    pairs = zip(FILES, digests, strict=True)
    return tuple(Archive(f"{url}/{name}", digest) for name, digest in pairs)


def read_idx(archives: Paths) -> Examples:
    """The examples of four idx files.

    Args:
        archives: their paths, by name.

    Raises:
        ValueError: a file is damaged, or not in this format.
    """
    paths = [archives[name] for name in FILES]
    return Examples({"train": _examples(*paths[:2]), "test": _examples(*paths[2:])})


def _examples(images_path: Path, labels_path: Path) -> Iterator[Example]:
    images, labels = _array(images_path, 3), _array(labels_path, 1)
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} pictures of "
            f"{images_path.name}"
        )
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        if label >= _CLASSES:
            raise ValueError(
                f"{labels_path}: unknown class {label} of the picture {index}; there "
                f"are {_CLASSES}"
            )
        yield {"image": picture(image), "label": int(label)}


def _array(path: Path, dimensions: int) -> np.ndarray:
    content = read_gzip(path)
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(
            f"{path}: not an idx file of bytes in {dimensions} dimension(s)"
        )
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4).astype(int)
    if len(content) - start != shape.prod():
        raise ValueError(
            f"{path}: {len(content) - start} bytes where its header says "
            f"{'x'.join(map(str, shape))}; truncated"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
