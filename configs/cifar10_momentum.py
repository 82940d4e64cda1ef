"""Momentum auxiliary networks (MAN) on CIFAR-10: heads that follow the next block.

From Su et al. (arXiv 2407.05623): each head of a ResNet-32 is the next block with a
moving average of its weights (0.995) and a learnable bias. The optimizer's settings,
and 160 epochs of batches of 1,024, are those of cifar10_infopro.py; the stem is the
first stage here. The authors' code has 400 epochs, and behind each such block a head of
two convolutions and InfoPro's loss of a reconstruction.

Command:  python -m experiments.run --config=configs/cifar10_momentum.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import resnet_32


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        algorithm=dict(name="momentum", decay=0.995),
        head=dict(name="momentum", pool=1),
        objective=dict(name="cross_entropy"),
        **resnet_32(quick),
        epochs=1 if quick else 160,
    )
