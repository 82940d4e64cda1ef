"""Plausible HSIC on MNIST: a perceptron of three layers with divisive normalisation.

Command:  python -m experiments.run --config=configs/mnist_phsic.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        objective=dict(
            name="plausible_hsic",
            gamma=2.0,
            kernel="gaussian",
            sigma=5.0,
            groups=32,
            power=4 / 3,  # (1 − 0.2)/(1 − 0.4): see the option
        ),
        algorithm=dict(name="parallel"),
        dataset=dict(name="mnist"),
        model=dict(
            name="divisive_mlp",
            widths=(64,) * 3 if quick else (1024,) * 3,
            groups=32,
            power=0.2,
        ),
        optimizer=dict(name="adamw", learning_rate=1e-3, weight_decay=0),
        epochs=1 if quick else 10,
        batch_size=256,
    )
