"""HSIC bottleneck on MNIST: a perceptron of five hidden layers, all trained at once.

Command:  python -m experiments.run --config=configs/mnist_hsic.py (or :quick)
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
        placement="auto",
    )
    config.model = dict(
        name="mlp", widths=(64,) * 3 if quick else (256,) * 5, batch_norm=True
    )
    config.head = dict(name="linear", pool=2)
    config.task = dict(name="classification", label_smoothing=0.0)
    config.objective = dict(
        name="hsic_bottleneck", balance=100.0, sigma=5.0, epsilon=1e-5
    )
    config.schedule = dict(
        name="parallel", blocks=1, cache="auto", copies=0, remat=False
    )
    config.optimizer = dict(
        name="adamw",
        learning_rate=1e-3,
        weight_decay=0.0,
        momentum=0.9,
        schedule="cosine",
        warmup_epochs=1.0,
    )
    config.epochs = 1 if quick else 20
    config.batch_size = 128
    config.precision = dict(compute="float32", information="float32")
    return config
