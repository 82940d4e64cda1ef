"""What it changes to train on stored augmented copies instead of new augmentation.

Stages in turn on new augmentation at every step, for which the frozen stages run
forward again (cache.copies=0); on one augmented copy and on one for each of eight
epochs, whose outputs are stored; and on one that is renewed after 1, 2 and 4 epochs. On
10,000 pictures of CIFAR-10; and end to end.

Command:  python -m experiments.compare --config=configs/compare/copies.py
    --data_dir=DIR
"""

from dib_jax.commands.config import ConfigDict, variant


def get_config(arg: str = "") -> ConfigDict:
    """The comparison; it has no variants."""
    variant(arg)
    config = ConfigDict()
    config.base = "configs/digits_cnn.py"
    config.methods = {
        "end_to_end": ("algorithm.name=end_to_end",),
        "new_at_every_step": (),
        **{
            f"renewed_{epochs}": ("cache.copies=1", f"cache.renew={epochs}")
            for epochs in (1, 2, 4)
        },
        "copies_1": ("cache.copies=1",),
        "copies_8": ("cache.copies=8",),
    }
    config.datasets = {
        "cifar10": (
            "dataset.name=cifar10",
            "dataset.samples=10000",
            "dataset.augment=crop,flip",
            "model.widths=(16, 32, 64, 64)",
            "epochs=8",
            "batch_size=128",
            "analysis.every_epochs=0",
        )
    }
    config.seeds = (0, 1, 2)
    config.reference = "new_at_every_step"
    return config
