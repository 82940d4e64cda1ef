"""Momentum auxiliary networks (MAN) on CIFAR-10: heads that follow the next block.

From Su et al. (arXiv 2407.05623): each head of a ResNet-32 is the next block with a
moving average of its weights (0.995) and a learnable bias. The optimizer's settings,
and 160 epochs of batches of 1,024, are those of cifar10_infopro.py; the stem is the
first stage here.

Command:  python -m experiments.run --config=configs/cifar10_momentum.py (or :quick)
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
        name="resnet", depth=8 if quick else 32, width=8 if quick else 16
    )
    config.head = dict(name="momentum", decay=0.995, bias="stage", pool=2)
    config.task = dict(name="classification", label_smoothing=0.0)
    config.objective = dict(name="cross_entropy")
    config.schedule = dict(
        name="parallel", blocks=1, cache="auto", copies=0, renew=0, remat=False
    )
    config.optimizer = dict(
        name="sgd",
        learning_rate=0.1 if quick else 0.8,
        weight_decay=1e-4,
        momentum=0.9,
        schedule="cosine",
        warmup_epochs=1.0 if quick else 10.0,
    )
    config.epochs = 1 if quick else 160  # per block of stages
    config.batch_size = 128 if quick else 1024
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if quick else 5, samples=256, alpha=1.01, bandwidth="mean"
    )
    return config
