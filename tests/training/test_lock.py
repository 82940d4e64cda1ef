"""Two processes do not write into one folder."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from dib_jax.training import lock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of Unix")
ROOT = pathlib.Path(lock.__file__).parents[2]
OWN = """
import pathlib, sys, time
from dib_jax.training.lock import owned
with owned(pathlib.Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_has_the_folder_until_that_one_is_gone(
    tmp_path,
):
    folder = tmp_path / "new {0}"
    other = subprocess.Popen(
        [sys.executable, "-c", OWN, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with other.stdout:
        assert other.stdout.readline() == "mine\n"
        name = f"workdir: {folder} is in use by process {other.pid} on "
        impatient = lock.owned(folder, patience=0.1)
        with pytest.raises(lock.InUseError, match=re.escape(name)), impatient:
            pass
        waited_for = []

        def waiting(who):
            waited_for.append(who)
            other.kill()

        with lock.owned(folder, patience=0, waiting=waiting):
            (who,) = waited_for
            assert who.startswith(f"process {other.pid} on ")
        other.wait()
    with lock.owned(folder), lock.owned(folder):
        assert f"process {os.getpid()} on" in (folder / ".lock").read_text()
    with lock.owned(folder):
        pass


def test_a_lock_that_is_taken_away_with_its_folder_is_one_lock_all_the_same(tmp_path):
    """Each process makes the folder, is alone in it for a while, and removes it."""
    shared = tmp_path / "counter"
    shared.write_text("0")
    others = [
        subprocess.Popen(
            [sys.executable, "-c", COUNT, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(3)
    ]
    assert [other.wait(60) for other in others] == [0, 0, 0]
    assert shared.read_text() == "120"
    assert {path.name for path in tmp_path.iterdir()} == {"counter"}


def test_a_folder_that_goes_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    """As between two processes: it is there for mkdir, and not when mkdir looks."""
    make, calls = os.mkdir, []

    def exists_first(path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 1:
            raise FileExistsError(17, "File exists", str(path))
        make(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", exists_first)
    with lock.owned(tmp_path / "place"):
        assert (tmp_path / "place" / ".lock").exists()
    assert len(calls) == 2


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "place").write_text("a file")
    with pytest.raises(OSError, match="place"), lock.owned(tmp_path / "place"):
        pass


COUNT = """
import contextlib, pathlib, sys, time
from dib_jax.training.lock import owned
root = pathlib.Path(sys.argv[1])
for _ in range(40):
    with owned(root / "place", waiting=lambda who: None, leave=False):
        count = int((root / "counter").read_text())
        time.sleep(0.001)
        (root / "counter").write_text(str(count + 1))
    with contextlib.suppress(OSError):
        (root / "place").rmdir()
"""
