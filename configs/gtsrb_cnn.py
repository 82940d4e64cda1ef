"""GreedyDIB on German traffic signs (GTSRB, 32 × 32): which of 43 signs it is.

Command:  python -m experiments.run --config=configs/gtsrb_cnn.py (or :quick)

Test accuracy: all heads together 0.9864 ± 0.0008, the last stage 0.9825 ± 0.0019, end
to end 0.9853 ± 0.0021 (three seeds). What that costs: results/traffic_signs.md.
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import SIGN_CHANGES


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(name="gtsrb", augment=SIGN_CHANGES),
        model=dict(
            widths=(8, 16, 32) if quick else (24, 48, 96),
            convolutions=1 if quick else 2,
            pool_after="last",
        ),
        # The first stage's head holds all later stages, which costs it the memory of
        # the whole network; name="conv", layers=2 spares that.
        head=dict(name="augmented", depth=2, pool=4),
        task=dict(label_smoothing=0.1),
        optimizer=dict(learning_rate=0.1),
        epochs=1 if quick else 5,
    )
