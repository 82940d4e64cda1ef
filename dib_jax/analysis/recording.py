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
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dib_jax.analysis import probes
from dib_jax.information import cka_matrix, label_gram
from dib_jax.training import digests
from dib_jax.training.workdir import write_atomically

if TYPE_CHECKING:
    from dib_jax.algorithms import Data
    from dib_jax.training.experiment import Experiment
    from dib_jax.training.observers import Moment, Observer

SPLITS = ("train", "validation")
_FOLDER, _FILE = "probes", "information.npz"
_NAME = re.compile(r"\d{8,}\.npz")
_SEED = 0  # of the sample and of the shuffled targets: the same for every run
_CONSTANT = (
    "input_entropy", "target_entropy", "input_target", "alpha", "epsilon", "samples"
)  # fmt: skip
_GRAMS = ("grams", "linear_grams", "input_gram", "target_gram")


def recorder(
    workdir: pathlib.Path, config: Mapping[str, Any]
) -> "Callable[[Experiment], Observer] | None":
    """What `train` is given as `observer`, so that a run is probed.

    Args:
        workdir: of the run.
        config: its complete config; `config["analysis"]` says when and how.

    Returns:
        The factory of the observer, or None where the config asks for no probes. It
        raises a ValueError where the splits have fewer than two samples.
    """
    settings = config["analysis"]
    if settings["every_epochs"] == 0 or settings["samples"] == 0:
        return None

    def observer(experiment: "Experiment") -> "Observer":
        measure = _measure(experiment, settings)
        ends = np.cumsum([phase.epochs for phase in experiment.algorithm.phases])

        def observe(moment: "Moment") -> pathlib.Path | None:
            if moment.epoch % settings["every_epochs"] and moment.epoch not in ends:
                return None
            start = time.monotonic()
            values = measure(moment.network)
            values["epoch"] = np.asarray(moment.epoch)
            values["trained"] = np.asarray(moment.trained)
            values["seconds"] = np.asarray(time.monotonic() - start)
            folder = workdir / _FOLDER
            folder.mkdir(exist_ok=True)
            path = folder / f"{moment.epoch:08d}.npz"
            _write(path, values)
            return path

        return observe

    return observer


def _measure(
    experiment: "Experiment", settings: Mapping[str, Any]
) -> Callable[[Any], dict[str, np.ndarray]]:
    """The network's variables → what a probe's file holds, by split/name."""
    splits = {
        name: split
        for name in SPLITS
        if (split := getattr(experiment.dataset, name)) and len(_first(split))
    }
    # The same number of both: what is estimated grows with it.
    count = min(settings["samples"], *map(len, map(_first, splits.values())))
    if count < 2:
        raise ValueError(
            f"analysis.samples: a split has only {count} sample, and a probe needs 2 "
            "of each; --config.analysis.samples=0 leaves them out"
        )
    samples: dict[str, Data] = {}
    targets: dict[str, probes.Target] = {}
    every: list[probes.Sizes] = []
    for name, split in splits.items():
        rows = sample_rows(split, count, seed=_SEED)
        taken: dict[str, Any] = {key: jnp.asarray(x[rows]) for key, x in split.items()}
        samples[name] = experiment.data(taken)
        targets[name], sizes = _target(experiment, samples[name], taken)
        every.append(sizes)
    # One program for both splits: sizes that hold for each.
    shared: probes.Sizes = {}
    if all(every):
        shared = {key: max(sizes[key] for sizes in every) for key in every[0]}
    else:
        targets = {name: t._replace(labels=None) for name, t in targets.items()}
    run = _program(experiment, settings, samples["train"].prepare, shared, count)

    def measure(network: Any) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name, data in samples.items():
            values: dict[str, Any] = run(
                network, data.samples, data.common, targets[name]
            )
            values |= {
                "alpha": settings["alpha"],
                "epsilon": probes.EPSILON,
                "samples": count,
                "target_gram": targets[name].gram[np.triu_indices(count)],
            }
            found |= {f"{name}/{key}": np.asarray(x) for key, x in values.items()}
        return found

    return measure


