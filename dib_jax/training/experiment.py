"""From a config to the pieces of an experiment: data, network, task, losses, blocks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dib_jax import data
from dib_jax.data import Dataset
from dib_jax.data.augment import augment
from dib_jax.objectives import Modules, Objective, Signals, Terms
from dib_jax.tasks import Task
from dib_jax.training import devices
from dib_jax.training.build import find, supplied
from dib_jax.training.optimizers import optimizer
from dib_jax.training.schedules import SCHEDULES
from dib_jax.training.steps import Block

# Of a device's memory, which pictures may fill; the rest is for the network.
_DEVICE_SHARE = 0.5


class Inputs(NamedTuple):
    """What must be known of a data set to use a network that has learnt it; plain JSON.

    Attributes:
        class_names: in the order of the labels.
        shape: (h, w, c) of the pictures.
        mean: of each channel of the training pictures, in units of 255.
        deviation: likewise, standard deviation; 1 for a constant channel.
        several: whether a picture has several boxes. Such scenes are made square by
            padding, all others by stretching.
    """

    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    several: bool


class Experiment(NamedTuple):
    """The pieces of an experiment; pictures and labels are NumPy arrays on the host.

    Attributes:
        dataset: the three splits; without samples where it was made `without_data`.
        inputs: what the network has to know of it.
        task: what is predicted.
        phases: blocks that train at once, in the order in which they train.
        epochs: of each phase.
        key: PRNG key of the whole experiment.
        objective: name of what the blocks train on; "task_loss" for the task's own.
        cache: where the output of frozen stages is kept, `schedule.cache`.
        copies: augmented copies of the training split that are kept with it.
        renew: epochs after which these are drawn anew; 0 for never.
        streams: whether the pictures stay on the host and are read batch by batch.
        mesh: the devices, over which batches are split.
    """

    dataset: Dataset
    inputs: Inputs
    task: Task
    phases: tuple[tuple[Block, ...], ...]
    epochs: tuple[int, ...]
    key: jax.Array
    objective: str
    cache: str
    copies: int
    renew: int
    streams: bool
    mesh: jax.sharding.Mesh

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, input side first."""
        return tuple(block for phase in self.phases for block in phase)


