"""Graph convolutions layer by layer on Facebook's pages: 22,470 nodes; under a minute.

Command:  python -m experiments.run --config=configs/facebook_lgcn.py (or :quick)
    --config.dataset.data_dir=DIR, which holds facebook_pages/graph.npz
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import constant_adam


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    return complete(
        dataset=dict(name="facebook_pages"),
        model=dict(name="gcn", widths=(64, 64)),
        objective=dict(name="cross_entropy"),
        algorithm=dict(name="lgcn"),
        optimizer=constant_adam(0.01),
        epochs=2 if quick else 10,
        batch_size=256,
        analysis=dict(every_epochs=0),
    )
