"""GreedyDIB on scikit-learn's digits (8 × 8): three stages, a minute on two cores.

Command:  python -m experiments.run --config=configs/digits_cnn.py (or :quick)
"""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The configuration; `arg` may be "quick"."""
    if arg not in ("", "quick"):
        raise ValueError(f'unknown variant {arg!r}: use ":quick", or none')
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.workdir = ""
    config.dataset = dict(
        name="digits",
        data_dir="",
        val_fraction=0.1,
        augment="",
        skip_bad_boxes=False,
        skip_groups=(),
        samples=0,
        placement="auto",
    )
    config.model = dict(
        name="cnn", widths=(32, 64, 128), convolutions=1, pools=2, pool_after="first"
    )
    config.head = dict(name="linear", pool=2)
    config.task = dict(name="classification", label_smoothing=0.0)
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
    config.epochs = 3 if arg == "quick" else 20
    config.batch_size = 64
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if arg == "quick" else 5,
        samples=256,
        alpha=1.01,
        bandwidth="mean",
    )
    return config
