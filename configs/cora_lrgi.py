"""Graph layers without labels (LRGI) on Cora's public split, 140 labels for the probes.

Command:  python -m experiments.run --config=configs/cora_lrgi.py (or :quick)
    --config.dataset.data_dir=DIR, which holds cora/graph.npz or cora/ind.cora.*
"""

from dib_jax.commands.config import ConfigDict, complete, variant
from dib_jax.commands.recipes import constant_adam


def get_config(arg: str = "") -> ConfigDict:
    """The configuration; `arg` may be "quick"."""
    quick = variant(arg, "quick")
    layers = 2 if quick else 3
    # Layers start near the identity. From the third on they train briefly: longer they
    # lose what those before have found.
    epochs = (10, 10, 20) if quick else (100, 100, 10, 300)
    return complete(
        dataset=dict(name="cora"),
        model=dict(
            name="gcn",
            widths=(128,) * layers,
            activation="elu",
            skip=True,
            identity=True,
        ),
        algorithm=dict(name="lrgi"),
        optimizer=constant_adam(0.003),
        epochs=epochs,
        batch_size=140,
        analysis=dict(every_epochs=10 if quick else 50),
    )
