"""Archives of data sets: fetched, checked, and read without unpacking them to disk.

A download is written to `<name>.part`, resumes where it was cut off, and is renamed
when its digest is right. Members are read from the archive. An archive is refused as a
whole if a member is a link, or has a name that leaves the archive's folder.
"""

import fcntl
import gzip
import hashlib
import http.client
import io
import os
import re
import stat
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Collection, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple
from urllib.response import addinfourl

import tqdm

from dib_jax.data.messages import Report, blaming

_CONNECT_SECONDS = 8.0  # looking the name up included, which alone may take minutes
_READ_SECONDS = 30.0
_ATTEMPTS = 4  # each but the last must bring bytes
_CHUNK = 1 << 18


class Archive(NamedTuple):
    """A file that a data set is made of.

    Attributes:
        url: where it is fetched from; its last part is the file's name.
        digest: "sha256:…" or "md5:…"; empty where none is known. Then the digest of the
            download is reported and stored beside the file.
    """

    url: str
    digest: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


def fetch(
    archive: Archive,
    folder: Path,
    *,
    offered: Path | None = None,
    report: Report = print,
) -> Path:
    """Find or download an archive, and check its digest.

    Args:
        archive: what is wanted.
        folder: where fetched archives are stored; made when the first one arrives.
        offered: a folder that may hold the archive; then nothing is fetched.
        report: is called with each line for the user.

    Returns:
        Its path.

    Raises:
        ValueError: the digest of the file found or fetched is wrong.
        ConnectionError: it could not be fetched.
    """
    places = [folder / archive.name]
    if offered is not None:
        places = [offered / archive.name, offered / folder.name / archive.name, *places]
    for path in places:
        if path.is_file():
            _check_digest(path, archive, then="move it away")
            return path
    path = places[-1]
    with _locked_part(path, report) as file:
        if file is None:  # another process has fetched it meanwhile
            return path
        _transfer(archive, file, report)
        file.flush()
        part = Path(file.name)
        try:
            found = _check_digest(part, archive, then="it was deleted; try again")
        except ValueError:
            part.unlink()
            raise
        if not archive.digest:
            report(f"{archive.name}: no official digest is known; this one is {found}")
            _record(path).write_text(f"{found}\n", encoding="utf-8")
        part.replace(path)
    return path


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.digest")


def _check_digest(path: Path, archive: Archive, *, then: str) -> str:
    wanted = archive.digest
    if not wanted and _record(path).is_file():
        wanted = _record(path).read_text(encoding="utf-8").strip()
    kind = wanted.partition(":")[0] or "sha256"
    with path.open("rb") as file:
        found = f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
    if wanted and found != wanted:
        name = path.with_name(archive.name)
        raise ValueError(
            f"{name}: wrong checksum, {found} where {wanted} is right; {then}"
        )
    return found


@contextmanager
def _locked_part(path: Path, report: Report) -> Iterator[IO[bytes] | None]:
    """The unfinished file, locked; None where another process finished it meanwhile."""
    part = path.with_name(f"{path.name}.part")
    made = [place for place in part.parents if not place.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with part.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"{path.name}: waiting for another process that fetches it")
                fcntl.flock(file, fcntl.LOCK_EX)
            finished = path.is_file()
            ours = part.exists() and os.path.samestat(
                part.stat(), os.fstat(file.fileno())
            )
            if not (finished or ours):
                continue  # the other process gave up and deleted it
            try:
                yield None if finished else file
            finally:
                if part.exists() and not part.stat().st_size:
                    part.unlink()
                    with suppress(OSError):  # one that is not empty stays
                        for place in made:
                            place.rmdir()
            return


