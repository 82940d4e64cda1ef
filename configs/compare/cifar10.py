"""The methods of digits.py on 10,000 pictures of CIFAR-10, for two cores.

Command:  python -m experiments.compare --config=configs/compare/cifar10.py
    --data_dir=DIR

Widths of 16 to 64 and three epochs a stage keep 25 methods of three seeds near 90
minutes of one core, by an estimate: one epoch of back-propagation took 30 seconds of
CPU time, start and compilation included.
"""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The comparison."""
    if arg:
        raise ValueError(f"unknown variant {arg!r}: there is none")
    config = ml_collections.ConfigDict()
    config.like = "configs/compare/digits.py"
    config.datasets = {
        "cifar10": (
            "dataset.name=cifar10",
            "dataset.samples=10000",
            "dataset.augment=flip",
            "model.widths=16,32,64",
            "epochs=3",
            "batch_size=128",
            "analysis.every_epochs=0",
        )
    }
    return config
