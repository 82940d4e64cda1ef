"""Cascades beside the same networks end to end and with stages in turn on all samples.

Command:  python -m experiments.compare --config=configs/compare/cascade.py
    --data_dir=DIR      (or cascade.py:quick, the digits alone with short runs)

Networks and settings are those of configs/digits_cascade.py, fashion_mnist_cascade.py
and cifar10_cascade.py. What the exits of the runs bring is told by
python -m experiments.evaluate --exits --workdir=… of their folders.
"""

from dib_jax.commands.config import ConfigDict, variant


def get_config(arg: str = "") -> ConfigDict:
    """The comparison; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    config = ConfigDict()
    config.base = "configs/digits_cascade.py" + (":quick" if quick else "")
    # In this order, so that a cascade finds what it is measured beside. In turn each
    # stage is a block: `blocks` of a data set are those of its cascade.
    config.methods = {
        "end_to_end": ("algorithm.name=end_to_end",),
        "in_turn": ("algorithm.name=sequential",),
        "cascade": (),
    }
    no_probes = "analysis.every_epochs=0"
    config.datasets = {"digits": (no_probes,)}
    if not quick:
        config.datasets["fashion_mnist"] = (
            "dataset.name=fashion_mnist",
            "dataset.samples=20000",
            "model.name=mlp",
            "model.widths=256,256,256,256",
            "algorithm.blocks=1",
            "algorithm.tau=0.97",
            "epochs=8",
            "batch_size=128",
            no_probes,
        )
        config.datasets["cifar10"] = (
            "dataset.name=cifar10",
            "dataset.samples=10000",
            "dataset.augment=flip",
            "model.widths=16,32,64,64,64,64",
            "model.pools=2",
            "head.pool=4",
            "algorithm.blocks=4",
            "algorithm.tau=0.7",
            "algorithm.held_out=0.05",
            "cache.copies=2",
            "optimizer.learning_rate=0.2",
            "epochs=6",
            "batch_size=128",
            no_probes,
        )
    config.seeds = (0,) if quick else (0, 1, 2)
    config.reference = "end_to_end"
    return config
