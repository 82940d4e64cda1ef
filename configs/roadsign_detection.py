"""GreedyDIB on road scenes (Road Sign Detection, 256 × 256): every sign and its box.

Stages at once. In turn: --config.algorithm.name=sequential.

Command:  python -m experiments.run --config=configs/roadsign_detection.py (or :quick)

The set is not downloaded: python -m experiments.prepare roadsign --source=FOLDER makes
it of its Pascal VOC files.

With mirrored scenes as well the test AP50 is 0.77 of all boxes and 0.76 of the largest.
End to end it is 0.78 and 0.75 (one seed each, results/traffic_signs.md).
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import SCENE_CHANGES


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        # No flip, as for all traffic signs; no cutout, which hides small ones.
        dataset=dict(
            name="roadsign",
            augment=SCENE_CHANGES,
            samples=200 if quick else 0,
            repeat_rare=0.5,  # one picture in nine has a traffic light
        ),
        model=dict(
            widths=(4, 8, 16, 32) if quick else (12, 24, 48, 96),
            convolutions=1 if quick else 2,
            pools=3,
        ),
        # Signs are 3 to 200 pixels wide: places of 8 pixels tell small ones apart, and
        # the coarser grids see large ones as a whole.
        head=dict(name="grid", places=32, scales=2 if quick else 4),
        # Small signs have one place, large ones dozens.
        task=dict(name="detection", objects="many", balance=1.0),
        algorithm=dict(name="parallel"),
        optimizer=dict(
            name="adamw", learning_rate=2e-3, weight_decay=1e-3, warmup_epochs=0.5
        ),
        epochs=2 if quick else 60,
        batch_size=8,
        analysis=dict(every_epochs=1 if quick else 30, samples=64),
    )
