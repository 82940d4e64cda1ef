"""Probes of a run while it trains, and what becomes of them: information.npz.

A probe is one file, `<workdir>/probes/<epoch, 8 digits>.npz`, written whole before the
checkpoint of its epoch, with the same content whenever it is written again. So a run
that was killed and goes on leaves the same probes, and nothing has to be cut back.

Beside the quantities a file holds the Grams of its stages, from which it is told later
how far they were from the final ones: upper triangles, n(n+1)/2 numbers each. For n =
256 these are 129 KiB for a Gaussian Gram (float32, n·gram) and 64 KiB for a linear one
(float16, in units of its largest entry), for every stage and split, and a Gaussian one
of the input.
"""

import io
import math
import pathlib
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dib_jax.analysis.probes import (
    EPSILON,
    Sizes,
    Target,
    make_grams,
    make_target,
    quantities,
)
from dib_jax.information import cka_matrix, label_gram
from dib_jax.training.experiment import Experiment
from dib_jax.training.steps import apply_frozen
from dib_jax.training.train import Moment, Observer
from dib_jax.training.workdir import write_atomically

SPLITS = ("train", "validation")
_FOLDER, _FILE = "probes", "information.npz"
_NAME = re.compile(r"\d{8,}\.npz")
_SEED = 0  # of the sample and of the shuffled targets: the same for every run


