"""All methods on the digits, Fashion-MNIST and CIFAR-10, each at its own best settings.

Command:  python -m experiments.compare --config=configs/compare/methods.py
    --data_dir=DIR

The data sets of digits.py, fashion_mnist.py and cifar10.py with the search of
digits.py:search, in one table: 28 methods of four settings, the best with three seeds.
Some four hours of one core.
"""

import ml_collections

from experiments import command_line


def get_config() -> ml_collections.ConfigDict:
    """The comparison."""
    config = ml_collections.ConfigDict()
    config.like = "configs/compare/digits.py:search"
    config.datasets = {}
    for name in ("digits", "fashion_mnist", "cifar10"):
        file = command_line.load_config(f"configs/compare/{name}.py:search")
        config.datasets.update(file.config.datasets)
    return config
