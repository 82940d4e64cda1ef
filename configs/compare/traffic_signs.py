"""GreedyDIB and back-propagation on traffic signs.

Command:  python -m experiments.compare --config=configs/compare/traffic_signs.py:NAME
    with NAME gtsrb_cnn, gtsrb_fast (for a GPU), gtsrb_fast_half (four hours of two
    cores), gtsrb_detection or roadsign_detection
"""

from dib_jax.commands.config import ConfigDict, variant

# What differs from the config of that name: epochs, so that six runs end within an hour
# or two on two cores.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "gtsrb_cnn": (),
    "gtsrb_fast": ("analysis.every_epochs=10",),
    "gtsrb_fast_half": ("analysis.every_epochs=10",),
    "gtsrb_detection": ("epochs=3",),
    "roadsign_detection": ("epochs=8",),
}


def get_config(arg: str = "gtsrb_cnn") -> ConfigDict:
    """The comparison; `arg` is the name of a config of traffic signs."""
    variant(arg, *_SETTINGS)
    config = ConfigDict()
    name, half, _ = arg.partition("_half")
    config.base = f"configs/{name}.py" + (":half" if half else "")
    config.methods = {
        "greedy_dib": (),
        "end_to_end": ("algorithm.name=end_to_end",),
    }
    config.datasets = {arg: _SETTINGS[arg]}
    config.seeds = (0, 1, 2)
    config.reference = "end_to_end"
    return config
