"""Layer-wise methods and back-propagation on the digits; :quick has short runs.

Command:  python -m experiments.compare --config=configs/compare/digits.py (or :quick)
"""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The comparison; `arg` may be "quick"."""
    if arg not in ("", "quick"):
        raise ValueError(f'unknown variant {arg!r}: use ":quick", or none')
    config = ml_collections.ConfigDict()
    config.base = "configs/digits_cnn.py" + (":quick" if arg else "")
    config.methods = {
        "end_to_end": ("schedule.name=end_to_end",),
        "greedy_dib": (),
        "dib_compress_entropy": ("objective.compress=entropy",),
        "dib_keep_input": ("objective.beta=-0.01",),
        "dib_conv_head": ("head.name=conv", "head.layers=1"),
        "cross_entropy_k1": ("objective.name=cross_entropy",),
        "cross_entropy_k2": (
            "objective.name=cross_entropy",
            "head.name=conv",
            "head.layers=1",
        ),
        "cross_entropy_k3": (
            "objective.name=cross_entropy",
            "head.name=conv",
            "head.layers=2",
        ),
    }
    config.datasets = {"digits": ()}
    config.seeds = (0, 1) if arg else (0, 1, 2)
    config.reference = "end_to_end"
    return config
