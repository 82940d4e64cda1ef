"""Graph convolutions layer by layer on Cora's 1,208 / 500 / 1,000 split; seconds.

Command:  python -m experiments.run --config=configs/cora_lgcn.py (or :quick)
    --config.dataset.data_dir=DIR, which holds cora_full/graph.npz
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import constant_adam


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(name="cora_full"),
        model=dict(name="gcn", widths=(16, 16)),
        objective=dict(name="cross_entropy"),
        algorithm=dict(name="lgcn"),
        optimizer=constant_adam(0.005),
        epochs=8 if quick else 80,
        batch_size=256,
        analysis=dict(every_epochs=4 if quick else 20),
    )
