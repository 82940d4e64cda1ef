"""Graph networks layer by layer and end to end on Cora; :labels with 140 labels alone.

Command:  python -m experiments.compare --config=configs/compare/graphs.py
    (or :quick, or :labels) --data_dir=DIR

DIR holds cora_full/graph.npz (1,208 labelled nodes, docs/graphs.md), for :labels
cora/graph.npz or cora/ind.cora.*
"""

from dib_jax.commands.config import ConfigDict, variant

_WHOLE = ("algorithm.name=graph_end_to_end", "epochs=200")
_DROPPED = ("optimizer.learning_rate=0.01", "algorithm.dropout=0.5")
_SAMPLED = ("algorithm.name=graph_end_to_end", "algorithm.fanout=10", "epochs=40")
_SGC = ("algorithm.name=sgc", "model.activation=none", "epochs=80")
_MLP = ("algorithm.name=sgc", "algorithm.hops=0", "epochs=80")
_DIB = ("objective.name=dib", "objective.every=1")
_QUICK = ("lgcn", "graph_end_to_end")


def get_config(arg: str = "") -> ConfigDict:
    """The comparison; `arg` may be "quick" or "labels"."""
    variant(arg, "quick", "labels")
    config = ConfigDict()
    config.base = "configs/cora_lgcn.py" + (":quick" if arg == "quick" else "")
    methods = {
        "graph_end_to_end": (*_WHOLE, *_DROPPED),
        "end_to_end_sampled": _SAMPLED,
        "lgcn": (),
        "lgcn_symmetric": ("algorithm.rule=symmetric",),
        "lgcn_inductive": ("algorithm.inductive=True",),
        "lgcn_patience": ("algorithm.patience=5",),
        "l2gcn": ("algorithm.name=l2gcn", "epochs=(50,95,95)"),
        "dib_keep_input": (*_DIB, "objective.beta=-0.01"),
        "dib_compress_input": (*_DIB, "objective.beta=0.01"),
        "dib_keep_entropy": (
            *_DIB,
            "objective.compress=entropy",
            "objective.beta=-0.01",
        ),
        "sgc": _SGC,
        "no_graph": _MLP,
    }
    if arg == "labels":
        small = ("batch_size=140", "algorithm.rule=symmetric")
        methods = {
            "graph_end_to_end": (*_WHOLE, *_DROPPED, *small),
            "lgcn": small,
            "sgc": (*_SGC, *small),
            "no_graph": (*_MLP, "batch_size=140"),
        }
    config.methods = {
        name: overrides
        for name, overrides in methods.items()
        if arg != "quick" or name in _QUICK
    }
    name = "cora" if arg == "labels" else "cora_full"
    # Probes of the information would take longer than the runs themselves.
    config.datasets = {name: ("analysis.every_epochs=0",)}
    if arg == "quick":
        config.methods.graph_end_to_end = ("algorithm.name=graph_end_to_end",)
    config.seeds = (0,) if arg == "quick" else tuple(range(5))
    config.reference = "graph_end_to_end"
    return config
