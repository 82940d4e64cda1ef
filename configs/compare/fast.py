"""The recipe of the public speed record: greedy blocks beside back-propagation.

Command:  python -m experiments.compare --config=configs/compare/fast.py:half
    --data_dir=DIR      (or fast.py, at full width and length, for a GPU)

Both CIFAR sets, all pictures, as many passes over them for all methods. Blocks train at
once: with heads like the groups that follow (augmented), with linear ones, without
an information term and with one that keeps the joint entropy of the channels, and with
heads that follow the next group's weights (momentum). :half has half the channels and
three passes, some two and a half hours of one core for each seed.
"""

from dib_jax.commands.config import ConfigDict, variant

# Four times as many inputs as the network's own output layer, so half the scale. With
# the record's scale they diverge, and with its rate of the norms' biases they learn
# more slowly.
_LINEAR = (
    "head.name=linear",
    "head.pool=2",
    f"head.output_scale={1 / 18}",
    "optimizer.norm_rate=8",
)


def get_config(arg: str = "") -> ConfigDict:
    """The comparison; `arg` may be "half"."""
    half = variant(arg, "half")
    config = ConfigDict()
    config.base = "configs/cifar10_fast.py" + (":half" if half else "")
    config.methods = {
        "end_to_end": ("algorithm.name=end_to_end",),
        "augmented": (),
        "linear": (*_LINEAR, "objective.beta=0"),
        "linear_keep": (
            *_LINEAR,
            "objective.compress=entropy",
            # The class's gradient is small by the scale; a weight of 1 drowns it.
            "objective.beta=-0.1",
            "objective.per_channel=True",
        ),
        # Two maps are added before the output layer: with the record's scale they stay
        # at chance. An average over 200 steps is longer than a short run.
        "momentum": (
            "algorithm.name=momentum",
            "algorithm.decay=0.9",
            "head.name=momentum",
            f"head.output_scale={1 / 18}",
            "optimizer.norm_rate=8",
        ),
    }
    probes = "analysis.every_epochs=10"
    config.datasets = {
        "cifar10": (probes,),
        "cifar100": ("dataset.name=cifar100", probes),
    }
    config.seeds = (0, 1, 2)
    config.reference = "end_to_end"
    return config
