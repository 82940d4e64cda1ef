"""German traffic signs (GTSRB) by the network and recipe of the CIFAR-10 speed record.

Stages at once, heads like the groups that follow. End to end:
--config.algorithm.name=end_to_end.

Command:  python -m experiments.run --config=configs/gtsrb_fast.py (or :half,
narrower and with half the passes, or :quick)

:half, in an earlier state: test accuracy 99.11 ± 0.19 at the last exit, 99.28 ± 0.12 by
all exits together; end to end 98.90 ± 0.17 (two seeds, results/traffic_signs.md).
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import SIGN_CHANGES, speed_record


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "half" or "quick"."""
    if variant(arg, "half", "quick") == "quick":
        sections = speed_record(widths=(8, 16, 16), epochs=1)
        sections |= {"batch_size": 128}
    elif arg == "half":
        sections = speed_record(widths=(24, 64, 128), epochs=8)
    else:
        sections = speed_record(widths=(64, 128, 256), epochs=16)
    # Pictograms are about eight pixels wide: both convolutions see them unpooled.
    sections["model"]["pool_after"] = "last"
    sections["dataset"] |= {
        "name": "gtsrb",
        "val_fraction": 0.1,
        "augment": SIGN_CHANGES,
        "views": "shift",
        "samples": 2_000 if arg == "quick" else 0,
    }
    return complete(sections)
