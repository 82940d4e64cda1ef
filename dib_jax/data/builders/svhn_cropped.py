"""Street View House Numbers, cropped: 99 289 colour digits of 32×32 pixels.

The half million easier digits of the split `extra` are left out.

Source: Netzer et al., Reading Digits in Natural Images with Unsupervised Feature
Learning, NIPS workshop 2011.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from dib_jax.data.archives import Archive
from dib_jax.data.builders import Example, Examples, Paths, picture, tfds_builder
from dib_jax.data.messages import blaming

_URL = "http://ufldl.stanford.edu/housenumbers"
_DIGESTS = {
    "train": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    "test": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
}
ARCHIVES = tuple(
    Archive(f"{_URL}/{split}_32x32.mat", f"sha256:{digest}")
    for split, digest in _DIGESTS.items()
)
builder = tfds_builder("datasets.svhn_cropped.svhn_cropped_dataset_builder:Builder")


def read(archives: Paths) -> Examples:
    """The examples of two MATLAB files.

    Args:
        archives: their paths, by name.

    Raises:
        ValueError: one is damaged, or not in this format.
    """
    return Examples(
        {split: _examples(archives[f"{split}_32x32.mat"], split) for split in _DIGESTS}
    )


def _examples(path: pathlib.Path, split: str) -> Iterator[Example]:
    import scipy.io  # a slow import

    with blaming(f"{path}: damaged or cut off"):
        content = scipy.io.loadmat(path, variable_names=("X", "y"))
        images, labels = content["X"], content["y"].reshape(-1)
    expected = (32, 32, 3, len(labels))
    if images.shape != expected or images.dtype != np.uint8:
        raise ValueError(
            f"{path}: X must be uint8 {expected}, got {images.dtype} {images.shape}"
        )
    for index, label in enumerate(labels):
        if not 1 <= label <= 10:
            raise ValueError(
                f"{path}: unknown class {label} of the picture {index}; must be 1..10"
            )
        image = picture(np.ascontiguousarray(images[..., index]))
        digit = int(label) % 10  # the digit 0 is stored as 10
        yield {"id": f"{split}_{index:06d}", "image": image, "label": digit}
