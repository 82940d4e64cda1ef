"""Layer-wise cross-entropy on CIFAR-10, stages in turn, heads of two convolutions.

k = 3 of Belilovsky, Eickenberg & Oyallon (arXiv 1812.11446): four convolutions of 128
and 256 channels, 50 epochs each, batches of 128, SGD at 0.1. Theirs are its invertible
downsampling, after the second convolution, and a rate that falls to a fifth every 15
epochs; here a max pooling after the first, and a cosine.

Command:  python -m experiments.run --config=configs/cifar10_cross_entropy.py
    (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        objective=dict(name="cross_entropy"),
        head=dict(name="conv", layers=2),
        dataset=dict(name="cifar10", val_fraction=0.05, augment="crop,flip"),
        model=dict(widths=(16, 16) if quick else (128, 128, 256, 256), pools=1),
        optimizer=dict(learning_rate=0.1),
        epochs=1 if quick else 50,
    )
