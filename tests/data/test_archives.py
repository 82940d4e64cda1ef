import hashlib
import http.server
import io
import socket
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest

from dib_jax.data import archives
from dib_jax.data.archives import Archive, fetch, open_zip, read_tar, read_zip

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT as it is told to.

    Attributes:
        ranges: what was asked for in each request.
        cuts: after how many bytes to hang up, request by request.
        resumes: whether it knows of ranges.
    """

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is none


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range", "")
        server.ranges.append(asked)
        if self.path != "/pack.bin":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if not server.resumes:
            start = 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            size = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.content, server.ranges, server.cuts, server.resumes = CONTENT, [], [], 1
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def pack(server, digest=DIGEST, name="pack.bin"):
    return Archive(f"http://127.0.0.1:{server.server_port}/{name}", digest)


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_an_archive_is_fetched_once_and_kept(server, tmp_path):
    path = fetch(pack(server), tmp_path / "set")
    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "set") == ["pack.bin"]
    assert fetch(pack(server), tmp_path / "set") == path
    assert server.ranges == [""]


def test_a_transfer_that_is_cut_goes_on_where_it_was(server, tmp_path):
    said = []
    server.cuts = [1_000_000, 500_000]
    path = fetch(pack(server), tmp_path, report=said.append)
    assert path.read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=1000000-", "bytes=1500000-"]
    assert said[0].startswith("pack.bin: cut off after 1000000 of 3000000 bytes; going")


def test_a_later_call_goes_on_where_an_earlier_one_was_stopped(server, tmp_path):
    (tmp_path / "pack.bin.part").write_bytes(CONTENT[:2_000_000])
    assert fetch(pack(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=2000000-"]
    assert names(tmp_path) == ["pack.bin"]


def test_where_the_server_cannot_go_on_it_is_begun_anew(server, tmp_path):
    server.resumes = False
    (tmp_path / "pack.bin.part").write_bytes(CONTENT[:2_000_000])
    assert fetch(pack(server), tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_whole_is_begun_anew(server, tmp_path):
    (tmp_path / "pack.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(pack(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=3000004-", ""]


def test_what_came_before_a_connection_that_stays_cut_is_kept(server, tmp_path):
    server.cuts = [1000, 1000, 1000, 1000, 1000]
    with pytest.raises(ConnectionError, match="cut off after 4000 of 3000000 bytes"):
        fetch(pack(server), tmp_path)
    assert (tmp_path / "pack.bin.part").read_bytes() == CONTENT[:4000]
    server.cuts = []
    assert fetch(pack(server), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(ValueError, match="pack.bin: wrong checksum, sha256:") as error:
        fetch(pack(server), tmp_path)
    assert f"where {DIGEST} is right; it was deleted; try again" in str(error.value)
    assert names(tmp_path) == []
    server.content = CONTENT
    assert fetch(pack(server), tmp_path).read_bytes() == CONTENT


def test_the_rest_of_another_file_is_noticed(server, tmp_path):
    (tmp_path / "pack.bin.part").write_bytes(b"0" * 2_000_000)
    with pytest.raises(ValueError, match="wrong checksum"):
        fetch(pack(server), tmp_path)
    assert names(tmp_path) == []


def test_an_md5_will_do(server, tmp_path):
    md5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
    assert fetch(pack(server, md5), tmp_path).read_bytes() == CONTENT


def test_without_an_official_digest_the_found_one_is_kept(server, tmp_path):
    said = []
    path = fetch(pack(server, ""), tmp_path, report=said.append)
    assert said == [f"pack.bin: no official digest is known; this one is {DIGEST}"]
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=f"where {DIGEST} is right; move it away"):
        fetch(pack(server, ""), tmp_path)


@pytest.mark.parametrize("place", [".", "set"])
def test_an_archive_that_was_brought_is_not_fetched(server, tmp_path, place):
    offered = tmp_path / "offered" / place
    offered.mkdir(parents=True)
    (offered / "pack.bin").write_bytes(CONTENT)
    options = {"offered": tmp_path / "offered"}
    found = fetch(pack(server), tmp_path / "set", **options)
    assert found.samefile(offered / "pack.bin")
    (offered / "pack.bin").write_bytes(b"no")
    with pytest.raises(ValueError, match="wrong checksum.* move it away"):
        fetch(pack(server), tmp_path / "set", **options)
    assert (offered / "pack.bin").exists()  # it is not ours to delete
    assert server.ranges == []
    assert not (tmp_path / "set").exists()


def seconds_to_fail(archive, folder, match):
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match=match) as error:
        fetch(archive, folder / "data" / "set")
    assert "\n" not in str(error.value)
    assert names(folder) == []  # not even an empty folder
    return time.perf_counter() - start


def test_a_server_that_refuses_is_one_line_at_once(server, tmp_path):
    missing = pack(server, name="other.bin")
    assert seconds_to_fail(missing, tmp_path, "the server answered 404 Not Found") < 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/pack.bin"
    archive = Archive(url, DIGEST)
    assert seconds_to_fail(archive, tmp_path, f"{url} could .*Connection refused") < 1


def test_a_network_that_never_answers_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_CONNECT_SECONDS", 0.2)
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: done.wait(5))
    archive = Archive("http://data.invalid/pack.bin", DIGEST)
    assert seconds_to_fail(archive, tmp_path, "no answer within 0.2 seconds") < 2
    done.set()


def test_two_that_fetch_the_same_do_not_disturb_each_other(server, tmp_path):
    server.cuts = [1000, 500_000]
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                fetch(pack(server), tmp_path, report=lambda line: None).read_bytes()
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert server.ranges == ["", "bytes=1000-", "bytes=501000-"]
    assert names(tmp_path) == ["pack.bin"]


def tar(path, name, kind=tarfile.REGTYPE, link=""):
    with tarfile.open(path, "w:gz") as archive:
        for member in ("safe.txt", name):
            info = tarfile.TarInfo(member)
            info.size = 4 if member == "safe.txt" or kind == tarfile.REGTYPE else 0
            info.type = tarfile.REGTYPE if member == "safe.txt" else kind
            info.linkname = link
            archive.addfile(info, io.BytesIO(b"text"))
    return path


def test_members_of_a_tar_archive_are_read(tmp_path):
    path = tar(tmp_path / "x.tar.gz", "folder/b.txt")
    assert read_tar(path, ["folder/b.txt"]) == {"folder/b.txt": b"text"}
    with pytest.raises(ValueError, match=r"x\.tar\.gz: there is no c\.txt in it"):
        read_tar(path, ["c.txt"])


UNSAFE = ["../x", "/etc/x", "a/../../x", "..\\x", "C:x", "a\\..\\..\\x"]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_member_that_leaves_its_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="leaves its folder; nothing of it is used"):
        read_tar(tar(tmp_path / "x.tar.gz", name), ["safe.txt"])
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("safe.txt", "text")
        archive.writestr(name, "text")
    with (
        pytest.raises(ValueError, match="x.zip: member .* leaves its folder"),
        open_zip(tmp_path / "x.zip"),
    ):
        pass


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_a_link_or_device_is_refused(tmp_path, kind):
    path = tar(tmp_path / "x.tar.gz", "link", kind, link="/etc/passwd")
    with pytest.raises(ValueError, match="member 'link' is a link or a device"):
        read_tar(path, ["safe.txt"])


def test_a_link_in_a_zip_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with (
        pytest.raises(ValueError, match="member 'link' is a link; nothing"),
        open_zip(tmp_path / "x.zip"),
    ):
        pass


def test_an_encrypted_zip_archive_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "some text")
    content = bytearray(path.read_bytes())
    content[6] = content[content.index(b"PK\1\2") + 8] = 1  # the flag of a member
    path.write_bytes(content)
    with (
        pytest.raises(ValueError, match=r"member 'a\.txt' is encrypted; nothing"),
        open_zip(path),
    ):
        pass


def test_a_damaged_member_is_named(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "some text")
    path.write_bytes(path.read_bytes().replace(b"some text", b"same text"))
    with (
        open_zip(path) as archive,
        pytest.raises(ValueError, match=r"x\.zip: a\.txt is damaged"),
    ):
        read_zip(archive, "a.txt")
