"""All methods on the digits, Fashion-MNIST and CIFAR-10, each at its own best settings.

Command:  python -m experiments.compare --config=configs/compare/methods.py
    --data_dir=DIR

The comparisons of digits.py:search, fashion_mnist.py:search and cifar10.py:search in
one table: 33 methods, four settings of each, the best with three seeds. Some four hours
of one core.
"""

from dib_jax.commands.config import ConfigDict


def get_config() -> ConfigDict:
    """The comparison."""
    config = ConfigDict()
    config.like = tuple(
        f"configs/compare/{name}.py:search"
        for name in ("digits", "fashion_mnist", "cifar10")
    )
    return config