def recorder(
    workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> Callable[[Experiment], Observer] | None:
    """What `train` is given as `observer`, so that a run is probed.

    Args:
        workdir: of the run.
        config: its complete config; `config.analysis` says when and how.

    Returns:
        The factory of the observer, or None where the config asks for no probes. It
        raises a ValueError where the splits have fewer than two samples.
    """
    settings = config.analysis
    if settings.every_epochs == 0 or settings.samples == 0:
        return None

    def observer(experiment: Experiment) -> Observer:
        measure = _measure(experiment, settings)
        ends = np.cumsum(experiment.epochs)

        def observe(moment: Moment) -> None:
            if moment.epoch % settings.every_epochs and moment.epoch not in ends:
                return
            start = time.monotonic()
            values = measure(moment.stages)
            values["epoch"] = np.asarray(moment.epoch)
            values["trained"] = np.asarray(moment.trained)
            values["seconds"] = np.asarray(time.monotonic() - start)
            folder = workdir / _FOLDER
            folder.mkdir(exist_ok=True)
            _write(folder / f"{moment.epoch:08d}.npz", values)

        return observe

    return observer


def _measure(
    experiment: Experiment, settings: ml_collections.ConfigDict
) -> Callable[[Any], dict[str, np.ndarray]]:
    """Variables of all stages → what a probe's file holds, by split/name."""
    splits = {
        name: split
        for name, split in zip(SPLITS, experiment.dataset[1:3], strict=True)
        if len(split["labels"])
    }
    # The same number of both: what is estimated grows with it.
    count = min(settings.samples, *(len(split["labels"]) for split in splits.values()))
    if count < 2:
        raise ValueError(
            f"analysis.samples: a split has only {count} sample, and a probe needs 2 "
            "of each; set it to 0 for no probes"
        )
    last = experiment.blocks[-1]
    modules = (*last.trunk, *last.stages)
    images, targets, sizes = {}, {}, {}
    for name, split in splits.items():
        rows = stratified_rows(split["labels"], count, seed=_SEED)
        taken = {key: array[rows] for key, array in split.items()}
        images[name] = jnp.asarray(taken["images"])
        targets[name], sizes[name] = _target(experiment, taken)
    # One program for both splits: sizes that hold for each.
    labelled = all(own.num_classes for own in sizes.values())
    shared = (
        Sizes(
            max(own.num_classes or 0 for own in sizes.values()),
            max(own.class_size or 0 for own in sizes.values()),
        )
        if labelled
        else Sizes()
    )
    if not labelled:
        targets = {name: own._replace(labels=None) for name, own in targets.items()}

    @jax.jit
    def run(
        prepare: Any, stages: Any, images: jax.Array, target: Target
    ) -> dict[str, jax.Array]:
        inputs = prepare(images)
        features = apply_frozen(
            modules, stages, inputs, compute_dtype=last.compute_dtype
        )
        grams = make_grams(inputs, features, bandwidth=settings.bandwidth)
        values = quantities(grams, target, alpha=settings.alpha, sizes=shared)
        rows, columns = np.triu_indices(count)
        linear = grams.linear[:, rows, columns]
        largest = jnp.max(jnp.abs(linear), axis=1, keepdims=True)
        return {
            **values,
            "sigma": grams.sigma,
            "input_gram": count * grams.input[rows, columns],
            "grams": count * grams.stages[:, rows, columns],
            "linear_grams": (linear / largest).astype(jnp.float16),
        }

    def measure(stages: Any) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name in splits:
            values = run(last.prepare, stages, images[name], targets[name])
            found |= {f"{name}/{key}": np.asarray(own) for key, own in values.items()}
            found[f"{name}/alpha"] = np.asarray(settings.alpha)
            found[f"{name}/epsilon"] = np.asarray(EPSILON)
            found[f"{name}/samples"] = np.asarray(count)
            found[f"{name}/target_gram"] = np.asarray(
                targets[name].gram[np.triu_indices(count)], np.float32
            )
        return found

    return measure


def _target(
    experiment: Experiment, taken: dict[str, np.ndarray]
) -> tuple[Target, Sizes]:
    order = np.random.default_rng(_SEED).permutation(len(taken["labels"]))
    batch = {name: jnp.asarray(array) for name, array in taken.items()}
    gram = experiment.task.target_gram(experiment.task.targets(batch))
    if np.array_equal(gram, label_gram(batch["labels"])):
        return make_target({"labels": taken["labels"]}, order)
    return make_target({"target_gram": gram}, order)


def stratified_rows(labels: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """A sample in which every class has its share, to one sample.

    Args:
        labels: integers (n,).
        count: how many rows, ≤ n.
        seed: the same gives the same rows.

    Returns:
        (count,) rows, ascending, none twice.
    """
    random = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    wanted = sizes * (count / len(labels))
    quotas = np.floor(wanted).astype(int)
    # The largest remainders get what is left; equal ones by lot.
    lot = random.permutation(len(classes))
    remainders = (wanted - quotas)[lot]
    first = lot[np.argsort(-remainders, kind="stable")[: count - quotas.sum()]]
    quotas[first] += 1
    rows = [
        random.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(rows))


def gather(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """The probes of a run so far, one after the other; nothing is written.

    Args:
        workdir: of a run, finished or not.

    Returns:
        `<split>/<name>` → array, first axis = probe (p, …), for all that `quantities`
        has, and `epoch (p,)`, `trained (p, s)`, `sigma (p, s)`, `seconds (p,)`;
        `cka_final` and `linear_cka_final` (p, s), each stage's alignment with itself
        at the last probe, and `cka_epoch`, `linear_cka_epoch` (p, s, p) with itself at
        every probe. Without an axis of probes, for they do not change: `input_entropy`,
        `target_entropy`, `input_target`, `alpha`, `epsilon`, `samples`. Empty
        where there are no probes.

    Raises:
        ValueError: a file is damaged.
    """
    return _joined([_read(path) for path in probe_files(workdir)])


_CONSTANT = (
    "input_entropy",
    "target_entropy",
    "input_target",
    "alpha",
    "epsilon",
    "samples",
)
_KEPT = ("grams", "linear_grams", "input_gram", "target_gram")


def _joined(probes: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    joined: dict[str, np.ndarray] = {}
    for split in SPLITS:
        if not probes or f"{split}/sigma" not in probes[0]:
            continue
        own = [
            {
                key.removeprefix(f"{split}/"): value
                for key, value in found.items()
                if key.startswith(f"{split}/") or "/" not in key
            }
            for found in probes
        ]
        for key in own[0]:
            if key in _CONSTANT:
                joined[f"{split}/{key}"] = own[-1][key]
            elif key not in _KEPT:
                joined[f"{split}/{key}"] = np.stack([found[key] for found in own])
        for key, kept in (("cka", "grams"), ("linear_cka", "linear_grams")):
            by_stage = np.stack([found[kept] for found in own], axis=1)
            epochs = np.stack(
                [
                    np.asarray(cka_matrix(jnp.asarray(unpacked(stage))))
                    for stage in by_stage
                ],
                axis=1,
            )
            joined[f"{split}/{key}_epoch"] = epochs
            joined[f"{split}/{key}_final"] = epochs[:, :, -1]
    return joined


def unpacked(triangles: np.ndarray) -> np.ndarray:
    """Symmetric matrices from their upper triangles, (…, n(n+1)/2) → (…, n, n).

    Args:
        triangles: row by row, with the diagonal.

    Returns:
        float32.
    """
    size = (math.isqrt(8 * triangles.shape[-1] + 1) - 1) // 2
    rows, columns = np.triu_indices(size)
    whole = np.empty((*triangles.shape[:-1], size, size), np.float32)
    whole[..., rows, columns] = triangles
    whole[..., columns, rows] = triangles
    return whole


def write_information(workdir: pathlib.Path) -> pathlib.Path | None:
    """Write information.npz of the probes that a run has so far.

    Args:
        workdir: of the run.

    Returns:
        Its path, or None where the run is not probed.

    Raises:
        ValueError: the file of a probe is damaged.
        OSError: the workdir cannot be written.
    """
    if not probe_files(workdir):
        return None
    path = workdir / _FILE
    _write(path, gather(workdir))
    return path


def read_information(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """What is known of a run's information: of its probes, or else information.npz.

    Args:
        workdir: of a run, finished or not.

    Returns:
        As `gather`.

    Raises:
        ValueError: the run was not probed, or a file is damaged.
    """
    if found := gather(workdir):
        return found
    path = workdir / _FILE
    if not path.is_file():
        raise ValueError(
            f"workdir: {workdir} has no probes; a run has them with "
            "analysis.every_epochs and analysis.samples above 0, from its beginning"
        )
    return _read(path)


def probe_files(workdir: pathlib.Path) -> list[pathlib.Path]:
    """The files of a run's probes, in their order.

    Args:
        workdir: of a run, finished or not.
    """
    folder = workdir / _FOLDER
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem))


def read_grams(path: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The Gaussian Grams that a probe keeps.

    Args:
        path: one of `probe_files`.
        split: "train" or "validation".

    Returns:
        The target's Gram (n, n); those of input and stages (s + 1, n, n).

    Raises:
        ValueError: the file is damaged.
    """
    found = _read(path)
    kept = found[f"{split}/input_gram"][None], found[f"{split}/grams"]
    nodes = unpacked(np.concatenate(kept))
    return unpacked(found[f"{split}/target_gram"]), nodes / nodes.shape[-1]


def _write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        # Opened here: `np.load` leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        raise ValueError(
            f"{path} is damaged; move {path.parent.name} away to go on without it"
        ) from None
