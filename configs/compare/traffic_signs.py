"""GreedyDIB and back-propagation on traffic signs.

Command:  python -m experiments.compare --config=configs/compare/traffic_signs.py:NAME
    with NAME gtsrb_cnn, gtsrb_fast (for a GPU), gtsrb_fast_half (four hours of one
    core), gtsrb_detection or roadsign_detection
"""

from dib_jax.commands.config import ConfigDict, variant

# The config and what differs from it: fewer epochs or probes, so that six runs end
# within hours on two cores.
_SETTINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gtsrb_cnn": ("gtsrb_cnn.py", ()),
    "gtsrb_fast": ("gtsrb_fast.py", ("analysis.every_epochs=10",)),
    "gtsrb_fast_half": ("gtsrb_fast.py:half", ("analysis.every_epochs=10",)),
    "gtsrb_detection": ("gtsrb_detection.py", ("analysis.every_epochs=10",)),
    "roadsign_detection": ("roadsign_detection.py", ()),
}


def get_config(arg: str = "gtsrb_cnn") -> ConfigDict:
    """The comparison; `arg` is one of the names above."""
    variant(arg, *_SETTINGS)
    config = ConfigDict()
    base, differs = _SETTINGS[arg]
    config.base = f"configs/{base}"
    config.methods = {
        "greedy_dib": (),
        "end_to_end": ("algorithm.name=end_to_end",),
    }
    config.datasets = {arg: differs}
    config.seeds = (0, 1, 2)
    config.reference = "end_to_end"
    return config
