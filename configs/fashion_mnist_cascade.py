"""A cascade on 20,000 pictures of Fashion-MNIST: four dense layers, an exit on each.

Command:  python -m experiments.run --config=configs/fashion_mnist_cascade.py
    (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(name="fashion_mnist", samples=4_000 if quick else 20_000),
        algorithm=dict(name="cascade", tau=0.97),
        objective=dict(name="cross_entropy"),
        model=dict(name="mlp", widths=(64,) * 3 if quick else (256,) * 4),
        epochs=2 if quick else 8,
        analysis=dict(every_epochs=1 if quick else 4),
    )
