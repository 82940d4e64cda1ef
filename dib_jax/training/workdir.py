"""The folder of a run: whose it is, what is in it, and on what machine it was made.

config.json     the full configuration
inputs.json     what must be known of the data set to use the network without it
metrics.jsonl   a line for each stage, epoch and split
results.json    written when the run is finished
digests.json    of what a finished run has left, see `dib_jax.training.digests`
checkpoints/    see `dib_jax.checkpoints`
"""

import contextlib
import json
import os
import pathlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np

from dib_jax.settings import differences, flatten
from dib_jax.training import digests
from dib_jax.training.devices import from_first, is_first, together
from dib_jax.training.experiment import Experiment
from dib_jax.training.lock import owned

RECORD = "metrics.jsonl"
_NUMERICS = (
    "default_prng_impl", "threefry_partitionable", "default_matmul_precision"
)  # fmt: skip
_PACKAGES = ("dib_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def claim(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Make a workdir belong to a config, or see that it does.

    Args:
        workdir: the folder; made if it is missing.
        config: a complete one, as plain JSON.

    Raises:
        ValueError: as `check_owner`.
        OSError: it cannot be written.
    """
    check_owner(workdir, config)
    if not (workdir / "config.json").exists():
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", config)


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, experiment: Experiment) -> Iterator[None]:
    """Be the only one to write into the workdir of an experiment's run.

    Of several processes of the run the first one is it.

    Args:
        workdir: the folder; made if it is missing.
        experiment: its pieces.

    Raises:
        ValueError: it belongs to another config, or is in use by another process.
        OSError: it cannot be written.
    """

    def write() -> None:
        claim(workdir, experiment.config)
        write_inputs(workdir, experiment)

    with contextlib.ExitStack() as stack:
        from_first(lambda: check_owner(workdir, experiment.config))
        together(lambda: is_first() and stack.enter_context(owned(workdir)))
        from_first(write)
        yield


def check_owner(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    *,
    completed: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda saved: saved,
) -> None:
    """Refuse a workdir that is not this config's; nothing is written.

    Args:
        workdir: a folder, perhaps not made yet.
        config: a complete one, as plain JSON.
        completed: what an earlier version saved → with the fields that are newer. A
            ValueError says that it cannot; then it is compared as it is.

    Raises:
        ValueError: it belongs to another config, and the message has the fields that
            differ with both values; or it holds files but no config.json.
    """
    if not (workdir / "config.json").exists():
        if workdir.is_dir() and any(
            not entry.name.startswith(".") for entry in workdir.iterdir()
        ):
            raise ValueError(
                f"workdir: {workdir} is not empty and holds no config.json, so it is "
                "not a run of ours; choose another --workdir"
            )
        return
    saved: Mapping[str, Any] = _read_json(workdir / "config.json")
    with contextlib.suppress(ValueError):
        saved = completed(dict(saved))
    there, here = flatten(saved), flatten(config)
    changed = [
        f"{field} is {_shown(there, field)} there and {_shown(here, field)} here"
        for field in differences(saved, config)
    ]
    if changed:
        raise ValueError(
            f"workdir: {workdir} belongs to another config: {'; '.join(changed)}; "
            "choose another --workdir, or set back what differs"
        )


def _shown(flat: Mapping[str, Any], field: str) -> str:
    return repr(flat[field]) if field in flat else "absent"


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The config that a workdir belongs to, as plain JSON.

    Args:
        workdir: the folder of a run.

    Raises:
        ValueError: config.json is missing or damaged.
    """
    return _read_json(workdir / "config.json")


def read_results(workdir: pathlib.Path) -> dict[str, Any]:
    """What the finished run in a workdir has measured.

    Args:
        workdir: the folder of a run.

    Raises:
        ValueError: the run is not finished, or results.json is damaged.
    """
    return _read_json(workdir / "results.json")


def write_results(
    workdir: pathlib.Path,
    results: Mapping[str, Any],
    written: Iterable[str] | None = None,
) -> None:
    """Write results.json, and digests of all that is read again.

    Args:
        workdir: the folder of a run.
        results: what it has measured.
        written: the files that it has left beside, as paths within it; None where
            results.json alone is written anew.
    """
    written = digests.known(workdir) if written is None else written
    digests.forget(workdir)
    write_json(workdir / "results.json", results)
    names = ["config.json", "inputs.json", "results.json", *written]
    write_json(workdir / digests.FILE, digests.of(workdir, names))


_INPUTS = ("kind", "class_names", "samples", "common")


def write_inputs(workdir: pathlib.Path, experiment: Experiment) -> None:
    """Write what must be known of a data set to use a network without it.

    inputs.json has the kind of sample, the class names in the order of the labels,
    shape and dtype of each array of a sample, and what all samples share.

    Args:
        workdir: the folder of a run.
        experiment: its pieces.
    """
    dataset = experiment.dataset
    samples = {
        name: {"shape": list(array.shape[1:]), "dtype": str(array.dtype)}
        for name, array in dataset.train.items()
    }
    common = {name: np.asarray(x).tolist() for name, x in experiment.common.items()}
    values = (dataset.kind.name, [str(x) for x in dataset.class_names], samples, common)
    write_json(workdir / "inputs.json", dict(zip(_INPUTS, values, strict=True)))


def read_inputs(workdir: pathlib.Path) -> dict[str, Any]:
    """What `write_inputs` has written.

    Args:
        workdir: the folder of a run.

    Raises:
        ValueError: inputs.json is missing or damaged.
    """
    found = _read_json(workdir / "inputs.json")
    if set(found) != set(_INPUTS):
        raise ValueError(
            f"workdir: {workdir / 'inputs.json'} is damaged: it must hold "
            f"{', '.join(_INPUTS)}"
        )
    return found


def finished(workdir: pathlib.Path) -> bool:
    """Whether the run in a workdir has been trained and evaluated to its end."""
    return (workdir / "results.json").is_file()


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write plain JSON, whole or not at all; NaN is refused.

    Args:
        path: the file.
        value: dicts, lists, strings, numbers.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Write a file under a temporary name beside its own, then rename it.

    Args:
        path: the file; it is replaced, whole or not at all.
        content: its bytes.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"workdir: there is no {path.name} in {path.parent}; is it the folder of a "
            "finished run? `python -m experiments.run` makes one"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"workdir: {path} is damaged ({error}); choose another --workdir"
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"workdir: {path} holds no fields; choose another --workdir")
    digests.check(path.parent, path.name)
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def hardware(devices: Sequence[jax.Device]) -> str:
    """The devices that a run uses, and the processor and its cores beside them.

    Args:
        devices: all of them, one or more.
    """
    host = f"{os.cpu_count()} cores, {processor()}"
    if devices[0].platform == "cpu":
        return f"CPU ({host})"
    return f"{len(devices)} × {devices[0].device_kind} ({host})"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.processor() or platform.machine()


def numerics() -> dict[str, Any]:
    """Settings of JAX by which the same seed gives other numbers."""
    return {name: getattr(jax.config, f"jax_{name}") for name in _NUMERICS}


def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide the numbers."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}
