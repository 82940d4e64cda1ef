"""What a run says while it works."""

import importlib
import os
import struct

import pytest

from dib_jax.training import progress
from dib_jax.training.progress import Progress

METRICS = {"train": {"loss": 1.5, "accuracy": 0.25}, "validation": {"accuracy": 0.5}}


def test_on_80_columns_the_bar_is_a_bar_and_says_what_it_waits_for(monkeypatch):
    pty = pytest.importorskip("pty")  # of Unix, as are the next two
    fcntl, termios = (
        importlib.import_module("fcntl"),
        importlib.import_module("termios"),
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with Progress(9) as bar:
            with bar.compiling(3):
                pass
            for epoch in (1, 2, 3):
                bar.epoch(3, epoch, 9, METRICS, ("accuracy",))
        said = b""
        while b"\n" not in said:  # the bar ends its line when it is closed
            said += os.read(ours, 9999)
        monkeypatch.undo()
    os.close(ours)
    shown = [part.rstrip() for part in said.decode().strip().split("\r")]
    assert "0/9 |          | 00:00<? starting" in shown
    assert "0/9 |          | 00:00<? stage 3: compiling" in shown
    assert "0/9 |          | 00:00<? stage 3: compiled, training" in shown
    assert shown[-1].startswith("3/9 |███▎      | 00:00<00:00 stage 3 epoch 3/9: valid")
    assert "validation accuracy 0.5000" in shown[-1]
    assert max(map(len, shown)) <= 80


def test_a_log_has_the_last_epoch_of_a_phase_and_others_now_and_then(
    monkeypatch, capsys
):
    # Asked and noted: compiling at 0, compiled at 1; epochs at 1, 5, 6, 7; the last is
    # not asked for. Then compiling at 9, compiled at 20.
    now = iter([0.0, 0.0, 1.0, 1.0, 5.0, 5.0, 6.0, 7.0, 8.0, 9.0, 20.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with Progress(5) as bar:
        with bar.compiling(0):
            pass
        for epoch in range(1, 6):
            bar.epoch(0, epoch, 5, METRICS, ("accuracy",))
        with bar.compiling(1):
            pass
    first, *said, last = capsys.readouterr().err.splitlines()
    assert first == "stage 0: compiling"
    assert [line.split()[3] for line in said] == ["2/5:", "5/5:"]
    text = "stage 0 epoch 2/5: loss 1.5000, train accuracy 0.2500, validation accuracy"
    assert said[0].startswith(text)
    assert last == "stage 1: compiled, training"
