"""GreedyDIB on German traffic signs (GTSRB, 32 × 32): which sign it is, and its box.

Command:  python -m experiments.run --config=configs/gtsrb_detection.py (or :quick)

With three epochs a stage: test AP50 0.9232 ± 0.0032, mean IoU 0.8684 ± 0.0030; end to
end 0.9255 ± 0.0094 and 0.8698 ± 0.0043; the mean training box 0.8517 (three seeds,
results/traffic_signs.md).
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
    # No flip: mirrored, "keep left" is "keep right".
    config.dataset = dict(
        name="gtsrb",
        data_dir="",
        val_fraction=0.1,
        augment="affine:1.5,crop,brightness:1.7,contrast:1.7,saturation:1.5",
        skip_bad_boxes=False,
        skip_groups=(),
        samples=0,
        placement="auto",
    )
    config.model = dict(
        name="cnn",
        widths=(8, 16, 32) if quick else (32, 64, 128),
        convolutions=1 if quick else 2,
        pools=3,
        pool_after="first",
    )
    config.head = dict(name="conv", layers=2, width=0, pool=4)
    config.task = dict(
        name="detection",
        objects="one",
        label_smoothing=0.1,
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
    config.schedule = dict(
        name="sequential", blocks=1, cache="auto", copies=0, renew=0, remat=False
    )
    config.optimizer = dict(
        name="sgd",
        learning_rate=0.05,
        weight_decay=5e-4,
        momentum=0.9,
        schedule="cosine",
        warmup_epochs=1.0,
    )
    config.epochs = 1 if quick else 5  # per block of stages
    config.batch_size = 128
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if quick else 5, samples=256, alpha=1.01, bandwidth="mean"
    )
    return config
