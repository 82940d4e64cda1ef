"""From a config to the pieces of an experiment. Past this, nobody reads the config."""

import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dib_jax import data
from dib_jax.algorithms import Parts
from dib_jax.commands import registry
from dib_jax.commands.config import FACTORIES, complete, parts_of
from dib_jax.data import Dataset
from dib_jax.settings import plain
from dib_jax.training import devices
from dib_jax.training.experiment import Cache, Experiment, streams
from dib_jax.training.workdir import read_config, read_inputs


def assemble(
    config: ConfigDict, *, name: str = "", mesh: jax.sharding.Mesh | None = None
) -> Experiment:
    """Load the data set and build network, heads, task, objective and algorithm.

    Args:
        config: a complete config.
        name: what the config is called, for results.json.
        mesh: the devices, see `dib_jax.training.devices`; None for one of this process.

    Raises:
        FileNotFoundError: the data set is not there.
        ValueError: the data, or a value of the config, cannot be used.
    """
    dataset = _load(config)
    count = data.size(dataset.train)
    if config.batch_size > count:
        raise ValueError(
            f"batch_size: {config.batch_size} is more than the {count} training "
            f"samples of {dataset.name!r}; allowed are 1 to {count}, such as "
            f"--config.batch_size={1 << min(count, 32).bit_length() - 1}"
        )
    return _experiment(config, name, dataset, dataset.kind.common(dataset.train), mesh)


def assemble_from(workdir: pathlib.Path, *, with_data: bool = True) -> Experiment:
    """The pieces of the run in a workdir.

    Args:
        workdir: of a run.
        with_data: whether its data set is loaded; without it the network can predict,
            and not be trained or evaluated: the splits are empty.

    Raises:
        FileNotFoundError: the data set is needed and not there any more.
        ValueError: there is no run, or its config can no longer be used.
    """
    config = complete(read_config(workdir))
    if with_data:
        return assemble(config)
    inputs = read_inputs(workdir)
    split = {
        array: np.zeros((0, *about["shape"]), about["dtype"])
        for array, about in inputs["samples"].items()
    }
    common = {k: np.asarray(x, np.float32) for k, x in inputs["common"].items()}
    dataset = Dataset(
        name=config.dataset.name,
        train=split,
        validation=split,
        test=split,
        class_names=tuple(inputs["class_names"]),
        description="",
        kind=data.kind_named(inputs["kind"]),
    )
    return _experiment(config, "", dataset, common, None)


def _load(config: ConfigDict) -> Dataset:
    # What a task reads does not depend on how many classes there are.
    task = registry.build(FACTORIES["task"], config.task.to_dict(), num_classes=2)
    options = config.dataset.to_dict()
    for of_no_split in ("augment", "views", "placement"):
        del options[of_no_split]
    return data.load(**options, seed=config.seed, boxes=task.uses_boxes)


def _experiment(
    config: ConfigDict,
    name: str,
    dataset: Dataset,
    common: dict[str, np.ndarray],
    mesh: jax.sharding.Mesh | None,
) -> Experiment:
    mesh = mesh or devices.mesh_of(devices.own_devices()[:1])
    sections = config.to_dict()
    known: dict[str, Any] = {"num_classes": len(dataset.class_names)}

    def build(section: str, **more: Any) -> Any:
        return registry.build(FACTORIES[section], sections[section], **known, **more)

    known["stages"] = stages = tuple(build("model"))
    known["num_stages"] = len(stages)
    task = build("task")
    known["num_outputs"] = task.num_outputs
    count = data.size(dataset.train) or config.batch_size
    built = {"stages": stages, "task": task, "objective": build("objective")}
    parts = parts_of(sections, build, steps=count // config.batch_size, **built)
    text = config.dataset.augment.strip()
    with registry.prefixed("dataset.augment: "):
        augment = dataset.kind.augment(text, dataset.class_names) if text else None
    text = config.dataset.views.strip()
    with registry.prefixed("dataset.views: "):
        views = dataset.kind.views(text, dataset.class_names) if text else ()
        if views and not task.ensemble:
            raise ValueError(
                f"got {text!r}; outputs of {sections['task']['name']} cannot be "
                "averaged, set it to ''"
            )
    algorithm = registry.find(FACTORIES["algorithm"], config.algorithm.name)
    parts, asked = _watched(parts)
    made = build("algorithm", parts=parts)
    return Experiment(
        dataset=dataset,
        common=common,
        task=task,
        algorithm=made,
        key=jax.random.key(config.seed),
        batch_size=config.batch_size,
        augment=augment,
        cache=Cache(**sections["cache"]),
        streams=streams(config.dataset.placement, dataset),
        mesh=mesh,
        about={
            "config_name": name,
            "dataset": config.dataset.name,
            **{key: sections[key]["name"] for key in ("task", "objective", "head")},
            # As end to end, where nothing else trains a stage than the task's own loss.
            **({} if "objective" in asked else {"objective": "task_loss"}),
            "algorithm": config.algorithm.name,
            # The first line of what it says of itself, for the report.
            "algorithm_about": (algorithm.__doc__ or "").strip().partition("\n")[0],
            # The sections that it had no use for, which the report leaves out.
            "unused": [key for key, part in _PARTS.items() if part not in asked],
            "seed": config.seed,
        },
        config=plain(sections),
        views=views,
    )


# Sections of a config that an algorithm need not use, and the part that each becomes.
_PARTS = {"model": "stages", "head": "head", "objective": "objective"}


def _watched(parts: Parts) -> tuple[Parts, set[str]]:
    """Parts, and the names of those that have been asked for so far."""
    asked: set[str] = set()

    class Watched(Parts):
        def __getattribute__(self, name: str) -> Any:
            asked.add(name)
            return super().__getattribute__(name)

    return Watched(*parts), asked
