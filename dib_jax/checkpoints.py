"""Pytrees on disk: written whole or not at all, and checked before they are used.

A checkpoint is a folder `<folder>/<step, 8 digits>/` with

    tree/          the arrays, an Orbax checkpoint of nested dictionaries
    metadata.json  plain JSON, for what must be known before the tree can be read
    digest.json    SHA-256 of every other file, by its path within the checkpoint,
                   and of that list

It is written under a temporary name beside its final one, flushed to the disk and then
renamed, so a process that is killed leaves the earlier checkpoints as they were. Orbax
restores a flipped bit without noticing; the digest is there for that.

The tree goes to Orbax as nested dictionaries keyed by field names and indices, whatever
its containers are. So it can be read without the classes that made it, and a target of
another structure is answered by naming the entry that differs.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

_TREE, _METADATA, _DIGEST = "tree", "metadata.json", "digest.json"
_STEP = re.compile(r"\d{8,}")
_TEMPORARY = ".tmp-"


class CheckpointError(OSError):
    """A checkpoint could not be written, or none that is there can be used."""


def save(
    folder: str | os.PathLike[str],
    step: int,
    tree: Any,
    metadata: Mapping[str, Any],
    *,
    keep: int = 3,
) -> Path:
    """Write a checkpoint, and remove all but the newest `keep` of this step and before.

    Temporary folders that a killed process left are removed. A checkpoint of the same
    step is replaced. Checkpoints of later steps are neither counted nor touched.

    Args:
        folder: where the checkpoints of one run lie; made where missing.
        step: a number ≥ 0 that grows from one checkpoint to the next.
        tree: a pytree of arrays and numbers (`flax.struct` dataclasses, NamedTuples,
            tuples, dicts). PRNG keys go in as `jax.random.key_data`.
        metadata: a mapping that JSON can hold, without NaN or infinities.
        keep: how many checkpoints up to this one stay, ≥ 1.

    Returns:
        The path of the checkpoint.

    Raises:
        ValueError: `step`, `keep`, `tree` or `metadata` is not as above; nothing was
            written.
        CheckpointError: the disk is full, or the folder cannot be written. The earlier
            checkpoints are whole.
    """
    for name, value, least in (("step", step, 0), ("keep", keep, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    arrays = _nested(tree)
    try:
        text = json.dumps(dict(metadata), allow_nan=False, indent=1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"metadata must be a mapping of plain JSON values: {error}"
        ) from error

    folder = Path(folder).absolute()
    final = folder / f"{step:08d}"
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(_TEMPORARY + "*"):
            shutil.rmtree(left)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder))
        temporary.chmod(folder.stat().st_mode & 0o777)
        with _checkpointer() as checkpointer:
            checkpointer.save(temporary / _TREE, ocp.args.PyTreeSave(arrays))
        (temporary / _METADATA).write_text(text, encoding="utf-8")
        files = [path for path in temporary.rglob("*") if path.is_file()]
        digests = {
            path.relative_to(temporary).as_posix(): _sha256(path) for path in files
        }
        (temporary / _DIGEST).write_text(_digest_text(digests), encoding="utf-8")
        _flush(temporary)
        if final.exists():
            _remove(final)
        temporary.rename(final)
        _flush_folder(folder)
        upto = [path for path in _steps(folder) if int(path.name) <= step]
        for path in upto[keep:]:
            _remove(path)
    except Exception as error:  # Orbax raises errors of the file system as many types
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {final} could not be written: {_one_line(error)}; the earlier "
            "checkpoints are whole: make room or make the folder writable, then run "
            "the same command again"
        ) from error
    return final


def newest_sound(
    folder: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = print,
    refuse: Callable[[dict[str, Any]], str] = lambda metadata: "",
) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint whose files are as they were written.

    Args:
        folder: as given to `save`; it may have been moved since.
        report: called with one line for each newer checkpoint that is damaged.
        refuse: metadata → what keeps a sound checkpoint from being used; "" for none.

    Returns:
        (path, metadata), or None where the folder holds no checkpoint or is missing.

    Raises:
        CheckpointError: there are checkpoints, and none of them is sound.
    """
    folder, reason = Path(folder).absolute(), ""
    try:
        paths = _steps(folder)
    except OSError as error:
        raise CheckpointError(
            f"checkpoints in {folder} cannot be read: {_one_line(error)}"
        ) from error
    for path in paths:
        damage = find_damage(path)
        if damage:
            report(f"checkpoint {path} is damaged and is not used: {damage}")
            continue
        metadata = json.loads((path / _METADATA).read_text(encoding="utf-8"))
        if not (reason := refuse(metadata)):
            return path, metadata
        report(f"checkpoint {path} is not used: {reason}")
    if paths:
        last = f" ({reason})" if reason else ""
        raise CheckpointError(
            f"none of the {len(paths)} checkpoint(s) in {folder} is sound{last}: put "
            "back a copy of what is damaged, or remove the folder to start from the "
            "beginning"
        )
    return None


def find_damage(path: str | os.PathLike[str]) -> str:
    """Describe in one line how the files of a checkpoint are damaged; "" if sound.

    Args:
        path: the folder of one checkpoint.
    """
    path = Path(path)
    try:
        written = (path / _DIGEST).read_text(encoding="utf-8")
        digests = json.loads(written)["files"]
        # Compared as text, so that a changed bit in the digest itself is noticed too.
        if _digest_text(digests) != written or _METADATA not in digests:
            return f"{_DIGEST} is not as it was written"
    except OSError as error:
        return _unreadable(_DIGEST, error)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return f"{_DIGEST} is not as it was written"
    bad = []
    for name, digest in digests.items():
        try:
            if _sha256(path / name) != digest:
                bad.append(f"{name} is not as it was written")
        except OSError as error:
            bad.append(_unreadable(name, error))
    return _first(bad)


