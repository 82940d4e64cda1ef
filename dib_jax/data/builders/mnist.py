"""MNIST: 70 000 grey handwritten digits of 28×28 pixels.

Source: LeCun, Bottou, Bengio & Haffner, Gradient-Based Learning Applied to Document
Recognition, Proceedings of the IEEE 86, 1998.
"""

from dib_jax.data.builders import tfds_builder
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
builder = tfds_builder("image_classification.mnist:MNIST")
read = read_idx
