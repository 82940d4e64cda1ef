"""Does an information term buy what accuracy does not show: robustness and few labels?

End to end, and stages in turn with no term, with GreedyDIB's term (compressing I(X;T))
and with a reward for the joint entropy of the channels (keeping), all at the learning
rate at which that reward gained on 10,000 pictures of CIFAR-10 (beta.py:joint). The
runs on 10,000 pictures are what corrupted pictures are for (experiments.evaluate
--corruptions); the others train on fewer labelled pictures. End to end has as many
epochs as one stage; end_to_end_long has those of all stages together.

Command:  python -m experiments.compare --config=configs/compare/robustness.py:NAME
    --data_dir=DIR, with NAME cifar10_10000, cifar10_4000, cifar10_1000 or cifar10_250;
    or quick, on the digits
"""

from dib_jax.commands.config import ConfigDict, variant

# Labelled pictures → epochs of each stage, samples in a batch. Of 250 pictures a tenth
# is set aside, and of the others a batch of 128 would leave half out in every epoch.
_SIZES = {10000: (3, 128), 4000: (5, 64), 1000: (12, 64), 250: (40, 64)}
_NAMES = (*(f"cifar10_{samples}" for samples in _SIZES), "quick")


def get_config(arg: str = "cifar10_10000") -> ConfigDict:
    """The comparison; `arg` is one of those that the module names."""
    variant(arg, *_NAMES)
    config = ConfigDict()
    config.base = "configs/digits_cnn.py"
    keeping = ("objective.compress=entropy", "objective.beta=-1.0")
    samples = 0 if arg == "quick" else int(arg.removeprefix("cifar10_"))
    widths = (16, 32, 64, 64) if samples else (8, 16, 32)
    epochs, batch_size = _SIZES.get(samples, (2, 64))
    end_to_end = "algorithm.name=end_to_end"
    config.methods = {
        "end_to_end": (end_to_end,),
        "end_to_end_long": (end_to_end, f"epochs={epochs * len(widths)}"),
        "no_term": ("objective.beta=0",),
        "greedy_dib": (),
        "keeping": (*keeping, "objective.per_channel=True"),
    }
    network = (
        f"model.widths={widths}",
        f"batch_size={batch_size}",
        f"epochs={epochs}",
    )
    pictures = (
        "dataset.name=cifar10",
        f"dataset.samples={samples}",
        "optimizer.learning_rate=0.2",
        "analysis.every_epochs=0",
    )
    config.datasets = {
        arg if samples else "digits": (*pictures, *network) if samples else network
    }
    config.seeds = (0, 1, 2) if samples else (0,)
    config.reference = "no_term"
    return config