def _transfer(archive: Archive, file: IO[bytes], report: Report) -> None:
    """Append the missing bytes to a file, over several connections if necessary."""
    for attempt in range(_ATTEMPTS):
        start = file.seek(0, io.SEEK_END)
        try:
            response = _open(archive.url, start)
            start, total = _span(response, start)
            file.truncate(start)
            bar = tqdm.tqdm(
                desc=archive.name, initial=start, total=total, unit="B",
                unit_scale=True, disable=None, leave=False,
            )  # fmt: skip
            with response, bar:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
            done = file.seek(0, io.SEEK_END)
            if total is None or done == total:
                return
            reason = f"cut off after {done} of {total} bytes"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and start and attempt + 1 < _ATTEMPTS:
                file.truncate(0)  # longer than the whole: not this file's beginning
                continue
            reason = f"the server answered {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            reason = (
                getattr(cause, "strerror", "") or str(cause) or type(cause).__name__
            )
        if file.seek(0, io.SEEK_END) <= start:  # nothing arrived: no use to go on
            break
        report(f"{archive.name}: {reason}; going on from there")
    raise ConnectionError(f"{archive.url} could not be fetched: {reason}")


def _open(url: str, start: int) -> addinfourl:
    """A response from byte `start` on, or an error within seconds."""
    request = urllib.request.Request(url, headers={"User-Agent": "dib_jax"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    answer: futures.Future[addinfourl] = futures.Future()

    def ask() -> None:
        try:
            answer.set_result(urllib.request.urlopen(request, timeout=_READ_SECONDS))
        except Exception as error:  # for the thread that waits
            answer.set_exception(error)

    # In a thread: Python waits without limit for a name server that does not answer.
    threading.Thread(target=ask, daemon=True).start()
    futures.wait([answer], _CONNECT_SECONDS)
    if not answer.done():
        raise TimeoutError(f"no answer within {_CONNECT_SECONDS:g} seconds")
    return answer.result()


def _span(response: addinfourl, start: int) -> tuple[int, int | None]:
    """First byte of a response, and length of the whole file or None if unknown."""
    length = response.headers.get("Content-Length")
    if response.status == 206:
        sent = response.headers.get("Content-Range", "")
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", sent)
        if told and int(told[1]) == start:
            return start, None if told[2] == "*" else int(told[2])
        raise http.client.HTTPException("the server sent another part than asked for")
    return 0, int(length) if length and length.isdigit() else None


def read_tar(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Members of a tar archive, compressed or not, by name.

    Args:
        path: the archive.
        wanted: names of the members to read.

    Raises:
        ValueError: it is damaged or cut off, lacks a member, or is unsafe to unpack.
    """
    found = {}
    with _sound(path, tarfile.TarError, OSError), tarfile.open(path) as archive:
        for member in archive:
            kind = "" if member.isfile() or member.isdir() else "a link or a device"
            _check_member(path, member.name, kind)
            if member.name in wanted and member.isfile():
                opened = archive.extractfile(member)
                found[member.name] = opened.read() if opened else b""
    for name in wanted:
        if name not in found:
            raise ValueError(f"{path}: there is no {name} in it")
    return found


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive, all of whose members are safe.

    Args:
        path: the archive.

    Raises:
        ValueError: it is damaged or cut off, or unsafe to unpack.
    """
    with _sound(path, Exception):  # zipfile raises nearly any
        archive = zipfile.ZipFile(path)
    with archive:
        for member in archive.infolist():
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            kind = "encrypted" if member.flag_bits & 1 else ""
            _check_member(path, member.filename, "a link" if is_link else kind)
        yield archive


def read_zip(archive: zipfile.ZipFile, member: str) -> bytes:
    """A member of a zip archive.

    Args:
        archive: from `open_zip`.
        member: its name.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    if member not in archive.NameToInfo:
        raise ValueError(f"{archive.filename}: there is no {member} in it")
    with blaming(f"{archive.filename}: {member} is damaged"):
        return archive.read(member)


def read_gzip(path: Path) -> bytes:
    """What a gzip file holds.

    Args:
        path: the file.

    Raises:
        ValueError: it is damaged or cut off.
    """
    with _sound(path, gzip.BadGzipFile):
        return gzip.decompress(path.read_bytes())


def _sound(path: Path, *errors: type[Exception]) -> AbstractContextManager[None]:
    return blaming(f"{path}: damaged or cut off", (*errors, EOFError, zlib.error))


def _check_member(path: Path, name: str, kind: str) -> None:
    parts = re.split(r"[/\\]", name)
    if kind:
        raise ValueError(f"{path}: member {name!r} is {kind}; nothing of it is used")
    if not parts[0] or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise ValueError(
            f"{path}: member {name!r} leaves its folder; nothing of it is used"
        )
