"""What brings GreedyDIB up: heads, schedules, blocks, a smoothed target, early entropy.

10,000 pictures of CIFAR-10 with flips, four stages, two seeds; every change alone, on
top of heads that are made of the network's later stages. Stages in turn see the data
eight times each, 32 times in all; end to end is there with 8 and with 32 epochs.

Command:  python -m experiments.compare --config=configs/compare/greedy.py
    --data_dir=DIR
"""

import ml_collections

_AUGMENTED = "head.name=augmented"
_SMOOTHED = "task.label_smoothing=0.1"
# The first stage is paid for entropy, the others for nothing.
_EARLY = ("objective.compress=entropy", "objective.beta=(-0.1, 0.0, 0.0, 0.0)")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The comparison; it has no variants."""
    if arg:
        raise ValueError(f"unknown variant {arg!r}: there is none")
    config = ml_collections.ConfigDict()
    config.base = "configs/digits_cnn.py"
    config.methods = {
        "end_to_end": ("schedule.name=end_to_end",),
        "end_to_end_32_epochs": ("schedule.name=end_to_end", "epochs=32"),
        "end_to_end_smoothed": ("schedule.name=end_to_end", _SMOOTHED),
        "linear": (),
        "linear_early_entropy": _EARLY,
        "conv": ("head.name=conv", "head.layers=1"),
        "augmented": (_AUGMENTED,),
        "augmented_no_term": (_AUGMENTED, "objective.beta=0"),
        "augmented_early_entropy": (_AUGMENTED, *_EARLY),
        "augmented_all_later": (_AUGMENTED, "head.depth=3"),
        "augmented_at_once": (_AUGMENTED, "schedule.name=parallel"),
        "augmented_blocks": (_AUGMENTED, "schedule.blocks=2"),
        "augmented_smoothed": (_AUGMENTED, _SMOOTHED),
        "augmented_long_first": (_AUGMENTED, "epochs=(17, 5, 5, 5)"),
        "augmented_long_last": (_AUGMENTED, "epochs=(5, 5, 5, 17)"),
        "momentum": ("head.name=momentum", "schedule.name=parallel"),
    }
    config.datasets = {
        "cifar10": (
            "dataset.name=cifar10",
            "dataset.samples=10000",
            "dataset.augment=flip",
            "model.widths=(16, 32, 64, 64)",
            "schedule.copies=1",
            "schedule.renew=1",
            "epochs=8",
            "batch_size=128",
            "analysis.every_epochs=0",
        )
    }
    config.seeds = (0, 1)
    config.reference = "end_to_end"
    return config
