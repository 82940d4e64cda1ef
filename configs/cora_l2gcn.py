"""L-GCN on Cora whose layers are stopped by a learned controller; a minute.

Command:  python -m experiments.run --config=configs/cora_l2gcn.py (or :quick)
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
        algorithm=dict(name="l2gcn", earliest=15 if quick else 35),
        optimizer=constant_adam(0.005),
        # Rounds of the controller, then the most epochs of each layer.
        epochs=(4, 25, 25) if quick else (50, 95, 95),
        batch_size=256,
        analysis=dict(every_epochs=10 if quick else 0),
    )
