"""Digests of the files of a workdir that are read again, so that damage is noticed.

While a run trains they are in its checkpoints. A finished run has digests.json:
SHA-256 of each file, by its path within the workdir.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping

FILE = "digests.json"


def digest(path: pathlib.Path, size: int | None = None) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    Args:
        path: the file.
        size: how many of its first bytes count; None for all.
    """
    with path.open("rb") as file:
        if size is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(file.read(size)).hexdigest()


def damaged(
    workdir: pathlib.Path, digests: Mapping[str, str], sizes: Mapping[str, int]
) -> dict[str, str]:
    """What is wrong with files, by name; those that are sound are not in it.

    Args:
        workdir: the folder that they are in.
        digests: by path within it.
        sizes: of files that may have grown: how many bytes count.
    """
    found = {}
    for name, wanted in digests.items():
        path = workdir / name
        try:
            if digest(path, sizes.get(name)) != wanted:
                found[name] = "is not as it was written"
        except FileNotFoundError:
            found[name] = "is missing"
        except OSError as error:
            found[name] = f"cannot be read ({error.strerror})"
    return found


def of(workdir: pathlib.Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """What digests.json of a finished run holds.

    Args:
        workdir: its folder.
        names: of its files, as paths within it; those that are not there are left out.
    """
    there = [name for name in names if (workdir / name).is_file()]
    return {"files": {name: digest(workdir / name) for name in there}}


def known(workdir: pathlib.Path) -> list[str]:
    """The files that a finished run has digests of.

    Args:
        workdir: its folder.

    Raises:
        ValueError: one of them was changed.
    """
    check(workdir, "")
    path = workdir / FILE
    return list(json.loads(path.read_bytes())["files"]) if path.exists() else []


def forget(workdir: pathlib.Path) -> None:
    """Remove digests.json: the run goes on, and its files change.

    Args:
        workdir: its folder.
    """
    (workdir / FILE).unlink(missing_ok=True)


def check(workdir: pathlib.Path, name: str) -> None:
    """Refuse a file that is not as the finished run has left it.

    A run that is not finished, or was by an earlier version, has no digests.

    Args:
        workdir: the folder of a run.
        name: of the file, as a path within it; "a/" for all in a folder of it, "" for
            all.

    Raises:
        ValueError: it was changed, or it is missing.
    """
    try:
        files = json.loads((workdir / FILE).read_text(encoding="utf-8"))["files"]
        wanted = {str(each): str(text) for each, text in files.items()}
    except FileNotFoundError:
        return
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        wanted, bad = {}, {FILE: "is not as it was written"}
    else:
        chosen = {each: x for each, x in wanted.items() if each.startswith(name)}
        bad = damaged(workdir, chosen, {})
    for each, how in bad.items():
        raise ValueError(
            f"workdir: {workdir / each} {how}; put back a copy of it, or remove "
            f"{workdir / FILE} to take the run as it is now"
        )
