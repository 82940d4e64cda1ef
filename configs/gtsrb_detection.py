"""GreedyDIB on German traffic signs (GTSRB, 32 × 32): which sign it is, and its box.

Command:  python -m experiments.run --config=configs/gtsrb_detection.py (or :quick)

With four epochs a stage: test AP50 0.9636 ± 0.0017, mean IoU 0.9108 ± 0.0016; end to
end 0.9672 ± 0.0095 and 0.9107 ± 0.0007; the mean training box 0.8517 (three
seeds, results/traffic_signs.md).
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import SIGN_BOX_CHANGES


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(name="gtsrb", augment=SIGN_BOX_CHANGES),
        # Pictograms are about eight pixels wide: both convolutions see them unpooled.
        model=dict(
            widths=(8, 16, 32) if quick else (24, 48, 96),
            convolutions=1 if quick else 2,
            pool_after="last",
        ),
        head=dict(name="conv", layers=2, pool=4),
        task=dict(name="detection", label_smoothing=0.1, box_weight=3.0),
        epochs=1 if quick else 4,
    )
