"""GreedyDIB on CIFAR-10: a small convnet that a CPU can train within the hour.

The auxiliary classifiers have two convolutions: with linear ones the first stages learn
less, and the accuracy at the end is 2.5 points lower (results/cifar10_cnn.md).

Command:  python -m experiments.run --config=configs/cifar10_cnn.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(name="cifar10", val_fraction=0.05, augment="crop,flip"),
        model=dict(widths=(8, 16, 32) if quick else (32, 64, 128), convolutions=2),
        head=dict(name="conv", layers=2),
        optimizer=dict(learning_rate=0.1),
        epochs=1 if quick else 16,
    )
