"""InfoPro on CIFAR-10: ResNet-32, every block its own stage, all at once.

From Wang et al. (arXiv 2101.10832) and the authors' published settings for 16 local
modules: the contrastive loss with λ₁ from 5 to 0.2 and λ₂ from 0.05 to 0.5, 160 epochs
of batches of 1,024, SGD at 0.8 with a cosine. The stem is the first stage here.

Command:  python -m experiments.run --config=configs/cifar10_infopro.py (or :quick)
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
    config.task = dict(name="classification", label_smoothing=0.0)
    config.objective = dict(
        name="infopro",
        prediction="contrastive",
        reconstruct=(5.0, 0.2),
        predict=(0.05, 0.5),
        temperature=0.07,
        decoder_width=12,
        embedding=128,
    )
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
