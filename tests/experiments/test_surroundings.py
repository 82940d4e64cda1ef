"""What a command finds around it: outputs, interrupts, the environment."""

import io
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time
import warnings

import jax
import pytest

from dib_jax.commands import command_line, surroundings
from dib_jax.training import devices

ROOT = pathlib.Path(command_line.__file__).parents[2]


HELD = []


def output(encoding, **options):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    HELD.append(stream)  # as sys.__stdout__ holds it
    return raw, surroundings._Out.of(stream, **options)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"\\u2192 \\u9650.png caf\\xe9 \\udcff\n"),
        ("cp1252", b"\\u2192 \\u9650.png caf\xe9 \\udcff\n"),
        ("utf-8", "→ 限.png café \\udcff\n".encode()),
    ],
)
def test_every_text_is_printed_whatever_the_encoding(encoding, shown):
    raw, stream = output(encoding)
    print("→ 限.png café \udcff", file=stream, flush=True)
    assert raw.getvalue() == shown


def test_what_would_command_a_terminal_is_spelt_out_and_a_bar_still_moves():
    text = "a\x1b[31mb\x9bc\td\re"
    raw, stream = output("utf-8")
    print(text, file=stream, flush=True)
    assert raw.getvalue() == b"a\\x1b[31mb\\x9bc\td\\x0de\n"
    raw, stream = output("utf-8", lossy=True)
    stream.write("\r1/3\n")
    assert raw.getvalue() == b"\r1/3\n"


