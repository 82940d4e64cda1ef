"""What brings GreedyDIB up: one change at a time, most with heads of two convolutions.

The network and the 10,000 pictures of cifar10.py, where these heads (k = 3) were ahead
of all others; two seeds. Stages in turn see the data three times each, nine times in
all: end to end, on the same network and head, and stages at once are there with three
epochs and with nine.
:long gives every method 27 passes over the data, stages in turn nine each.

Command:  python -m experiments.compare --config=configs/compare/greedy.py
    --data_dir=DIR      (or greedy.py:long)
"""

import ml_collections

_K3 = ("head.name=conv", "head.layers=2")
_AUGMENTED = "head.name=augmented"
_NO_TERM = "objective.beta=0"
_PLAIN = "objective.relative=False"
# Stages are paid for entropy: all of them, or the first one only.
_ENTROPY = ("objective.compress=entropy", "objective.beta=-0.1", _PLAIN)
_EARLY = ("objective.compress=entropy", "objective.beta=(-0.1, 0.0, 0.0)", _PLAIN)
_LONG_LAST = "epochs=(2, 2, 5)"


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The comparison; `arg` may be "long"."""
    if arg not in ("", "long"):
        raise ValueError(f'unknown variant {arg!r}: use ":long" or none')
    config = ml_collections.ConfigDict()
    config.like = "configs/compare/cifar10.py"
    config.seeds = (0, 1)
    config.reference = "end_to_end_k3"
    if arg:
        config.methods = {
            "end_to_end_k3": ("schedule.name=end_to_end", *_K3, "epochs=27"),
            "k3": (*_K3, "epochs=9"),
            "k3_entropy": (*_K3, *_ENTROPY, "epochs=9"),
            "augmented": (_AUGMENTED, _NO_TERM, "epochs=9"),
            "augmented_entropy": (_AUGMENTED, *_ENTROPY, "epochs=9"),
            "auglocal": (
                "objective.name=cross_entropy",
                _AUGMENTED,
                "schedule.name=parallel",
                "epochs=27",
            ),
        }
        return config
    config.methods = {
        "end_to_end_k3": ("schedule.name=end_to_end", *_K3),
        "end_to_end_k3_nine_epochs": ("schedule.name=end_to_end", *_K3, "epochs=9"),
        "k3": _K3,
        "k3_no_term": (*_K3, _NO_TERM),
        "k3_entropy": (*_K3, *_ENTROPY),
        "k3_early_entropy": (*_K3, *_EARLY),
        "k3_smoothed": (*_K3, "task.label_smoothing=0.1"),
        "k3_wide_heads": (*_K3, "head.width=64"),
        "k3_blocks": (*_K3, "schedule.blocks=2"),
        "k3_at_once": (*_K3, "schedule.name=parallel"),
        "k3_at_once_nine_epochs": (*_K3, "schedule.name=parallel", "epochs=9"),
        "k3_long_first": (*_K3, "epochs=(5, 2, 2)"),
        "k3_long_last": (*_K3, _LONG_LAST),
        "k3_long_last_entropy": (*_K3, *_ENTROPY, _LONG_LAST),
        "linear_no_term": (_NO_TERM,),
        "linear_entropy": _ENTROPY,
        "linear_early_entropy": _EARLY,
        "augmented_no_term": (_AUGMENTED, _NO_TERM),
        "augmented_entropy": (_AUGMENTED, *_ENTROPY),
    }
    return config
