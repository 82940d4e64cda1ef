"""All methods on the digits, Fashion-MNIST and CIFAR-10, each at its own best settings.

Command:  python -m experiments.compare --config=configs/compare/methods.py
    --data_dir=DIR

The data sets of digits.py, fashion_mnist.py and cifar10.py with the search of
digits.py:search, in one table: 28 methods of four settings, the best with three seeds.
Some four hours of one core.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The comparison."""
    config = ml_collections.ConfigDict()
    config.like = "configs/compare/digits.py:search"
    # As in fashion_mnist.py and cifar10.py.
    part = (
        "dataset.samples=10000",
        "model.widths=16,32,64",
        "batch_size=128",
        "analysis.every_epochs=0",
    )
    config.datasets = {
        "digits": (),
        "fashion_mnist": ("dataset.name=fashion_mnist", "epochs=4", *part),
        "cifar10": (
            "dataset.name=cifar10",
            "dataset.augment=flip",
            "epochs=3",
            *part,
        ),
    }
    return config
