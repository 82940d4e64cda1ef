"""Which information a stage should hold: a plane of two weights.

The stage's loss is the task's, − a · H(T) + b · H(T|Y): a rewards the joint entropy of
the channels, b prices what of it is not about the class. a = b rewards I(T; Y), b = 0
the entropy alone, a = 0 only prices what is superfluous. 10,000 pictures of CIFAR-10,
four stages, linear heads, the network and learning rate of beta.py:joint. The whole
plane has one seed. Three seeds of no term, the entropy alone, and the form that is best
of those with b > 0 by the validation split:

  seeds          the same settings
  heads          heads of two convolutions; also the entropy rewarded at the first two
                 stages alone
  cifar100, fashion_mnist   other data

forms has one seed of the entropy (a = 1, b = 0) measured in other ways: other orders α,
twice the samples, places of the maps as samples.

Command:  python -m experiments.compare --config=configs/compare/information_plane.py
    --data_dir=DIR      (or information_plane.py:NAME; with quick, the digits)
"""

from dib_jax.commands.config import ConfigDict, variant

# a and b; no term is (0, 0).
_PLANE = ((1.0, 0.0), (1.0, 0.1), (1.0, 0.3), (1.0, 1.0), (0.3, 0.3), (0.0, 0.1))
_BEST = ((1.0, 0.0), (1.0, 0.3))
# What has three seeds, of the best points.
_SETS = ("cifar100", "fashion_mnist")
_THRICE = ("seeds", "heads", *_SETS)
_FORMS = {
    "order_0p5": "objective.alpha=0.5",
    "order_2": "objective.alpha=2.0",
    "order_5": "objective.alpha=5.0",
    "samples_128": "objective.samples=128",
    "places_1": "objective.places=1",
}


def _form(kept: float | tuple[float, ...], priced: float) -> tuple[str, ...]:
    return (
        "objective.compress=conditional",
        f"objective.beta={priced}",
        f"objective.keep={kept}",
        "objective.per_channel=True",
    )


def get_config(arg: str = "") -> ConfigDict:
    """The comparison; `arg` is one of those that the module names."""
    variant(arg, *_THRICE, "forms", "quick")
    config = ConfigDict()
    config.base = "configs/digits_cnn.py"
    methods, curves = {"none": ("objective.beta=0",)}, [("a = 0", "none", 0.0)]
    points = {"": _PLANE, "forms": _BEST[:1]}.get(arg, _BEST)
    for kept, priced in points:
        method = f"a{kept:g}_b{priced:g}".replace(".", "p")  # names hold no point
        methods[method] = _form(kept, priced)
        curves.append((f"a = {kept:g}", method, priced))
    if arg == "heads":
        methods["a1_first"] = _form((1.0, 1.0, 0.0, 0.0), 0.0)
    if arg == "forms":
        methods |= {name: (*_form(1.0, 0.0), way) for name, way in _FORMS.items()}
        curves = []
    config.methods = methods
    config.curves = tuple(curves)
    config.axis = "b, weight of H(T|Y)"
    dataset = arg if arg in _SETS else "digits" if arg == "quick" else "cifar10"
    pictures = (
        f"dataset.name={dataset}",
        "dataset.samples=10000",
        "model.widths=(16, 32, 64, 64)",
        "batch_size=128",
        "optimizer.learning_rate=0.2",
        "epochs=6",
    )
    small = ("model.widths=(8, 16, 32)", "epochs=2")
    heads = ("head.name=conv", "head.layers=2") if arg == "heads" else ()
    config.datasets = {
        dataset: (
            *(small if arg == "quick" else pictures),
            *heads,
            "analysis.every_epochs=100",
        )
    }
    config.seeds = (0, 1, 2) if arg in _THRICE else (0,)
    config.reference = "none"
    return config
