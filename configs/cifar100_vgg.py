"""GreedyDIB on CIFAR-100: VGG-11, one convolution at a time.

Whitened patches, flips that alternate, averages over weights and over views, and heads
like the two convolutions that follow. All at once: --config.algorithm.name=parallel.

Command:  python -m experiments.run --config=configs/cifar100_vgg.py (or :quick)

Source of the recipe's parts: Jordan, arXiv 2404.00498; of the heads: AugLocal, Ma et
al., arXiv 2402.17318.
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(
            name="cifar100",
            val_fraction=0.05,
            augment="shift,alternate_flip",
            views="flip,shift",
            whiten=2,
        ),
        model=dict(name="vgg", width=4 if quick else 64, pools=4),
        head=dict(name="augmented", depth=2, pool=1, pooling="max"),
        task=dict(label_smoothing=0.2),
        optimizer=dict(learning_rate=0.1, schedule="linear", lookahead=5),
        epochs=1 if quick else 60,
    )
