"""Ways of errors back through a network, beside back-propagation.

Command:  python -m experiments.compare --config=configs/compare/feedback.py:NAME
    --data_dir=DIR, with NAME mnist, fashion_mnist, cifar10 or resnet
"""

from dib_jax.commands.config import ConfigDict, variant

_SIGNS = ("sign_uniform", "sign_random_batch", "sign_random_fixed")
_BASES = {
    "mnist": "configs/mnist_feedback.py",
    "fashion_mnist": "configs/fashion_mnist_feedback.py",
    "cifar10": "configs/cifar10_feedback.py",
    "resnet": "configs/cifar10_feedback.py:resnet",
}
# With the others' rate the training loss of LeNet aligned at random has 28 digits. A
# mirror must be fast there, since one that lags behind lets the features grow.
_OF_LENET = {
    "alignment": ("optimizer.learning_rate=0.001",),
    "mirror": (
        "optimizer.learning_rate=0.005",
        "algorithm.rate=0.2",
        "algorithm.decay=0.1",
        "algorithm.noise=1024",
    ),
}
# Beside alignment, Kolen-Pollack and the mirror.
_FURTHER = {"fashion_mnist": _SIGNS[:1], "resnet": _SIGNS}


def get_config(arg: str = "mnist") -> ConfigDict:
    """The comparison; `arg` is the name of one."""
    variant(arg, *_BASES)
    rules = ("alignment", *_FURTHER.get(arg, ()), "kolen_pollack", "mirror")
    config = ConfigDict()
    config.base = _BASES[arg]
    config.methods = {
        "end_to_end": ("algorithm.name=end_to_end", "model.feedback="),
        **{rule: (f"model.feedback={rule}",) for rule in rules},
    }
    if arg in ("fashion_mnist", "cifar10"):
        for rule, fields in _OF_LENET.items():
            config.methods[rule] += fields
    dataset = "cifar10" if arg == "resnet" else arg
    config.datasets = {dataset: ("analysis.every_epochs=0",)}
    config.seeds = (0, 1, 2)
    config.reference = "end_to_end"
    return config
