"""Fashion-MNIST: 70 000 grey pictures of clothes, 28×28 pixels, in 10 classes.

Source: Xiao, Rasul & Vollgraf, arXiv 1708.07747.
"""

from dib_jax.data.builders import tfds_builder
from dib_jax.data.builders.idx import idx_archives, read_idx

ARCHIVES = idx_archives(
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    (
        "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
builder = tfds_builder("image_classification.mnist:FashionMNIST")
read = read_idx
