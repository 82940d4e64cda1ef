"""The β question: what the information term does, by its weight, form and order.

β from −1 (keep information) over 0 (none) to 1 (compress), for each quantity that the
term may weigh and α = 1.01 and 2. For two of them on 10,000 pictures of CIFAR-10: at
every stage, at the first or the last one alone, falling to 0 over a stage's training,
and with a kernel of fixed width; what becomes of it where widths are relative and where
the learning rate is higher; with the joint kernel of the channels; and on 1,000
pictures, with relative widths, at the higher rate. Figures and curves.csv show the
accuracy after every stage, how strong the term pulls beside the task's loss, and I(X;T)
at the end.

Command:  python -m experiments.compare --config=configs/compare/beta.py:NAME
    with NAME digits, quick, or cifar10, few, scale or joint (and --data_dir=DIR)
"""

from dib_jax.commands.config import ConfigDict, variant

_NAMES = ("digits", "cifar10", "few", "scale", "joint", "quick")
_STAGES = 4  # of the network for CIFAR-10


def get_config(arg: str = "digits") -> ConfigDict:
    """The comparison; `arg` is digits, cifar10, few, scale, joint or quick."""
    variant(arg, *_NAMES)
    config = ConfigDict()
    config.base = "configs/digits_cnn.py"
    methods = {"beta_0": ("objective.beta=0",)}
    curves = []

    def add(name: str, label: str, sizes: tuple[float, ...], *more: str) -> None:
        """A curve over ± sizes; in the overrides `more`, {} stands for β."""
        curves.append((label, "beta_0", 0.0))
        for beta in (sign * size for size in sizes for sign in (-1, 1)):
            # A name in a config holds no point.
            method = f"{name}_beta{beta:+g}"
            method = method.replace(".", "p").replace("-", "minus")
            methods[method] = tuple(override.format(beta) for override in more)
            curves.append((label, method, beta))

    if arg in ("cifar10", "few"):
        for compress in ("input", "entropy"):
            way = f"objective.compress={compress}"
            add(compress, compress, (0.01, 0.1, 1.0), way, "objective.beta={}")
    if arg == "cifar10":
        others = (_STAGES - 1) * ("0.0",)
        alone = {
            "first": ((0.1, 1.0), ("{}", *others)),
            "last": ((0.1,), (*others, "{}")),
        }
        for compress in ("input", "entropy"):
            way = f"objective.compress={compress}"
            for stage, (sizes, weights) in alone.items():
                label = f"{compress}, {stage} stage alone"
                by_stage = f"objective.beta=({', '.join(weights)})"
                add(f"{compress}_{stage}", label, sizes, way, by_stage)
        entropy = ("objective.compress=entropy", "objective.beta={}")
        falling = (*entropy, "objective.course=falling")
        add("entropy_falling", "entropy, falling", (0.1,), *falling)
        # A width that does not follow the features. Their mean distance is 48 to 67 in
        # the stages that cifar10.py trains by greedy_dib.
        fixed = (*entropy, "objective.bandwidth=50")
        add("entropy_fixed", "entropy, σ = 50", (0.1, 1.0), *fixed)
    if arg in ("digits", "quick"):
        quick = arg == "quick"
        for compress in ("input", "previous", "entropy"):
            for alpha in (2.0,) if quick else (1.01, 2.0):
                add(
                    f"{compress}_alpha{alpha:g}",
                    f"{compress}, α = {alpha:g}",
                    (0.1,) if quick else (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
                    f"objective.compress={compress}",
                    f"objective.alpha={alpha}",
                    "objective.beta={}",
                )
    if arg == "scale":
        faster = "optimizer.learning_rate=0.1"
        fastest = "optimizer.learning_rate=0.2"
        entropy = ("objective.compress=entropy", "objective.beta=-0.1")
        methods["beta_0_rate0p1"] = ("objective.beta=0", faster)
        methods["beta_0_rate0p2"] = ("objective.beta=0", fastest)
        methods["entropy_betaminus0p1"] = entropy
        methods["entropy_betaminus0p1_rate0p1"] = (*entropy, faster)
        methods["entropy_betaminus0p1_rate0p2"] = (*entropy, fastest)
        methods["end_to_end_rate0p1"] = ("algorithm.name=end_to_end", faster)
        methods["end_to_end_rate0p2"] = ("algorithm.name=end_to_end", fastest)
        for compress in ("entropy", "input"):
            name = f"{compress}_relative"
            way = (f"objective.compress={compress}", "objective.relative=True")
            add(name, f"{compress}, relative", (0.1, 1.0), *way, "objective.beta={}")
            paid = (*way, "objective.beta=-1.0", fastest)
            methods[f"{name}_betaminus1_rate0p2"] = paid
    if arg == "joint":
        # The joint kernel of the channels, each in units of its own scale.
        scale, joint = "objective.relative=True", "objective.per_channel=True"
        rates = {
            name: f"optimizer.learning_rate={rate}"
            for name, rate in {"rate0p2": 0.2, "rate0p4": 0.4}.items()
        }
        paid = ("objective.compress=entropy", scale, "objective.beta=-1.0")
        for name, rate in rates.items():
            methods[f"beta_0_{name}"] = ("objective.beta=0", rate)
            methods[f"entropy_relative_betaminus1_{name}"] = (*paid, rate)
            methods[f"entropy_joint_betaminus1_{name}"] = (*paid, joint, rate)
        for compress in ("entropy", "input"):
            way = (f"objective.compress={compress}", scale, joint)
            name, label = f"{compress}_joint", f"{compress}, joint"
            add(name, label, (0.1, 1.0), *way, "objective.beta={}")
            faster = (*way, "objective.beta=-1.0", rates["rate0p2"])
            methods[f"{name}_betaminus1_rate0p2"] = faster
    config.methods = {"end_to_end": ("algorithm.name=end_to_end",), **methods}
    config.curves = tuple(curves)
    config.axis = "β"
    plain = "objective.relative=False"
    pictures = (
        "dataset.name=cifar10",
        "model.widths=(16, 32, 64, 64)",
        "batch_size=128",
        "analysis.every_epochs=100",
    )
    part = (*pictures, plain, "dataset.samples=10000", "epochs=6")
    small = ("model.widths=(8, 16, 32)", plain, "analysis.every_epochs=100")
    config.datasets = {
        "digits": {"digits": (*small, "epochs=6")},
        "quick": {"digits": (*small, "epochs=2")},
        "cifar10": {"cifar10": part},
        "scale": {"cifar10": part},
        "joint": {"cifar10": part},
        "few": {
            "cifar10": (
                *pictures,
                "dataset.samples=1000",
                "epochs=20",
                "optimizer.learning_rate=0.2",
            )
        },
    }[arg]
    config.seeds = (0, 1) if arg == "scale" else (0,) if arg == "quick" else (0, 1, 2)
    config.reference = "end_to_end"
    return config
