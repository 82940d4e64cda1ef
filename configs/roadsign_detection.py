"""GreedyDIB on road scenes (Road Sign Detection, 256 × 256): every sign and its box.

Command:  python -m experiments.run --config=configs/roadsign_detection.py (or :quick)

With eight epochs a stage: test AP50 0.29 of all boxes and 0.39 of the largest, end to
end 0.30 and 0.37 (three seeds, results/traffic_signs.md).
"""

from dib_jax.commands.config import ConfigDict, complete, variant


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        # No flip, as for all traffic signs; no crop or cutout, which lose small ones.
        dataset=dict(name="roadsign", augment="affine,brightness"),
        model=dict(
            widths=(4, 8, 16, 32) if quick else (12, 24, 48, 96),
            convolutions=1 if quick else 2,
            pools=4,
        ),
        head=dict(name="grid", places=16),
        task=dict(name="detection", objects="many"),
        # At 256 × 256 the frozen stages and the Gram of the pictures are a third of a
        # step.
        cache=dict(copies=0 if quick else 4),
        optimizer=dict(
            name="adamw", learning_rate=3e-3, weight_decay=1e-3, warmup_epochs=0.5
        ),
        epochs=2 if quick else 14,
        batch_size=16,
        analysis=dict(every_epochs=1 if quick else 5, samples=64),
    )
