"""Similarity matching and prediction ("predsim") on CIFAR-10, stages at once.

From Nøkland & Eidnes (arXiv 1901.06656): β = 0.99, projections by a convolution, heads
on a 2 × 2 grid, 400 epochs of batches of 128, Adam at 5e-4 without a decay of weights.
Theirs are also VGG8B, leaky ReLUs, dropout and a rate that falls in four steps; here
VGG-11, ReLUs, no dropout and a cosine.

Command:  python -m experiments.run --config=configs/cifar10_predsim.py (or :quick)
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
    config.model = dict(name="vgg", depth=11, width=4 if quick else 128, pools=4)
    config.head = dict(name="linear", pool=2)
    config.task = dict(name="classification", label_smoothing=0.0)
    config.objective = dict(
        name="similarity", beta=0.99, projection="trained", spread=True
    )
    config.schedule = dict(
        name="parallel", blocks=1, cache="auto", copies=0, renew=0, remat=False
    )
    config.optimizer = dict(
        name="adamw",
        learning_rate=5e-4,
        weight_decay=0.0,
        momentum=0.9,
        schedule="cosine",
        warmup_epochs=1.0,
    )
    config.epochs = 1 if quick else 400  # per block of stages
    config.batch_size = 128
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if quick else 5, samples=256, alpha=1.01, bandwidth="mean"
    )
    return config
