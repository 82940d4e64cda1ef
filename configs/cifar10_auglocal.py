"""AugLocal on CIFAR-10: ResNet-32, every block its own stage, heads of later blocks.

From Ma et al. (ICLR 2024, arXiv 2402.17318) and the authors' published settings for 16
stages: heads of at most three later blocks, two towards the output, that end with a
mean, 400 epochs of batches of 1,024, SGD at 0.8 with a cosine. The stem is the first
stage here, and each block a stage; theirs train the last four blocks as one.

Command:  python -m experiments.run --config=configs/cifar10_auglocal.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import resnet_32


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        head=dict(name="augmented", depth=3, least=2, pool=1),
        objective=dict(name="cross_entropy"),
        algorithm=dict(name="parallel"),
        **resnet_32(quick),
        epochs=1 if quick else 400,
    )