def assemble(
    config: ml_collections.ConfigDict,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Experiment:
    """Load the data set and build network, heads, task, objective and optimizers.

    Args:
        config: a complete config that `dib_jax.training.config.check` accepts.
        mesh: the devices, see `dib_jax.training.devices`; None for one of this process.

    Returns:
        The experiment.

    Raises:
        FileNotFoundError: the data set is not there.
        ValueError: the data, or a value of the config, cannot be used.
    """
    # What a task reads does not depend on how many classes there are.
    uses_boxes = _build("tasks", config.task, num_classes=2).uses_boxes
    dataset = data.load(
        config.dataset.name,
        data_dir=config.dataset.data_dir,
        val_fraction=config.dataset.val_fraction,
        seed=config.seed,
        boxes=uses_boxes,
        skip_bad_boxes=config.dataset.skip_bad_boxes,
        skip_groups=config.dataset.skip_groups,
        samples=config.dataset.samples,
    )
    count = len(dataset.train["labels"])
    if config.batch_size > count:
        raise ValueError(
            f"batch_size: {config.batch_size} is more than the {count} training "
            f"samples of {dataset.name!r}; allowed are 1 to {count}"
        )
    if mesh is None:
        mesh = _one_device()
    return _experiment(config, dataset, _inputs(dataset), count, mesh)


def _one_device() -> jax.sharding.Mesh:
    return devices.mesh_of(jax.local_devices()[:1])


def without_data(config: ml_collections.ConfigDict, inputs: Inputs) -> Experiment:
    """The experiment of a finished run where its data set is not at hand.

    Args:
        config: as for `assemble`.
        inputs: of the experiment that was trained.

    Returns:
        An experiment to predict with, not to train or evaluate: its splits are empty.
    """
    split: dict[str, np.ndarray] = {
        "images": np.zeros((0, *inputs.shape), np.uint8),
        "labels": np.zeros(0, np.int32),
    }
    name = config.dataset.name
    dataset = Dataset(name, split, split, split, inputs.class_names, "")
    return _experiment(config, dataset, inputs, config.batch_size, _one_device())


def _inputs(dataset: Dataset) -> Inputs:
    images = dataset.train["images"]
    mean, deviation = channel_statistics(images)
    return Inputs(
        class_names=tuple(map(str, dataset.class_names)),
        shape=tuple(map(int, images.shape[1:])),
        mean=tuple(map(float, mean)),
        deviation=tuple(map(float, deviation)),
        several="box_labels" in dataset.train,
    )


def _experiment(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    inputs: Inputs,
    count: int,
    mesh: jax.sharding.Mesh,
) -> Experiment:
    """The pieces for a training split of `count` samples."""
    task: Task = _build("tasks", config.task, num_classes=len(inputs.class_names))
    stages = tuple(_build("models", config.model))
    schedule = SCHEDULES[config.schedule.name]
    groups = schedule.blocks(len(stages), config.schedule.blocks)
    turns = (groups,) if schedule.together else tuple((group,) for group in groups)
    last = len(stages) - 1
    if schedule.readout:
        stages, turns = (*stages, Unchanged()), (*turns, ((len(stages),),))
    epochs = _per_turn(config.epochs, schedule.turns(len(groups)))
    prepare = jax.tree_util.Partial(
        _standardize,
        mean=np.asarray(inputs.mean, np.float32),
        deviation=np.asarray(inputs.deviation, np.float32),
    )
    objective = _objective(config.objective, last + 1) if schedule.local else _task_loss
    wanted = config.dataset.augment
    augmentation = augment(wanted) if wanted.strip() else None

    def block(group: tuple[int, ...], count_epochs: int) -> Block:
        own = objective if group[-1] <= last else _task_loss
        bring: Callable[[int, tuple[int, ...]], Modules] = getattr(
            own, "modules", lambda stage, shape: {}
        )
        return Block(
            trunk=tuple(stages[: group[0]]),
            stages=tuple(stages[index] for index in group),
            head=_head(
                config.head,
                task,
                stage=min(group[-1], last),
                stages=stages[: last + 1],
            ),
            stage=group[-1],
            task=task,
            objective=own,
            optimizer=optimizer(
                **config.optimizer.to_dict(),
                epochs=count_epochs,
                steps_per_epoch=count // config.batch_size,
            ),
            prepare=prepare,
            augment=augmentation,
            compute_dtype=jnp.dtype(config.precision.compute),
            batch_size=config.batch_size,
            remat=config.schedule.remat,
            modules=bring(group[-1], inputs.shape),
            every_stage=schedule.every_stage,
            steps=count_epochs * (count // config.batch_size),
            split=functools.partial(_split, devices.by_sample(mesh)),
        )

    return Experiment(
        dataset=dataset,
        inputs=inputs,
        task=task,
        phases=tuple(
            tuple(block(group, count_epochs) for group in turn)
            for turn, count_epochs in zip(turns, epochs, strict=True)
        ),
        epochs=epochs,
        key=jax.random.key(config.seed),
        objective=config.objective.name if schedule.local else "task_loss",
        cache=config.schedule.cache,
        copies=config.schedule.copies,
        renew=config.schedule.renew,
        streams=_streams(config.dataset.placement, dataset),
        mesh=mesh,
    )


def _split(sharding: jax.sharding.NamedSharding, batch: Any) -> Any:
    # On one device there is nothing to split, and no trace of it in the program. What
    # cannot be split evenly, some pictures to predict, is done whole by every device.
    count = sharding.num_devices
    sizes = {len(leaf) for leaf in jax.tree.leaves(batch)}
    if count == 1 or any(size % count for size in sizes):
        return batch
    return jax.lax.with_sharding_constraint(batch, sharding)


def _streams(placement: str, dataset: Dataset) -> bool:
    if placement != "auto":
        return placement == "stream"
    splits = (dataset.train, dataset.validation, dataset.test)
    size = sum(array.nbytes for split in splits for array in split.values())
    # A CPU gives no figures: its memory is the host's, where the pictures are anyway.
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit is not None and size > _DEVICE_SHARE * limit


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, with which pictures are normalised.

    Args:
        images: uint8 (n, h, w, c), the training split.

    Returns:
        Two float32 arrays (c,), in units of 255; the deviation of a constant channel
        is 1.
    """
    levels = np.arange(256) / 255
    # By counting grey levels: exact, and no float copy of the data set is made.
    counts = np.stack(
        [np.bincount(channel.ravel(), minlength=256) for channel in _channels(images)]
    )
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    deviation = np.sqrt(np.maximum(weights @ levels**2 - mean**2, 1e-12))
    return (
        np.asarray(mean, np.float32),
        np.asarray(np.where(deviation < 1e-4, 1.0, deviation), np.float32),
    )


def _channels(images: np.ndarray) -> list[np.ndarray]:
    return [images[..., channel] for channel in range(images.shape[-1])]


def _standardize(
    images: jax.Array, *, mean: np.ndarray, deviation: np.ndarray
) -> jax.Array:
    return (images.astype(jnp.float32) / 255 - mean) / deviation


def _build(package: str, section: ml_collections.ConfigDict, **supplied: Any) -> Any:
    chosen = section.to_dict()
    return find(package, chosen.pop("name"))(**chosen, **supplied)


def _head(
    section: ml_collections.ConfigDict,
    task: Task,
    *,
    stage: int,
    stages: tuple[nn.Module, ...],
) -> Any:
    """The head of a block that ends with `stage`, one of the network's `stages`.

    Only some factories ask for these.
    """
    known = {"num_outputs": task.num_outputs, "stage": stage, "stages": stages}
    asked = supplied(find("models.heads", section.name))
    wanted = {name: known[name] for name in asked if name in known}
    return _build("models.heads", section, **wanted)


def _objective(section: ml_collections.ConfigDict, num_stages: int) -> Objective:
    """The objective, whose factory may ask for the number of stages."""
    asked = supplied(find("objectives", section.name))
    wanted = {"num_stages": num_stages} if "num_stages" in asked else {}
    return _build("objectives", section, **wanted)


class Unchanged(nn.Module):
    """A stage that hands on what it gets: on it, an output layer is trained alone."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The input, as it is."""
        del train
        return x


def _task_loss(signals: Signals) -> tuple[jax.Array, Terms]:
    return signals.task_loss, {}


def _per_turn(epochs: Any, turns: int) -> tuple[int, ...]:
    if isinstance(epochs, int):
        return (epochs,) * turns
    if len(epochs) != turns:
        raise ValueError(
            f"epochs: {tuple(epochs)} has {len(epochs)} numbers for {turns} blocks of "
            "stages in turn; give one number, or one for each block"
        )
    return tuple(epochs)
