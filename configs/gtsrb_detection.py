"""GreedyDIB on German traffic signs (GTSRB, 32 × 32): which sign it is, and its box.

Command:  python -m experiments.run --config=configs/gtsrb_detection.py (or :quick)

With four epochs a stage: test AP50 0.9641 ± 0.0021, mean IoU 0.9106 ± 0.0021; end to
end 0.9686 ± 0.0130 and 0.9109 ± 0.0009; the mean training box 0.8517 (two
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
