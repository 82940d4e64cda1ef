"""Transport-regularised greedy learning on CIFAR-10: ResNet-32, all blocks at once.

From Karkar et al. (arXiv 2309.17357) and the authors' published settings for 16
modules: τ = 1, SGD at a constant 0.002, a target smoothed by 0.1, 300 epochs of batches
of 64. Theirs are of ResNet-110 on STL-10 with orthogonal weights at the start.

Command:  python -m experiments.run --config=configs/cifar10_trgl.py (or :quick)
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
    config.head = dict(name="linear", pool=2)
    config.task = dict(name="classification", label_smoothing=0.1)
    config.objective = dict(name="trgl", tau=1.0)
    config.schedule = dict(
        name="parallel", blocks=1, cache="auto", copies=0, renew=0, remat=False
    )
    config.optimizer = dict(
        name="sgd",
        learning_rate=2e-3,
        weight_decay=2e-4,
        momentum=0.9,
        schedule="constant",
        warmup_epochs=0.0,
    )
    config.epochs = 1 if quick else 300  # per block of stages
    config.batch_size = 64
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if quick else 5, samples=256, alpha=1.01, bandwidth="mean"
    )
    return config
