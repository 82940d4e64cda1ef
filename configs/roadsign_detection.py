"""GreedyDIB on road scenes (Road Sign Detection, 256 × 256): every sign and its box.

Command:  python -m experiments.run --config=configs/roadsign_detection.py (or :quick)

With eight epochs a stage: test AP50 0.29 of all boxes and 0.39 of the largest, end to
end 0.30 and 0.37 (three seeds, results/traffic_signs.md).
"""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The configuration; `arg` may be "quick"."""
    if arg not in ("", "quick"):
        raise ValueError(f'unknown variant {arg!r}: use ":quick", or none')
    quick = arg == "quick"
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.workdir = ""
    # No flip, as for all traffic signs; no crop or cutout, which lose small ones.
    config.dataset = dict(
        name="roadsign",
        data_dir="",
        val_fraction=0.1,
        augment="affine,brightness",
        skip_bad_boxes=False,
        skip_groups=(),
        samples=0,
        placement="auto",
    )
    config.model = dict(
        name="cnn",
        widths=(4, 8, 16, 32) if quick else (12, 24, 48, 96),
        convolutions=1 if quick else 2,
        pools=4,
        pool_after="first",
    )
    config.head = dict(name="grid", places=16, layers=1, width=0)
    config.task = dict(
        name="detection",
        objects="many",
        label_smoothing=0.0,
        box_loss="both",
        box_weight=1.0,
        bandwidth="mean",
        candidates=32,
        overlap=0.5,
        confidence=0.3,
    )
    config.objective = dict(
        name="dib",
        alpha=1.01,
        beta=0.01,
        compress="input",
        bandwidth="mean",
        relative=True,
        per_channel=False,
        samples=64,
        every=4,
        course="constant",
    )
    # At 256 × 256 the frozen stages and the Gram of the pictures are a third of a step.
    config.schedule = dict(
        name="sequential",
        blocks=1,
        cache="auto",
        copies=0 if quick else 4,
        renew=0,
        remat=False,
    )
    config.optimizer = dict(
        name="adamw",
        learning_rate=3e-3,
        weight_decay=1e-3,
        momentum=0.9,
        schedule="cosine",
        warmup_epochs=0.5,
    )
    config.epochs = 2 if quick else 14  # per block of stages
    config.batch_size = 16
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if quick else 5, samples=64, alpha=1.01, bandwidth="mean"
    )
    return config
