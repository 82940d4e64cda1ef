"""Plausible HSIC on MNIST: a perceptron of three layers with divisive normalisation.

Command:  python -m experiments.run --config=configs/mnist_phsic.py (or :quick)
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
        name="divisive_mlp",
        widths=(64,) * 3 if quick else (1024,) * 3,
        groups=32,
        power=0.2,
        smoothing=1.0,
    )
    config.head = dict(name="linear", pool=2)
    config.task = dict(name="classification", label_smoothing=0.0)
    config.objective = dict(
        name="plausible_hsic",
        gamma=2.0,
        kernel="gaussian",
        sigma=5.0,
        groups=32,
        power=4 / 3,  # (1 − 0.2)/(1 − 0.4): see the option
        smoothing=1.0,
    )
    config.schedule = dict(
        name="parallel", blocks=1, cache="auto", copies=0, renew=0, remat=False
    )
    config.optimizer = dict(
        name="adamw",
        learning_rate=1e-3,
        weight_decay=0.0,
        momentum=0.9,
        schedule="cosine",
        warmup_epochs=1.0,
    )
    config.epochs = 1 if quick else 10
    config.batch_size = 256
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if quick else 5, samples=256, alpha=1.01, bandwidth="mean"
    )
    return config
