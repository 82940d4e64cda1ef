"""Layer-wise methods and back-propagation on the digits; :quick has fewer and shorter.

Command:  python -m experiments.compare --config=configs/compare/digits.py (or :quick)

:quick has taken 437 seconds of CPU time, 3.6 minutes of two cores.
"""

import ml_collections

# What :quick compares.
_QUICK = (
    "end_to_end",
    "greedy_dib",
    "cross_entropy_k1",
    "cross_entropy_k2",
    "auglocal",
    "momentum",
    "predsim",
    "infopro_contrastive",
    "hsic_bottleneck",
)


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The comparison; `arg` may be "quick"."""
    if arg not in ("", "quick"):
        raise ValueError(f'unknown variant {arg!r}: use ":quick", or none')
    config = ml_collections.ConfigDict()
    config.base = "configs/digits_cnn.py" + (":quick" if arg else "")
    residual = ("model.name=resnet", "model.depth=14", "model.width=8")
    adam = ("optimizer.name=adamw", "optimizer.learning_rate=2e-3")
    methods = {
        "end_to_end": ("schedule.name=end_to_end",),
        "end_to_end_dib": ("schedule.name=end_to_end_penalized",),
        "greedy_dib": (),
        "dib_no_penalty": ("objective.beta=0",),
        "dib_compress_entropy": ("objective.compress=entropy",),
        "dib_keep_input": ("objective.beta=-0.01",),
        "dib_conv_head": ("head.name=conv", "head.layers=1"),
        "random_features": ("objective.name=random_features",),
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
        "auglocal": (
            "objective.name=cross_entropy",
            "head.name=augmented",
            "schedule.name=parallel",
        ),
        "momentum": (
            "objective.name=cross_entropy",
            "head.name=momentum",
            "schedule.name=parallel",
        ),
        "greedy_dib_augmented": ("head.name=augmented",),
        "greedy_dib_momentum": ("head.name=momentum", "schedule.name=parallel"),
        "decoupled": ("objective.name=cross_entropy", "schedule.name=parallel"),
        "predsim": ("objective.name=similarity", "schedule.name=parallel", *adam),
        "similarity": (
            "objective.name=similarity",
            "objective.beta=1",
            "schedule.name=parallel",
            *adam,
        ),
        "infopro_contrastive": ("objective.name=infopro", "schedule.name=parallel"),
        "infopro_softmax": (
            "objective.name=infopro",
            "objective.prediction=classification",
            "schedule.name=parallel",
        ),
        "hsic_bottleneck": (
            "objective.name=hsic_bottleneck",
            "schedule.name=parallel_readout",
            *adam,
        ),
        "plausible_hsic": (
            "objective.name=plausible_hsic",
            "objective.groups=16",
            "schedule.name=parallel",
            *adam,
        ),
        # Transport is for residual networks: its own network, and what to compare with.
        "resnet_trgl": ("objective.name=trgl", "schedule.name=parallel", *residual),
        "resnet_cross_entropy": (
            "objective.name=cross_entropy",
            "schedule.name=parallel",
            *residual,
        ),
        "resnet_end_to_end": ("schedule.name=end_to_end", *residual),
    }
    config.methods = {
        name: overrides
        for name, overrides in methods.items()
        if not arg or name in _QUICK
    }
    # Probes of the information would take as long as the short runs themselves.
    config.datasets = {"digits": ("analysis.every_epochs=0",) if arg else ()}
    config.seeds = (0, 1) if arg else (0, 1, 2)
    config.reference = "end_to_end"
    return config
