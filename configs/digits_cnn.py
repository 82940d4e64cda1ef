"""GreedyDIB on scikit-learn's digits (8 × 8): three stages, a minute on two cores.

Command:  python -m experiments.run --config=configs/digits_cnn.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(name="digits"),
        model=dict(name="cnn", pools=2),
        epochs=3 if quick else 20,
        batch_size=64,
        analysis=dict(every_epochs=1 if quick else 5),
    )
