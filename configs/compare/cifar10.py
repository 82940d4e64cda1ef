"""Layer-wise methods and back-propagation on CIFAR-10, for two cores.

Command:  python -m experiments.compare --config=configs/compare/cifar10.py
    --data_dir=DIR      (or cifar10.py:search, with four settings of every method,
                         cifar10.py:rates or cifar10.py:full)

The methods of digits.py on 10,000 pictures: widths of 16 to 64 and three epochs a stage
keep 33 methods of three seeds near two hours of one core. :rates has some of them, each
at the best of four learning rates on the validation split, near an hour. :full has
twelve methods on all pictures with one seed, on the same network: four epochs for each
stage in turn and twelve for others, so that all but end_to_end_short pass over the data
as often, each at the rate that the 10,000 pictures chose for it; two hours of one core.
"""

from dib_jax.commands.config import ConfigDict, variant

_CROSS_ENTROPY = "objective.name=cross_entropy"
_AUGLOCAL = (_CROSS_ENTROPY, "head.name=augmented", "algorithm.name=parallel")
_PREDSIM = (
    "objective.name=similarity",
    "algorithm.name=parallel",
    "optimizer.name=adamw",
)
_K3 = ("head.name=conv", "head.layers=2")
_RATES = {"sgd": (0.05, 0.1, 0.2, 0.4), "adamw": (5e-3, 1e-2, 2e-2, 4e-2)}


def _rate(value: float) -> str:
    return f"optimizer.learning_rate={value}"


def get_config(arg: str = "") -> ConfigDict:
    """The comparison; `arg` may be "search", "rates" or "full"."""
    variant(arg, "search", "rates", "full")
    config = ConfigDict()
    if arg == "full":
        config.base = "configs/cifar10_cnn.py"
        at_once, linear = "algorithm.name=parallel", "head.name=linear"
        smoothed, blocks = "task.label_smoothing=0.1", "algorithm.blocks=2"
        # The best of cifar10.py:rates and :search on the validation split.
        config.methods = {
            "end_to_end": ("algorithm.name=end_to_end", "epochs=12", _rate(0.4)),
            "end_to_end_short": ("algorithm.name=end_to_end", _rate(0.2)),
            "end_to_end_smoothed": (
                "algorithm.name=end_to_end",
                "epochs=12",
                _rate(0.4),
                smoothed,
            ),
            "greedy_dib": (_rate(0.2),),
            "greedy_dib_at_once": (at_once, "epochs=12", _rate(0.2)),
            # The best of greedy.py.
            "greedy_dib_blocks": (at_once, "epochs=12", _rate(0.4), smoothed, blocks),
            "cross_entropy_k1": (_CROSS_ENTROPY, linear, _rate(0.4)),
            "cross_entropy_k2": (_CROSS_ENTROPY, "head.layers=1", _rate(0.3)),
            "cross_entropy_k3": (_CROSS_ENTROPY, _rate(0.4)),
            "cross_entropy_k3_at_once": (
                _CROSS_ENTROPY,
                at_once,
                "epochs=12",
                _rate(0.2),
            ),
            "auglocal": (*_AUGLOCAL, "epochs=12", _rate(0.4)),
            "predsim": (*_PREDSIM, linear, "epochs=12", _rate(2e-2)),
        }
        config.datasets = {
            "cifar10": (
                "model.widths=16,32,64",
                "model.pools=2",
                "model.convolutions=1",
                "cache.copies=1",
                "cache.renew=2",
                "epochs=4",
                "analysis.every_epochs=0",
            )
        }
        config.seeds = (0,)
        config.reference = "end_to_end"
        return config
    config.like = "configs/compare/digits.py" + (":search" if arg == "search" else "")
    if arg == "rates":
        config.methods = {
            "end_to_end": ("algorithm.name=end_to_end",),
            "end_to_end_k3": ("algorithm.name=end_to_end", *_K3),
            # _long has as many passes over the data as three stages in turn.
            "end_to_end_k3_long": ("algorithm.name=end_to_end", *_K3, "epochs=9"),
            "greedy_dib": (),
            "cross_entropy_k1": (_CROSS_ENTROPY,),
            "greedy_dib_k3": _K3,
            "cross_entropy_k3": (_CROSS_ENTROPY, *_K3),
            "greedy_dib_k3_long": ("algorithm.name=parallel", *_K3, "epochs=9"),
            "greedy_dib_augmented": ("head.name=augmented",),
            "auglocal": _AUGLOCAL,
            "predsim": _PREDSIM,
        }
        config.search = {
            method: tuple(
                (_rate(rate),)
                for rate in _RATES["adamw" if method == "predsim" else "sgd"]
            )
            for method in config.methods
        }
    config.datasets = {
        "cifar10": (
            "dataset.name=cifar10",
            "dataset.samples=10000",
            "dataset.augment=flip",
            "model.widths=16,32,64",
            "epochs=3",
            "batch_size=128",
            "analysis.every_epochs=0",
        )
    }
    return config
