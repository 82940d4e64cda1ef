"""A cascade on 10,000 pictures of CIFAR-10: six convolutions and two exits.

Command:  python -m experiments.run --config=configs/cifar10_cascade.py (or :quick)
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(
            name="cifar10", samples=2_000 if quick else 10_000, augment="flip"
        ),
        algorithm=dict(
            name="cascade", blocks=2 if quick else 4, tau=0.7, held_out=0.05
        ),
        objective=dict(name="cross_entropy"),
        model=dict(
            widths=(8, 16, 32, 32) if quick else (16, 32, 64, 64, 64, 64), pools=2
        ),
        head=dict(pool=4),
        # The second block reads what the first makes of pictures and mirrored ones.
        cache=dict(copies=2),
        optimizer=dict(learning_rate=0.2),
        epochs=1 if quick else 6,
        analysis=dict(every_epochs=1 if quick else 3),
    )
