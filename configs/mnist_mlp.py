"""GreedyDIB on MNIST: a perceptron of three hidden layers, trained one by one.

Command:  python -m experiments.run --config=configs/mnist_mlp.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(name="mnist"),
        model=dict(name="mlp", widths=(64,) * 3 if quick else (512,) * 3),
        epochs=1 if quick else 20,
    )
