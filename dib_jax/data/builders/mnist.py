"""MNIST: 70 000 grey handwritten digits of 28×28 pixels.

Source: LeCun, Bottou, Bengio & Haffner, Gradient-Based Learning Applied to Document
Recognition, Proceedings of the IEEE 86, 1998.
"""

from dib_jax.data.builders import Examples, Paths
from dib_jax.data.builders.idx import idx_archives, read_idx

ARCHIVES = idx_archives(
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    (
        "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)


def builder() -> type:
    """TFDS' builder."""
    from tensorflow_datasets.image_classification.mnist import MNIST

    return MNIST


def read(archives: Paths) -> Examples:
    """What the archives hold.

    Args:
        archives: their paths, by name.

    Raises:
        ValueError: one is damaged, or not in this format.
    """
    return read_idx(archives)
