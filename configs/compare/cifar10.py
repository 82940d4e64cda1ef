"""The methods of digits.py on 10,000 pictures of CIFAR-10, for two cores.

Command:  python -m experiments.compare --config=configs/compare/cifar10.py
    --data_dir=DIR      (or cifar10.py:search, with four settings of every method)

Widths of 16 to 64 and three epochs a stage keep 25 methods of three seeds near 90
minutes of one core, by an estimate: one epoch of back-propagation took 30 seconds of
CPU time, start and compilation included.
"""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The comparison; `arg` may be "search"."""
    if arg not in ("", "search"):
        raise ValueError(f'unknown variant {arg!r}: use ":search" or none')
    config = ml_collections.ConfigDict()
    config.like = "configs/compare/digits.py" + (":search" if arg else "")
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