def _unreadable(name: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name} is missing"
    return f"{name} cannot be read ({_one_line(error)})"


def _first(found: list[str]) -> str:
    """The first of some findings, and how many more there are; "" for none."""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return found[0] + more if found else ""


def restore(path: str | os.PathLike[str], target: Any) -> Any:
    """The pytree of a checkpoint, bit for bit, on the default device.

    Args:
        path: the folder of one checkpoint, from `newest_sound` or `save`.
        target: a pytree of the structure that was saved, its leaves arrays, numbers or
            `jax.ShapeDtypeStruct`.

    Returns:
        `target`'s structure, with the arrays of the checkpoint as leaves. A dtype that
        JAX cannot hold now (float64 without x64) stays a NumPy array.

    Raises:
        ValueError: the entries, shapes or dtypes differ; the first one is named.
        CheckpointError: the files cannot be read.
    """
    path = Path(path).absolute()
    wanted = {name: _array(leaf) for name, leaf in _entries(target)}
    try:
        with _checkpointer() as checkpointer:
            stored = checkpointer.restore(path / _TREE, ocp.args.PyTreeRestore())
    except Exception as error:  # a damaged file raises nearly anything
        raise CheckpointError(
            f"checkpoint {path} cannot be read: {_one_line(error)}"
        ) from error
    found = {name: np.asarray(leaf) for name, leaf in _entries(stored)}
    # Orbax stores no array without elements; its shape says all about it.
    for name, like in wanted.items():
        if 0 in like.shape:
            found.setdefault(name, np.zeros(like.shape, like.dtype))
    differences = []
    for name in wanted | found:
        there, here = _describe(found.get(name)), _describe(wanted.get(name))
        if there != here:
            entry = "/".join(name)
            differences.append(f"{entry} is {there} in the checkpoint, {here} here")
    if differences:
        raise ValueError(
            f"checkpoint {path} holds another structure: {_first(differences)}; it was "
            "written by another configuration or version"
        )
    restored = [_on_device(found[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(target), restored)


def _array(leaf: Any) -> Any:
    """The leaf; a Python number in JAX's default dtype."""
    return leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)


def _describe(leaf: Any) -> str:
    return "missing" if leaf is None else f"{leaf.dtype} {tuple(leaf.shape)}"


def _on_device(value: np.ndarray) -> np.ndarray | jax.Array:
    if jax.dtypes.canonicalize_dtype(value.dtype) != value.dtype:
        return value
    return jnp.array(value)


def _entries(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves, by their path as plain names: field, dictionary key or index."""
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield tuple(jax.tree_util.keystr((key,), simple=True) for key in keys), leaf


def _nested(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree on the host, in nested dictionaries."""
    nested: dict[str, Any] = {}
    seen = set()
    for names, leaf in _entries(tree):
        entry = "/".join(names)
        if not names:
            raise ValueError("tree must be a container of arrays, got a single leaf")
        # Orbax joins names with dots, and writes one of two alike without a word.
        if ".".join(names) in seen:
            raise ValueError(f"{entry} has the same name on disk as another entry")
        seen.add(".".join(names))
        dtype = getattr(leaf, "dtype", None)
        if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
            raise ValueError(f"{entry} is a PRNG key: save jax.random.key_data of it")
        try:
            value = np.asarray(jax.device_get(_array(leaf)))
        except TypeError:
            value = np.asarray(None)
        if value.dtype.kind in "OUSMm":
            raise ValueError(
                f"{entry} must be an array or a number, got {type(leaf).__name__}"
            )
        if value.size == 0:
            continue
        inner = nested
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
        inner[names[-1]] = value
    if not nested:
        raise ValueError("tree holds no array with an element, so nothing to save")
    return nested


@contextlib.contextmanager
def _checkpointer() -> Iterator[ocp.Checkpointer]:
    """Orbax with its log kept off the terminal; its errors are raised as well."""
    # This process alone: of several, Orbax would wait for all to come here.
    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process{process}",
    )
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        # One database for all arrays instead of a folder for each; weights hardly
        # compress.
        handler = ocp.PyTreeCheckpointHandler(
            use_compression=False, multiprocessing_options=alone
        )
        checkpointer = ocp.Checkpointer(handler, multiprocessing_options=alone)
        with contextlib.closing(checkpointer):
            yield checkpointer
    finally:
        logger.setLevel(level)


def _steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    if not folder.exists():
        return []
    paths = [path for path in folder.iterdir() if _STEP.fullmatch(path.name)]
    return sorted(paths, key=lambda path: int(path.name), reverse=True)


def _remove(path: Path) -> None:
    # Renamed first: a kill in between leaves no half checkpoint under a valid name.
    doomed = path.with_name(f"{_TEMPORARY}old-{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _digest_text(digests: Mapping[str, str]) -> str:
    """The text of digest.json, which ends with a digest of its own list."""
    files = dict(sorted(digests.items()))
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return json.dumps({"files": files, "list": digest}, indent=1) + "\n"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Bring every file and folder below a path onto the disk."""
    for root, _, names in os.walk(path, topdown=False):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(root))


def _flush_folder(path: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
