"""GreedyDIB on CIFAR-100: VGG-11, one convolution at a time.

Command:  python -m experiments.run --config=configs/cifar100_vgg.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(name="cifar100", val_fraction=0.05, augment="crop,flip"),
        model=dict(name="vgg", width=4 if quick else 64, pools=4),
        optimizer=dict(learning_rate=0.1),
        epochs=1 if quick else 60,
    )
