"""Training steps as programs: compiled, weighed by the compiler, and run."""

import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dib_jax.commands.config import complete

if TYPE_CHECKING:
    from dib_jax.training.experiment import Experiment

# Name → factory and its options; cnnDwW has D stages of width W that are all alike.
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vgg11": ("vgg", {"depth": 11}),
    "resnet18": ("resnet", {"depth": 18}),
    "resnet34": ("resnet", {"depth": 34}),
    "resnet110": ("resnet", {"depth": 110}),
    "mlp": ("mlp", {}),
}
_ALIKE = re.compile(r"cnn([1-9]\d*)w([1-9]\d*)")
# Shape of pictures, classes, and boxes in a picture (None: no boxes).
Pictures = tuple[tuple[int, int, int], int, int | None]


class Step(NamedTuple):
    """What makes an update of one phase of an experiment.

    Attributes:
        experiment: whose it is.
        phase: its number.
        cached: whether what the frozen stages make of the samples is there already.
        updates: that use one output of the frozen stages, all in one program.
    """

    experiment: "Experiment"
    phase: int
    cached: bool = False
    updates: int = 1


def check_networks(names: Sequence[str]) -> None:
    """Refuse names of networks that `experiment_of` does not know.

    Raises:
        ValueError: the first of them.
    """
    for name in names:
        if name not in _NETWORKS and not _ALIKE.fullmatch(name):
            raise ValueError(
                f"--networks: got {name!r}; must be some of {', '.join(_NETWORKS)}, "
                "or cnn8w32 for 8 stages of width 32"
            )


def experiment_of(
    name: str, batch_size: int, sections: Mapping[str, Mapping[str, Any]]
) -> "Experiment":
    """An experiment on random pictures of 32 × 32 × 3 and ten classes.

    Args:
        name: of the network.
        batch_size: samples of a step.
        sections: fields of the config that differ, by section.
    """
    from dib_jax.commands.assemble import assemble

    if alike := _ALIKE.fullmatch(name):
        depth, width = map(int, alike.groups())
        model = {"name": "cnn", "widths": (width,) * depth, "pools": 0}
    else:
        factory, options = _NETWORKS[name]
        model = {"name": factory, **options}
    with tempfile.TemporaryDirectory() as folder:
        place = {"name": "pictures", "data_dir": folder, "val_fraction": 0.0}
        rate = {"name": "sgd", "learning_rate": 0.1, "schedule": "constant"}
        usual: dict[str, dict[str, Any]] = {
            "dataset": place,
            "model": model,
            "head": {"name": "linear"},
            "task": {"name": "classification"},
            "objective": {"name": "dib"},
            "algorithm": {"name": "sequential"},
            "optimizer": rate,
            "precision": {},
        }
        config = {name: {**usual[name], **sections.get(name, {})} for name in usual}
        write_pictures(
            pathlib.Path(folder), "pictures", ((32, 32, 3), 10, None), batch_size
        )
        return assemble(complete({**config, "epochs": 1, "batch_size": batch_size}))


def write_pictures(
    folder: pathlib.Path, name: str, pictures: Pictures, count: int
) -> None:
    """Random pictures as the training and the test split of a data set.

    Args:
        folder: of data sets.
        name: of this one.
        pictures: what they are like.
        count: how many in each split.
    """
    shape, classes, boxes = pictures
    labels = np.arange(count, dtype=np.int32) % classes
    draw = np.random.default_rng(0)
    arrays = {"images": draw.integers(0, 256, (count, *shape), np.uint8)}
    if boxes is not None:
        arrays["boxes"] = np.tile(np.float32([2, 3, 20, 25]), (count, 1))
        if boxes > 1:
            arrays["boxes"] = np.stack([arrays["boxes"]] * boxes, axis=1)
            arrays["box_labels"] = np.stack([labels] * boxes, axis=1)
    (folder / name).mkdir(parents=True)
    for split in ("train", "test"):
        np.savez(folder / name / f"{split}.npz", labels=labels, **arrays)


def compile_step(
    step: Step, seen: dict[str, Any], *, repeat: int = 0
) -> tuple[Any, dict[str, Any]]:
    """The compiled step and the compiler's figures; equal programs only once.

    Args:
        step: the step.
        seen: programs that were compiled before; this one is added.
        repeat: so many steps in one program, on the same batch; 0 for a plain step.
    """
    import jax

    from dib_jax.training.compilation import compiler_figures

    def one(state: Any, *fixed: Any) -> Any:
        return _updated(step, state, *fixed)

    def several(state: Any, *fixed: Any) -> Any:
        def body(state: Any, _: None) -> Any:
            return one(state, *fixed)

        return jax.lax.scan(body, state, length=repeat)

    function = several if repeat else one
    shapes = _arguments(step, jax.eval_shape)
    lowered = jax.jit(function, donate_argnums=0).lower(*shapes)
    text = lowered.as_text()
    if text not in seen:
        compiled = lowered.compile()
        seen[text] = compiled, compiler_figures(compiled)
    return seen[text]


def run_steps(programs: Sequence[Any], steps: Sequence[Step]) -> Callable[[], None]:
    """A function that runs each compiled step once, on arrays on the device."""
    import jax

    def make(build: Callable[..., Any], *given: Any) -> Any:
        return jax.jit(build)(*given)

    now = [list(_arguments(step, make)) for step in steps]

    def run() -> None:
        for program, arguments in zip(programs, now, strict=True):
            arguments[0], _ = program(*arguments)
        jax.block_until_ready([arguments[0] for arguments in now])

    return run


def _arguments(step: Step, make: Callable[..., Any]) -> tuple[Any, ...]:
    """State, network, samples, frozen output and key; `make` builds arrays or shapes."""
    import jax

    experiment = step.experiment
    phases = experiment.algorithm.phases[: step.phase + 1]

    def build(key: jax.Array, samples: Any) -> tuple[Any, ...]:
        network, state = experiment.algorithm.network, None
        batch = _batch(experiment, samples)
        for before, phase in zip((None, *phases), phases, strict=False):
            # Of what is frozen only shapes matter: initial weights do.
            network = before.read(state, network) if before else network
            if phase.given:
                batch = batch._replace(given=phase.given(network, batch))
            state = phase.init(key, network, batch)
        return state, network, samples, batch.given if step.cached else None, key

    train = experiment.dataset.train
    samples = {name: array[: experiment.batch_size] for name, array in train.items()}
    return make(build, jax.random.key(0), samples)


def _batch(experiment: "Experiment", samples: Any) -> Any:
    data = experiment.data(samples)
    return data.prepare(data.samples, data.common)


def _updated(
    step: Step, state: Any, network: Any, samples: Any, given: Any, key: Any
) -> tuple[Any, Any]:
    experiment = step.experiment
    phases = experiment.algorithm.phases[: step.phase + 1]

    def new_batch() -> Any:
        taken = samples
        if experiment.augment and given is None:
            taken = {**samples, **experiment.augment(key, samples)}
        batch = _batch(experiment, taken)._replace(given=given)
        for phase in phases if given is None else ():
            if phase.given:
                batch = batch._replace(given=phase.given(network, batch))
        return batch

    batch, terms = new_batch(), None
    for number in range(step.updates):
        # Without frozen stages nothing is saved by the samples' being the same.
        batch = new_batch() if number and batch.given is None else batch
        state, terms = phases[-1].step(state, network, batch, key)
    return state, terms
