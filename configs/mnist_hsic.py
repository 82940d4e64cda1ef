"""HSIC bottleneck on MNIST: three hidden layers trained at once, then the output layer.

Result:   test accuracy 0.9797 (one seed); results/hsic_bottleneck.md
Command:  python -m experiments.run --config=configs/mnist_hsic.py (or :quick)

:deep has 25 layers of 128 and no norms, widths relative to the features' scale: test
accuracy 0.9425, by back-propagation 0.8894 (one seed each; the same file). With 100
layers schedule.name=sequential is the way.
"""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The configuration; `arg` may be "quick" or "deep"."""
    if arg not in ("", "quick", "deep"):
        raise ValueError(f'unknown variant {arg!r}: use ":quick", ":deep", or none')
    quick, deep = arg == "quick", arg == "deep"
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
        widths=(64,) * 3 if quick else (128,) * 25 if deep else (512,) * 3,
        batch_norm=not deep,
        parts=1,
        gain=1.0,
    )
    config.head = dict(name="linear", pool=2)
    config.task = dict(name="classification", label_smoothing=0.0)
    config.objective = dict(
        name="hsic_bottleneck",
        balance=100.0,
        sigma=1.0 if deep else 5.0,
        epsilon=1e-3 if deep else 1e-5,
        combine=(),
        relative=deep,
    )
    config.schedule = dict(
        name="parallel_readout", blocks=1, cache="auto", copies=0, renew=0, remat=False
    )
    config.optimizer = dict(
        name="adamw",
        learning_rate=3e-3,
        weight_decay=0.0,
        momentum=0.9,
        schedule="cosine",
        warmup_epochs=1.0,
    )
    # Of the stages, of the output layer.
    config.epochs = 1 if quick else (2, 2) if deep else (6, 2)
    config.batch_size = 128 if deep else 256
    config.precision = dict(compute="float32", information="float32")
    config.analysis = dict(
        every_epochs=1 if quick else 5, samples=256, alpha=1.01, bandwidth="mean"
    )
    return config
