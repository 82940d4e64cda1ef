"""One process at a time writes into a folder."""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Iterator

_FILE = ".lock"
# A process that was killed holds its lock until the system has taken it down.
_PATIENCE = 2.0
# Folders of this process, and how often each was taken: a caller and what it calls.
_taken: dict[pathlib.Path, int] = {}


class InUseError(ValueError):
    """Another process writes into the folder."""


@contextlib.contextmanager
def owned(folder: pathlib.Path) -> Iterator[None]:
    """Own a folder; made if it is missing. What this process owns may be owned again.

    The lock is the system's, on the file .lock, which says who has it: it ends with the
    process, however that ends.

    Args:
        folder: of a run, say.

    Raises:
        InUseError: another process owns it; the message names it.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    if place in _taken:
        _taken[place] += 1
        try:
            yield
        finally:
            _taken[place] -= 1
        return
    handle = os.open(place / _FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _wait(handle, folder)
        _taken[place] = 1
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        name = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        os.ftruncate(handle, 0)
        # A full disk keeps a run from saying who it is, not from being alone.
        with contextlib.suppress(OSError):
            os.write(handle, name.encode())
        yield
    finally:
        _taken.pop(place, None)
        os.close(handle)


def _wait(handle: int, folder: pathlib.Path) -> None:
    """Take the lock within the time that a killed process needs to go."""
    deadline = time.monotonic() + _PATIENCE
    while not _locked(handle):
        if time.monotonic() > deadline:
            name = os.read(handle, 200).decode(errors="replace") or "another process"
            raise InUseError(
                f"workdir: {folder} is in use by {name}; wait for it or end it, or "
                "choose another --workdir"
            )
        time.sleep(0.05)


def _locked(handle: int) -> bool:
    """Whether this process has the lock now."""
    try:
        import fcntl
    except ImportError:  # no Unix: two processes are not kept apart
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True
