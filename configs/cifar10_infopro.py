"""InfoPro on CIFAR-10: ResNet-32, every block its own stage, all at once.

From Wang et al. (arXiv 2101.10832) and the authors' published settings for 16 local
modules: the contrastive loss with λ₁ from 5 to 0.2 and λ₂ from 0.05 to 0.5, 160 epochs
of batches of 1,024, SGD at 0.8 with a cosine. The stem is the first stage here.

Command:  python -m experiments.run --config=configs/cifar10_infopro.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import resnet_32


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        objective=dict(name="infopro", reconstruct=(5.0, 0.2), predict=(0.05, 0.5)),
        head=dict(pool=1),
        algorithm=dict(name="parallel"),
        **resnet_32(quick),
        epochs=1 if quick else 160,
    )
