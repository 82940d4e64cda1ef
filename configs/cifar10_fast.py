"""CIFAR-10 by the network and the recipe of the public speed record, stages at once.

Whitened patches, then three groups of two convolutions with a local loss each; the
heads are built like the groups that follow. In turn: --config.algorithm.name=sequential
(each group for as many epochs). End to end: --config.algorithm.name=end_to_end.

Command:  python -m experiments.run --config=configs/cifar10_fast.py (or :half,
with half the channels and a third of the passes, or :quick)

Test accuracy 93.8 at the last exit, 93.9 by all exits together; end to end 93.8.
With CIFAR-100 (--config.dataset.name=cifar100) 70.2 and 71.2; end to end 70.7 (three
seeds, results/cifar10_fast.md). On a CPU with a matrix unit for bfloat16
--config.precision.compute=bfloat16 takes half as long.

Source: Jordan, arXiv 2404.00498.
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import speed_record


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "half" or "quick"."""
    if variant(arg, "half", "quick") == "quick":
        sections = speed_record(widths=(8, 16, 16), epochs=1)
        sections["dataset"]["samples"] = 2_000
        return complete(sections, batch_size=128)
    if arg == "half":
        return complete(speed_record(widths=(32, 128, 128), epochs=3))
    return complete(speed_record(widths=(64, 256, 256), epochs=10))
