"""Pairwise learning with kernels on CIFAR-10: ResNet-18, stages in turn.

From Duan, Yu & Príncipe (arXiv 2005.05541) and the authors' published settings: the
alignment of pairs, 200 epochs of batches of 128, SGD at 0.1. Theirs are also two
modules in place of nine stages, 150 more epochs at lower rates where there is a cosine
here, and an output module that is trained afterwards.

Command:  python -m experiments.run --config=configs/cifar10_kernel_alignment.py
    (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        objective=dict(name="kernel_alignment"),
        dataset=dict(name="cifar10", val_fraction=0.05, augment="crop,flip"),
        model=dict(name="resnet", depth=8 if quick else 18, width=8 if quick else 64),
        optimizer=dict(learning_rate=0.1, weight_decay=6.25e-5),
        epochs=1 if quick else 200,
    )
