"""Layer-wise cross-entropy on CIFAR-10, stages in turn, heads of two convolutions.

k = 3 of Belilovsky, Eickenberg & Oyallon (arXiv 1812.11446): four convolutions of 128
and 256 channels, 50 epochs each, batches of 128, SGD at 0.1. Theirs are its invertible
downsampling, after the second convolution, and a rate that falls to a fifth every 15
epochs; here a max pooling after the first, and a cosine.

Command:  python -m experiments.run --config=configs/cifar10_cross_entropy.py
    (or :quick)
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
        name="cifar10",
        data_dir="",
        val_fraction=0.05,
        augment="crop,flip",
        skip_bad_boxes=False,
        skip_groups=(),
        samples=0,
        placement="auto",
    )
    config.model = dict(
        name="cnn",
        widths=(16, 16) if quick else (128, 128, 256, 256),
        convolutions=1,
        pools=1,
        pool_after="first",
    )
    config.head = dict(name="conv", layers=2, width=0, pool=2)
    config.task = dict(name="classification", label_smoothing=0.0)
    config.objective = dict(name="cross_entropy")
    config.schedule = dict(
        name="sequential", blocks=1, cache="auto", copies=0, renew=0, remat=False
    )
    config.optimizer = dict(
        name="sgd",
        learning_rate=0.1,
        weight_decay=5e-4,
        momentum=0.9,
        schedule="cosine",
        warmup_epochs=1.0,
    )
    config.epochs = 1 if quick else 50  # per block of stages
    config.batch_size = 128
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if quick else 5, samples=256, alpha=1.01, bandwidth="mean"
    )
    return config