def full():
    HELD.append(io.TextIOWrapper(io.BufferedWriter(io.FileIO("/dev/full", "w"))))
    return HELD[-1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_output_is_one_line_and_a_full_log_does_not_end_a_run(monkeypatch):
    said = io.StringIO()
    with surroundings._Out.of(full()) as out, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", said)
        status = command_line.main(lambda _: print("x"), command="c", arguments=[])
    assert status == 2
    assert said.getvalue() == "c: standard output: No space left on device\n"
    with surroundings._Out.of(full(), lossy=True) as log:
        print("line", file=log, flush=True)


def test_who_holds_an_output_may_write_on(monkeypatch):
    raw, stream = output("ascii")
    logger = logging.StreamHandler(HELD[-1])
    logger.emit(logging.makeLogRecord({"msg": "→"}))
    print("x", file=stream, flush=True)
    assert raw.getvalue() == b"\\u2192\nx\n"


def test_a_process_without_outputs_prints_nowhere():
    with surroundings._Out.of(None) as stream:
        print("x", file=stream, flush=True)


def test_settings_that_change_what_arrays_mean_are_set_aside_and_said(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    same = classmethod(lambda cls, stream, **options: stream)
    monkeypatch.setattr(surroundings._Out, "of", same)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(warnings, "showwarning", None)
    os.environ |= {
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_TRANSFER_GUARD_DEVICE_TO_HOST": "disallow",
        "JAX_NUMPY_DTYPE_PROMOTION": "",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "JAX_DEBUG_NANS": "1",
    }
    said = surroundings.settle()
    assert [line.partition(" ")[0] for line in said] == [
        "JAX_ENABLE_X64=1",
        "JAX_NUMPY_RANK_PROMOTION=raise",
        "JAX_TRANSFER_GUARD_DEVICE_TO_HOST=disallow",
    ]
    assert os.environ["MPLBACKEND"] == "agg"
    assert os.environ["JAX_DEBUG_NANS"] == "1"
    assert not {"JAX_ENABLE_X64", "JAX_NUMPY_DTYPE_PROMOTION"} & os.environ.keys()


def test_damaged_programs_are_said_once_and_other_warnings_in_a_line(
    monkeypatch, capsys
):
    show = surroundings._Warnings()
    for name in "abc":
        text = f"Error reading persistent compilation cache entry for '{name}': cut off"
        show(UserWarning(text), UserWarning, "x.py", 1)
    show(RuntimeWarning("two\nlines"), RuntimeWarning, "x.py", 1)
    first, second = capsys.readouterr().err.splitlines()
    assert "entry for 'a': cut off: such programs are compiled anew each time" in first
    assert second == "RuntimeWarning: two lines"


def test_half_a_program_goes_and_a_program_without_its_time_gets_one(
    tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "dib_jax" / "programs-0"
    folder.mkdir(parents=True)
    monkeypatch.setattr(surroundings, "_kept_in", lambda: str(folder))
    for name in ("f-1-cache", "f-1-atime", "g-2-cache", "g-3-cache", "g-3-atime"):
        (folder / name).write_bytes(bytes(9))
    show = surroundings._Warnings()
    for doing, name in (("reading", "f"), ("writing", "h"), ("writing", "h")):
        text = f"Error {doing} persistent compilation cache entry for '{name}': cut off"
        show(UserWarning(text), UserWarning, "x.py", 1)
    names = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert names == dict.fromkeys(("g-2-cache", "g-3-cache", "g-3-atime"), 9) | {
        "g-2-atime": 8
    }
    # What cannot be mended is said.
    assert capsys.readouterr().err.count("entry for 'h': cut off: such programs") == 1


def test_the_engine_computes_in_float32_in_a_session_that_does_not():
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        with devices.usual_arithmetic():
            assert jax.numpy.asarray(1.0).dtype == "float32"
            assert (jax.numpy.ones((2, 2)) + jax.numpy.ones(2)).shape == (2, 2)
        assert jax.numpy.asarray(1.0).dtype == "float64"


def test_what_jax_refuses_at_its_start_is_one_line():
    program = "from dib_jax.commands.command_line import start; start('run')"
    config = "--config=configs/digits_cnn.py:quick"
    done = subprocess.run(
        [sys.executable, "-c", program, config],
        env={**os.environ, "JAX_DEBUG_NANS": "maybe", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "JAX does not start: " in done.stderr
    assert "--config" not in done.stderr
    assert "JAX_DEBUG_NANS" in done.stderr


def test_a_platform_that_is_not_there_is_named(monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'x':\n no such plugin.")

    monkeypatch.setattr(jax, "local_devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "x")
    monkeypatch.delenv("JAX_PLATFORM_NAME", raising=False)
    with pytest.raises(devices.DeviceError) as caught:
        devices.own_devices()
    assert str(caught.value) == (
        "with JAX_PLATFORMS=x JAX starts no device: Unable to initialize backend 'x': "
        "no such plugin; JAX_PLATFORMS=cpu is always there"
    )


TWICE = """
import os, signal, time
from dib_jax.commands import command_line, surroundings
signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored, as by nohup
surroundings.settle()

def work(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    finally:
        if {again}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

raise SystemExit(command_line.main(work, command="c", arguments=[]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
@pytest.mark.parametrize("again", [False, True])
def test_a_second_interrupt_ends_at_once_what_the_first_has_not(again):
    program = TWICE.format(again=again)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    line = "interrupted again, and ended at once" if again else "c: interrupted"
    assert (done.returncode, done.stderr) == (130, f"{line}\n")


PARENT = """
import subprocess, sys
from dib_jax.commands import surroundings
child = "from dib_jax.commands import surroundings as s; import time; s.settle();" \\
    "print('ready', flush=True); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child],
    env=surroundings.child_environment())
print(process.pid, flush=True)
process.wait()
"""


@pytest.mark.skipif(os.name != "posix", reason="processes of Unix")
def test_what_a_comparison_has_started_ends_with_it_though_it_was_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    said = {parent.stdout.readline().strip() for _ in range(2)}
    (pid,) = said - {"ready"}
    parent.kill()
    parent.wait()
    # Its end of the pipe is closed when it is gone, too.
    before = time.monotonic()
    assert parent.stdout.read() == ""
    assert time.monotonic() - before < 20
    parent.stdout.close()
    assert int(pid) > 0
