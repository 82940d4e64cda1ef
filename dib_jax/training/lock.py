"""One process at a time writes into a folder."""

import contextlib
import math
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator

_FILE = ".lock"
# A process that was killed holds its lock until the system has taken it down.
_PATIENCE = 2.0
# Folders of this process, and how often each was taken: a caller and what it calls.
_taken: dict[pathlib.Path, int] = {}


class InUseError(ValueError):
    """Another process writes into the folder."""


@contextlib.contextmanager
def owned(
    folder: pathlib.Path,
    *,
    field: str = "workdir",
    patience: float = _PATIENCE,
    waiting: Callable[[str], None] | None = None,
    leave: bool = True,
) -> Iterator[None]:
    """Own a folder; made if it is missing. What this process owns may be owned again.

    The lock is the system's, on the file .lock, which says who has it: it ends with the
    process, however that ends.

    Args:
        folder: of a run, say.
        field: the flag that it was given by, for the message.
        patience: seconds that it is waited for.
        waiting: is called with who has it then, and it is waited for on; None: raise.
        leave: whether .lock stays in the folder.

    Raises:
        InUseError: another process owns it; the message names it.
        OSError: it cannot be written.
    """
    place = folder.resolve()
    if place in _taken:
        _taken[place] += 1
        try:
            yield
        finally:
            _taken[place] -= 1
        return

    def refusal(name: str) -> str:
        return (
            f"{field}: {folder} is in use by {name}; wait for it or end it, or choose "
            f"another --{field}"
        )

    handle = _open_mine(place, refusal, patience, waiting)
    try:
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
        if not leave:
            (place / _FILE).unlink(missing_ok=True)
        os.close(handle)


def _open_mine(
    place: pathlib.Path,
    refusal: Callable[[str], str],
    patience: float,
    waiting: Callable[[str], None] | None,
) -> int:
    """The file of the lock, open and locked."""
    while True:
        # Who had it may take the folder away, or the file, and another make a new one:
        # mkdir may find it, and not find it any more when it looks whether it is one.
        with contextlib.suppress(FileExistsError):
            place.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(place / _FILE, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _wait(handle, refusal, patience, waiting)
                if os.path.samestat(os.fstat(handle), os.stat(place / _FILE)):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)


def _wait(
    handle: int,
    refusal: Callable[[str], str],
    patience: float,
    waiting: Callable[[str], None] | None,
) -> None:
    """Take the lock within some time, or wait for who has it."""
    deadline = time.monotonic() + patience
    while not _locked(handle):
        if time.monotonic() > deadline:
            name = os.pread(handle, 200, 0).decode(errors="replace")
            name = name or "another process"
            if waiting is None:
                raise InUseError(refusal(name))
            waiting(name)
            deadline = math.inf
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
