"""CIFAR-10 by the recipe of the public speed record, wider and longer, for a GPU.

As cifar10_fast.py, with twice the channels in the first group, half again as many in
the others, and half again as many passes: some four times the work.

Command:  python -m experiments.run --config=configs/cifar10_strong.py (or :quick)

Source: Jordan, arXiv 2404.00498, whose larger network for 95 % has these widths.
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import speed_record


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    if variant(arg, "quick"):
        sections = speed_record(widths=(12, 16, 16), epochs=1)
        sections["dataset"]["samples"] = 2_000
        return complete(sections, batch_size=128)
    return complete(speed_record(widths=(128, 384, 384), epochs=15))
