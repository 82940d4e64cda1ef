"""GreedyDIB on MNIST: a perceptron of three hidden layers, trained one by one.

Command:  python -m experiments.run --config=configs/mnist_mlp.py (or :quick)
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
    config.dataset = dict(
        name="mnist",
        data_dir="",
        val_fraction=0.1,
        augment="",
        skip_bad_boxes=False,
        skip_groups=(),
        samples=0,
        placement="auto",
    )
    config.model = dict(
        name="mlp",
        widths=(64,) * 3 if quick else (512, 512, 512),
        batch_norm=True,
        parts=1,
        gain=1.0,
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
    config.epochs = 1 if quick else 20  # per block of stages
    config.batch_size = 128
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if quick else 5, samples=256, alpha=1.01, bandwidth="mean"
    )
    return config
