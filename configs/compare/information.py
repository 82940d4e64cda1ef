"""What the information in one small CNN does: layer-wise and end-to-end training.

Three methods × three seeds of one network of four stages, probed after every epoch. End
to end has as many epochs as the four stages have together that train one after the
other. Large batches and no augmentation, so that convergence takes several epochs and
can be seen, and the output of frozen stages is stored.

Command:  python -m experiments.compare --config=configs/compare/information.py:NAME
    with NAME fashion_mnist, cifar10, or quick, the embedded digits in a few minutes
Then:     python -m experiments.analyze --workdir runs/compare-information-NAME/runs/*
    which says in which order the stages converge (Kendall's τ), where the
    data-processing inequality is violated, what the estimator's own bias is, and
    whether stages change more differently end to end than layer-wise; figures and
    sentences go into the folder and the report of every run.
"""

from dib_jax.commands.config import ConfigDict, variant

_NAMES = ("fashion_mnist", "cifar10", "quick")


def get_config(arg: str = "fashion_mnist") -> ConfigDict:
    """The comparison; `arg` is the name of a data set, or "quick"."""
    variant(arg, *_NAMES)
    quick = arg == "quick"
    epochs = {"fashion_mnist": 4, "cifar10": 6, "quick": 2}[arg]  # of each stage
    name = "digits" if quick else arg
    config = ConfigDict()
    config.base = "configs/digits_cnn.py"
    end_to_end = ("algorithm.name=end_to_end", f"epochs={4 * epochs}")
    config.methods = {
        "end_to_end": end_to_end,
        "greedy_dib": (),
        "layerwise": ("objective.name=cross_entropy",),
    }
    if not quick:
        config.methods["greedy_dib"] = ("objective.samples=128",)
    config.datasets = {
        name: (
            f"dataset.name={name}",
            f"model.widths={(8, 16, 32, 32)}",
            f"model.pools={2 if quick else 3}",
            f"epochs={epochs}",
            f"batch_size={128 if quick else 512}",
            f"analysis.samples={96 if quick else 256}",
            "analysis.every_epochs=1",
        )
    }
    config.seeds = (0, 1) if quick else (0, 1, 2)
    config.reference = "end_to_end"
    return config
