"""The methods of digits.py on 10,000 pictures of Fashion-MNIST, for two cores.

Command:  python -m experiments.compare --config=configs/compare/fashion_mnist.py
    --data_dir=DIR

Widths of 16 to 64 and four epochs a stage keep 25 methods of three seeds near 90
minutes of one core, estimated from a run on CIFAR-10.
"""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The comparison."""
    if arg:
        raise ValueError(f"unknown variant {arg!r}: there is none")
    config = ml_collections.ConfigDict()
    config.like = "configs/compare/digits.py"
    config.datasets = {
        "fashion_mnist": (
            "dataset.name=fashion_mnist",
            "dataset.samples=10000",
            "model.widths=16,32,64",
            "epochs=4",
            "batch_size=128",
            "analysis.every_epochs=0",
        )
    }
    return config
