"""CIFAR-10 by the network and the recipe of the public speed record, stages at once.

Whitened patches, then three groups of two convolutions with a local loss each; the
heads are built like the groups that follow. In turn: --config.algorithm.name=sequential
(each group for as many epochs). End to end: --config.algorithm.name=end_to_end.

Command:  python -m experiments.run --config=configs/cifar10_fast.py (or :quick)

Source: Jordan, arXiv 2404.00498. Not of the recipe here: flips that alternate from
epoch to epoch, an average over weights.
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(
            name="cifar10",
            val_fraction=0.02,
            augment="shift,flip",
            whiten=2,
            samples=2_000 if quick else 0,
        ),
        model=dict(name="airbench", widths=(8, 16, 16) if quick else (64, 256, 256)),
        head=dict(name="augmented", least=1, pool=1, pooling="max", output_scale=1 / 9),
        task=dict(label_smoothing=0.2),
        algorithm=dict(name="parallel"),
        optimizer=dict(
            learning_rate=1.5,
            weight_decay=1.3e-3,
            momentum=0.85,
            schedule="linear",
            warmup_epochs=0.25 if quick else 2.3,
            norm_rate=64.0,
        ),
        epochs=1 if quick else 10,
        batch_size=128 if quick else 1024,
    )
