"""CIFAR-10: 60 000 colour pictures of 32×32 pixels in 10 classes.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

import functools

from dib_jax.data.archives import Archive
from dib_jax.data.builders import tfds_builder
from dib_jax.data.builders.cifar import read_cifar

ARCHIVES = (
    Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
)
builder = tfds_builder("image_classification.cifar:Cifar10")
read = functools.partial(
    read_cifar,
    folder="cifar-10-batches-bin",
    train=[f"data_batch_{number}.bin" for number in range(1, 6)],
    test="test_batch.bin",
    names={"label": "batches.meta.txt"},
)
