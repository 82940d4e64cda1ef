"""What it changes to train on kept augmented copies instead of new augmentation.

Stages in turn on new augmentation at every step, for which the frozen stages run
forward again (schedule.copies=0); on one augmented copy and on one for each of eight
epochs, whose outputs are kept; and on one that is renewed after 1, 2 and 4 epochs. On
10,000 pictures of CIFAR-10; and end to end.

Command:  python -m experiments.compare --config=configs/compare/copies.py
    --data_dir=DIR
"""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The comparison; it has no variants."""
    if arg:
        raise ValueError(f"unknown variant {arg!r}: there is none")
    config = ml_collections.ConfigDict()
    config.base = "configs/digits_cnn.py"
    config.methods = {
        "end_to_end": ("schedule.name=end_to_end",),
        "new_at_every_step": (),
        **{
            f"renewed_{epochs}": ("schedule.copies=1", f"schedule.renew={epochs}")
            for epochs in (1, 2, 4)
        },
        "copies_1": ("schedule.copies=1",),
        "copies_8": ("schedule.copies=8",),
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