def _program(
    experiment: "Experiment",
    settings: Mapping[str, Any],
    prepare: Callable[[Any, Any], Any],
    sizes: probes.Sizes,
    count: int,
) -> Callable[..., dict[str, jax.Array]]:
    """Network, samples, what is common to them, target → quantities and Grams."""

    @jax.jit
    def run(
        network: Any, samples: Any, common: Any, target: probes.Target
    ) -> dict[str, jax.Array]:
        batch = prepare(samples, common)
        features = experiment.algorithm.features(network, batch)
        width = settings["bandwidth"]
        inputs = experiment.dataset.kind.measured(batch.inputs, common)
        grams = probes.make_grams(inputs, features, bandwidth=width)
        values = probes.quantities(grams, target, alpha=settings["alpha"], sizes=sizes)
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

    return run


def _target(
    experiment: "Experiment", data: "Data", taken: dict[str, Any]
) -> tuple[probes.Target, probes.Sizes]:
    targets = data.prepare(data.samples, data.common).targets
    gram = experiment.task.target_gram(targets)
    order = np.random.default_rng(_SEED).permutation(len(gram))
    labels = _classes(taken)
    if labels is not None and np.array_equal(gram, label_gram(jnp.asarray(labels))):
        return probes.make_target({"labels": np.asarray(labels)}, order)
    return probes.make_target({"target_gram": gram}, order)


def _first(split: Mapping[str, Any]) -> Any:
    return next(iter(split.values()))


def _classes(split: Mapping[str, Any]) -> Any:
    """The class of each sample of a split; None where it has not one for each."""
    labels = split.get("labels")
    one_each = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    return labels if one_each else None


def sample_rows(
    split: Mapping[str, np.ndarray], count: int, *, seed: int
) -> np.ndarray:
    """A sample of a split; where it has one class for each sample, a stratified one.

    Args:
        split: arrays of one length n.
        count: how many rows, ≤ n.
        seed: the same gives the same rows.

    Returns:
        (count,) rows, ascending, none twice.
    """
    labels = _classes(split)
    if labels is None:
        labels = np.zeros(len(_first(split)), int)
    return stratified_rows(labels, count, seed=seed)


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
    digests.check(workdir, f"{_FOLDER}/")  # none is missing
    files = [_read(path) for path in probe_files(workdir)]
    return {
        f"{split}/{key}": value
        for split in SPLITS
        if files and f"{split}/sigma" in files[0]
        for key, value in _joined(files, split).items()
    }


def _joined(files: list[dict[str, np.ndarray]], split: str) -> dict[str, np.ndarray]:
    """The probes of one split, without its name."""
    of_split = [
        {key.removeprefix(f"{split}/"): value for key, value in probe.items()}
        for probe in files
    ]
    joined = {
        key: last if key in _CONSTANT else np.stack([probe[key] for probe in of_split])
        for key, last in of_split[-1].items()
        if "/" not in key and key not in _GRAMS  # with a name it is of the other split
    }
    for key, grams in (("cka", "grams"), ("linear_cka", "linear_grams")):
        by_stage = np.stack([probe[grams] for probe in of_split], axis=1)
        alike = [cka_matrix(jnp.asarray(unpacked(stage))) for stage in by_stage]
        epochs = np.stack([np.asarray(each) for each in alike], axis=1)
        joined |= {f"{key}_epoch": epochs, f"{key}_final": epochs[:, :, -1]}
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
    """The Gaussian Grams that a probe holds.

    Args:
        path: one of `probe_files`.
        split: "train" or "validation".

    Returns:
        The target's Gram (n, n); those of input and stages (s + 1, n, n).

    Raises:
        ValueError: the file is damaged.
    """
    found = _read(path)
    triangles = found[f"{split}/input_gram"][None], found[f"{split}/grams"]
    nodes = unpacked(np.concatenate(triangles))
    return unpacked(found[f"{split}/target_gram"]), nodes / nodes.shape[-1]


def _write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    digests.check(path.parent.parent, f"{_FOLDER}/{path.name}")
    try:
        # Opened here: `np.load` leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        raise ValueError(
            f"{path} is damaged; move {path.parent.name} away to go on without it"
        ) from None
