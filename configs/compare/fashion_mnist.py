"""The methods of digits.py on 10,000 pictures of Fashion-MNIST, for two cores.

Command:  python -m experiments.compare --config=configs/compare/fashion_mnist.py
    --data_dir=DIR      (or fashion_mnist.py:search, with four settings of every method)

Widths of 16 to 64 and four epochs a stage keep 33 methods of three seeds near two
hours of one core.
"""

from dib_jax.commands.config import ConfigDict, variant


def get_config(arg: str = "") -> ConfigDict:
    """The comparison; `arg` may be "search"."""
    config = ConfigDict()
    config.like = "configs/compare/digits.py" + (
        ":search" if variant(arg, "search") else ""
    )
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
