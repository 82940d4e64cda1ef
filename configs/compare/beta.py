"""The β question: what the information term does, by its weight, form and order.

β from −1 (keep information) over 0 (none) to 1 (compress), for each quantity that the
term may weigh and α = 1.01 and 2. Figures and curves.csv show the accuracy after every
stage, how strong the term pulls beside the task's loss, and I(X;T) at the end.

Command:  python -m experiments.compare --config=configs/compare/beta.py:NAME
    with NAME digits, cifar10 (10,000 pictures, fewer β), or quick
"""

import ml_collections

_NAMES = ("digits", "cifar10", "quick")
_SIZES = {
    "digits": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "cifar10": (0.01, 0.1, 1.0),
    "quick": (0.1,),
}


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The comparison; `arg` is digits, cifar10 or quick."""
    if arg not in _NAMES:
        raise ValueError(f"unknown variant {arg!r}: use one of {', '.join(_NAMES)}")
    config = ml_collections.ConfigDict()
    config.base = "configs/digits_cnn.py"
    methods = {"beta_0": ("objective.beta=0",)}
    curves = []
    for compress in ("input", "previous", "entropy"):
        for alpha in (2.0,) if arg == "quick" else (1.01, 2.0):
            curve = f"{compress}, α = {alpha:g}"
            curves.append((curve, "beta_0", 0.0))
            for size in _SIZES[arg]:
                for beta in (-size, size):
                    # A name in a config holds no point.
                    method = f"{compress}_alpha{alpha:g}_beta{beta:+g}"
                    method = method.replace(".", "p").replace("-", "minus")
                    methods[method] = (
                        f"objective.compress={compress}",
                        f"objective.alpha={alpha}",
                        f"objective.beta={beta}",
                    )
                    curves.append((curve, method, beta))
    config.methods = {"end_to_end": ("schedule.name=end_to_end",), **methods}
    config.curves = tuple(curves)
    config.axis = "β"
    small = ("model.widths=(8, 16, 32)", "analysis.every_epochs=100")
    config.datasets = {
        "cifar10": (
            "dataset.name=cifar10",
            "dataset.samples=10000",
            "model.widths=(32, 64, 128, 128)",
            "epochs=8",
            "analysis.every_epochs=100",
        )
    }
    if arg != "cifar10":
        config.datasets = {"digits": (*small, f"epochs={2 if arg == 'quick' else 6}")}
    config.seeds = (0,) if arg == "quick" else (0, 1, 2)
    config.reference = "end_to_end"
    return config
