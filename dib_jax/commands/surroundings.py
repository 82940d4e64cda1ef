"""What a command finds around it: outputs, interrupts, the environment.

A command is a program of its own. What it prints is for a terminal or a log of any
encoding, it draws into files alone, and its arrays are float32 whatever the rest of a
session does.
"""

import contextlib
import glob
import importlib
import io
import os
import pathlib
import re
import signal
import sys
import threading
import time
import types
import warnings
from typing import Any, NoReturn

# What would give other types or refuse what the package does on purpose. JAX reads them
# when it is imported.
_SET_ASIDE = {
    "JAX_ENABLE_X64": "commands compute in float32",
    "JAX_NUMPY_RANK_PROMOTION": "commands broadcast",
    "JAX_NUMPY_DTYPE_PROMOTION": "commands mix float32 and bfloat16",
    "JAX_NO_TRACING": "commands compile",
    "JAX_DISABLE_JIT": "commands compile",
    "JAX_DEBUG_KEY_REUSE": "states of several phases start from one key",
    "JAX_TRANSFER_GUARD": "commands move arrays to the device and back",
}
_PARENT = "DIB_JAX_PARENT"
INTERRUPTED = 130


class OutputError(OSError):
    """Standard output takes nothing any more."""


class StartError(OSError):
    """JAX does not start in this environment."""


def settle() -> list[str]:
    """Make outputs, interrupts and environment what commands are made for.

    To be called before JAX and Matplotlib are imported.

    Returns:
        A line for each setting of the environment that is set aside.
    """
    sys.stdout, sys.stderr = _Out.of(sys.stdout), _Out.of(sys.stderr, lossy=True)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as behind nohup
        signal.signal(signal.SIGINT, _Interrupts())
    _end_with_parent()
    warnings.showwarning = _Warnings()
    os.environ["MPLBACKEND"] = "agg"
    said = []
    for name, why in _SET_ASIDE.items():
        # JAX_TRANSFER_GUARD has relatives, one for each direction.
        for given in [each for each in os.environ if each.startswith(name)]:
            value = os.environ.pop(given)
            if value.lower() not in ("", "0", "false", "f", "no", "off", "n"):
                said.append(f"{given}={value} is set aside: {why}")
    return said


def _visible(text: str, kept: str) -> str:
    """The text with the control characters spelt out that are not kept."""
    return "".join(
        f"\\x{ord(x):02x}" if (x < " " or "\x7f" <= x < "\xa0") and x not in kept else x
        for x in text
    )


class _Out(io.TextIOWrapper):
    """An output that takes every text, and shows what would command a terminal."""

    lossy = False
    kept = "\t\n"

    @classmethod
    def of(cls, stream: Any, *, lossy: bool = False) -> Any:
        """The stream in its own encoding; a closed one goes nowhere.

        Args:
            stream: such as `sys.stdout`; None where the process was started without.
            lossy: whether to go on where nobody takes what is written.
        """
        if stream is None:
            return open(os.devnull, "w", encoding="utf-8")
        if not isinstance(stream, io.TextIOWrapper):
            return stream  # a notebook's, which takes every text
        # The stream stays as it is for who holds it, such as a logger.
        stream.reconfigure(errors="backslashreplace")
        settings: dict[str, Any] = {
            "encoding": stream.encoding,
            "errors": "backslashreplace",
            "line_buffering": stream.line_buffering or lossy,
        }
        made = cls(stream.buffer, **settings)
        made.lossy = lossy
        if lossy:
            made.kept += "\r"  # by which a bar moves
        return made

    def write(self, text: str) -> int:
        """Write text; what is no letter and no line's end is spelt out."""
        try:
            super().write(_visible(text, self.kept))
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Bring it out."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        nowhere(self)
        if self.lossy:
            return  # a run does not end because nobody reads how it goes
        if isinstance(error, BrokenPipeError):
            raise error
        raise OutputError(f"standard output: {error.strerror}") from None


def nowhere(stream: Any) -> None:
    """Let a stream of the process go nowhere, also what it still holds.

    Args:
        stream: such as `sys.stdout`.
    """
    empty = os.open(os.devnull, os.O_WRONLY)
    os.dup2(empty, stream.fileno())
    os.close(empty)


class _Interrupts:
    """The first Ctrl-C ends a command in order, a second one at once."""

    def __init__(self) -> None:
        self._before = False

    def __call__(self, number: int, frame: types.FrameType | None) -> None:
        if self._before:
            os.write(2, b"interrupted again, and ended at once\n")
            os._exit(INTERRUPTED)
        self._before = True
        raise KeyboardInterrupt


def import_jax() -> None:
    """Import JAX, which reads its settings then.

    Raises:
        StartError: it refuses one.
    """
    try:
        importlib.import_module("jax")
    except (ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise StartError(f"JAX does not start: {line}; mend the environment") from None


class _Warnings:
    """A warning is a line; what is wrong with kept programs is mended, or said once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        if found := _OF_PROGRAMS.match(text):
            doing, name = found.groups()
            folder = _kept_in()
            if _mended(folder, doing, name) or doing in self._said:
                return
            self._said.add(doing)
            text = (
                f"{text}: such programs are compiled anew each time; remove the folder "
                f"that they are kept in, {folder}"
            )
        print(f"{category.__name__}: {text}", file=sys.stderr)


_OF_PROGRAMS = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '([^']*)'"
)
_OWN = "dib_jax"  # the folder that own programs are kept in, apart for each processor


def programs_folder(name: str) -> pathlib.Path:
    """The folder of the user for compiled programs.

    Args:
        name: of what they are for.
    """
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / _OWN / name


def _kept_in() -> str:
    jax = sys.modules.get("jax")
    return str(jax and jax.config.jax_compilation_cache_dir)


def _mended(folder: str, doing: str, name: str) -> bool:
    """Whether what JAX warns of is mended: it makes the program once more.

    A process that was killed leaves half a program, which JAX would never replace. And
    one that sets no limit of size leaves no times, without which one that does can keep
    no other program.
    """
    place = pathlib.Path(folder)
    mended = False
    with contextlib.suppress(OSError):
        if doing == "reading" and place.parent.name == _OWN:
            for path in place.glob(f"{glob.escape(name)}-*"):
                path.unlink(missing_ok=True)
                mended = True
        for path in place.glob("*-cache") if doing == "writing" else ():
            times = path.with_name(path.name.removesuffix("-cache") + "-atime")
            if not times.exists():
                times.write_bytes(bytes(8))
                mended = True
    return mended


def child_environment() -> dict[str, str]:
    """The environment of a command that ends when this process does."""
    return {**os.environ, _PARENT: str(os.getpid())}


def _end_with_parent() -> None:
    """End this process soon after the one that `child_environment` was called in."""
    parent = os.environ.pop(_PARENT, "")
    if not parent.isdecimal() or os.name != "posix":
        return

    def watch() -> NoReturn:
        while os.getppid() == int(parent):
            time.sleep(0.2)
        # As if killed, which a run survives at any moment.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
