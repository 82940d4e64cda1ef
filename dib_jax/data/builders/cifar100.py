"""CIFAR-100: 60 000 colour pictures of 32×32 pixels in 100 classes.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

import functools

from dib_jax.data.archives import Archive
from dib_jax.data.builders import tfds_builder
from dib_jax.data.builders.cifar import read_cifar

ARCHIVES = (
    Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
)
builder = tfds_builder("image_classification.cifar:Cifar100")
read = functools.partial(
    read_cifar,
    folder="cifar-100-binary",
    train=["train.bin"],
    test="test.bin",
    names={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
)
