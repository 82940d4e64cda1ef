"""The binary format of CIFAR-10 and CIFAR-100."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from dib_jax.data.archives import read_tar
from dib_jax.data.builders import Example, Examples, Paths, picture

_PIXELS = 3 * 32 * 32


def read_cifar(
    archives: Paths, *, folder: str, train: list[str], test: str, names: dict[str, str]
) -> Examples:
    """The examples of a CIFAR archive.

    Args:
        archives: the path of the one archive, by its name.
        folder: the folder of the members in the archive.
        train: files of the training split, in their order.
        test: file of the test split.
        names: the file of the class names by feature; the labels of a picture come
            before its pixels in this order.

    Raises:
        ValueError: the archive is damaged, or not in this format.
    """
    (path,) = archives.values()
    files = {name: f"{folder}/{name}" for name in (*train, test, *names.values())}
    contents = read_tar(path, list(files.values()))
    class_names = {
        feature: list(filter(None, contents[files[name]].decode("utf-8").splitlines()))
        for feature, name in names.items()
    }

    def examples(split: str, members: Sequence[str]) -> Iterator[Example]:
        parts = (
            _rows(contents[files[name]], len(names), f"{path}: {name}")
            for name in members
        )
        for index, row in enumerate(itertools.chain.from_iterable(parts)):
            pixels = row[len(names) :].reshape(3, 32, 32).transpose(1, 2, 0)
            labels = dict(zip(names, map(int, row), strict=False))
            for feature, label in labels.items():
                if label >= len(class_names[feature]):
                    raise ValueError(
                        f"{path}: unknown class {label}, {feature} of the {split} "
                        f"picture {index}; there are {len(class_names[feature])}"
                    )
            image = picture(np.ascontiguousarray(pixels))
            yield {"id": f"{split}_{index:05d}", "image": image, **labels}

    splits = {"train": examples("train", train), "test": examples("test", [test])}
    return Examples(splits, class_names)


def _rows(content: bytes, labels: int, source: str) -> np.ndarray:
    width = labels + _PIXELS
    if not content or len(content) % width:
        raise ValueError(
            f"{source}: {len(content)} bytes are not a whole number of pictures of "
            f"{width} bytes; a picture is truncated"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, width)
