"""Momentum auxiliary networks (MAN) on CIFAR-10: heads that follow the next block.

From Su et al. (arXiv 2407.05623): each head of a ResNet-32 is the next block with a
moving average of its weights (0.995) and a learnable bias. The optimizer's settings,
and 160 epochs of batches of 1,024, are those of cifar10_infopro.py; the stem is the
first stage here.

Command:  python -m experiments.run --config=configs/cifar10_momentum.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        algorithm=dict(name="momentum", decay=0.995),
        head=dict(name="momentum"),
        objective=dict(name="cross_entropy"),
        dataset=dict(name="cifar10", val_fraction=0.05, augment="crop,flip"),
        model=dict(name="resnet", depth=8 if quick else 32, width=8 if quick else 16),
        optimizer=dict(
            learning_rate=0.1 if quick else 0.8,
            weight_decay=1e-4,
            warmup_epochs=1 if quick else 10,
        ),
        epochs=1 if quick else 160,
        batch_size=128 if quick else 1024,
    )
