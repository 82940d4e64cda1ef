"""Whether a reward for entropy helps stages: two kinds of heads, three data sets.

β = −0.1 on H(T), with widths that are not relative the best that beta.py:cifar10 found,
beside no term and end to end.

Command:  python -m experiments.compare --config=configs/compare/entropy.py:NAME
    with NAME digits, or fashion_mnist or cifar10 (10,000 pictures), or cifar10_full
    (all pictures, one seed); all but the digits with --data_dir=DIR
"""

from dib_jax.commands.config import ConfigDict, variant

_NAMES = ("digits", "fashion_mnist", "cifar10", "cifar10_full")
_LINEAR = "head.name=linear"
_K3 = ("head.name=conv", "head.layers=2")
_NO_TERM = "objective.beta=0"
_PLAIN = "objective.relative=False"
_ENTROPY = ("objective.compress=entropy", "objective.beta=-0.1", _PLAIN)


def get_config(arg: str = "digits") -> ConfigDict:
    """The comparison; `arg` is one of those that the module names."""
    variant(arg, *_NAMES)
    config = ConfigDict()
    config.like = f"configs/compare/{arg}.py".replace("_full.py", ".py:full")
    config.methods = {
        "end_to_end": ("algorithm.name=end_to_end", _LINEAR),
        "linear_no_term": (_LINEAR, _NO_TERM),
        "linear_entropy": (_LINEAR, *_ENTROPY),
        "end_to_end_k3": ("algorithm.name=end_to_end", *_K3),
        "k3_no_term": (*_K3, _NO_TERM),
        "k3_entropy": (*_K3, *_ENTROPY),
    }
    config.reference = "end_to_end_k3"
    return config
