"""CIFAR-10 by the network and the recipe of the public speed record, stages at once.

Whitened patches, then three groups of two convolutions with a local loss each; the
heads are built like the groups that follow. In turn: --config.algorithm.name=sequential
(each group for as many epochs). End to end: --config.algorithm.name=end_to_end.

Command:  python -m experiments.run --config=configs/cifar10_fast.py (or :half,
with half the channels and a third of the passes, or :quick)

Source: Jordan, arXiv 2404.00498. Not of the recipe here: a bias of the whitened patches
that is learnt, and the average over running statistics of norms.
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "half" or "quick"."""
    variant(arg, "half", "quick")
    quick, epochs = arg == "quick", {"half": 3, "quick": 1}.get(arg, 10)
    widths = {"half": (32, 128, 128), "quick": (8, 16, 16)}.get(arg, (64, 256, 256))
    return complete(
        dataset=dict(
            name="cifar10",
            val_fraction=0.02,
            augment="shift,alternate_flip",
            views="flip,shift",
            whiten=2,
            samples=2_000 if quick else 0,
        ),
        model=dict(name="airbench", widths=widths),
        head=dict(name="augmented", least=1, pool=1, pooling="max", output_scale=1 / 9),
        task=dict(label_smoothing=0.2),
        algorithm=dict(name="parallel"),
        optimizer=dict(
            learning_rate=1.5,
            weight_decay=1.3e-3,
            momentum=0.85,
            schedule="linear",
            warmup_epochs=0.23 * epochs,
            norm_rate=64.0,
            lookahead=5,
        ),
        epochs=epochs,
        batch_size=128 if quick else 1024,
    )
