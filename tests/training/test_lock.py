"""Two processes do not write into one folder."""

import os
import pathlib
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
    tmp_path, monkeypatch
):
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)
    folder = tmp_path / "new"
    other = subprocess.Popen(
        [sys.executable, "-c", OWN, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with other.stdout:
        assert other.stdout.readline() == "mine\n"
        name = f"workdir: {folder} is in use by process {other.pid} on "
        with pytest.raises(lock.InUseError, match=name), lock.owned(folder):
            pass
        other.kill()
        other.wait()
    monkeypatch.undo()
    with lock.owned(folder), lock.owned(folder):
        assert f"process {os.getpid()} on" in (folder / ".lock").read_text()
    with lock.owned(folder):
        pass
