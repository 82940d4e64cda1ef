"""What it changes to measure the information term on less: samples, steps, order.

The term with the default weight and with ten times as much, measured on the whole batch
of 128 at every step, on half of it, at every 4th step, on both, and with α = 2, which
needs no eigendecomposition.

Command:  python -m experiments.compare --config=configs/compare/penalty.py:NAME
    with NAME digits, or fashion_mnist (10,000 pictures; with --data_dir=DIR)
What it costs:  python -m experiments.benchmark overhead
"""

from dib_jax.commands.config import ConfigDict, variant

_WAYS = {
    "all": ("objective.samples=0", "objective.every=1"),
    "half": ("objective.samples=64", "objective.every=1"),
    "every4": ("objective.samples=0", "objective.every=4"),
    "half_every4": ("objective.samples=64", "objective.every=4"),
    "alpha2": ("objective.samples=0", "objective.every=1", "objective.alpha=2.0"),
}


def get_config(arg: str = "digits") -> ConfigDict:
    """The comparison; `arg` is digits or fashion_mnist."""
    variant(arg, "digits", "fashion_mnist")
    config = ConfigDict()
    config.base = "configs/digits_cnn.py"
    config.methods = {
        "none": ("objective.beta=0",),
        **_WAYS,
        **{
            f"{name}_strong": ("objective.beta=0.1", *way)
            for name, way in _WAYS.items()
        },
    }
    fashion = (
        "dataset.name=fashion_mnist",
        "dataset.samples=10000",
        "model.widths=16,32,64",
        "epochs=4",
    )
    config.datasets = {
        arg: (
            "batch_size=128",
            "analysis.every_epochs=0",
            *(fashion if arg == "fashion_mnist" else ()),
        )
    }
    config.seeds = (0, 1, 2)
    config.reference = "all"
    return config
