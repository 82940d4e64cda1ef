"""A cascade on scikit-learn's digits: each stage on what no exit before it has settled.

Command:  python -m experiments.run --config=configs/digits_cascade.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        # Behind every other stage an exit: 99.8 % on the validation split. Behind every
        # stage: 99.3.
        algorithm=dict(name="cascade", blocks=2, tau=0.99),
        objective=dict(name="cross_entropy"),
        model=dict(pools=2),
        epochs=3 if quick else 20,
        batch_size=64,
        analysis=dict(every_epochs=1 if quick else 5),
    )
