"""What becomes of runs that are killed, damaged, fed nonsense, or short of a disk.

Every trial is a command in a process of its own, forked from one that has the packages
loaded; programs come from a cache. What a trial leaves is compared with a run that
nothing happened to: its record, its probes and its results must be the same, bit for
bit, but for seconds. A command that cannot do this must say so in one line.
"""

import collections
import contextlib
import functools
import json
import math
import multiprocessing
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dib_jax.commands.benchmarks import table

NOTE = (
    "same: the record, the probes and the results are those of an undisturbed run, bit "
    "for bit but for seconds. refused: the command ended with one line, status 1 or 2. "
    "unnoticed: status 0 with other numbers. traceback: of Python. hung: over 100 s."
)
_OUTCOMES = ("same", "refused", "unnoticed", "traceback", "hung", "other")
_PATIENCE = 100.0
_DRAWN = 0.1  # of the runs draw their report
_MODULES = (
    "dib_jax.commands.run", "dib_jax.commands.trained", "dib_jax.analysis.report",
    "dib_jax.analysis.recording", "dib_jax.training.train", "dib_jax.analysis.findings",
)  # fmt: skip
# A run of five epochs in each phase, probed after each.
_FIELDS = {
    "dataset.samples": "200",
    "model.name": "mlp",
    "objective.name": "cross_entropy",
    "analysis.samples": "16",
    "analysis.every_epochs": "1",
    "epochs": "5",
    "batch_size": "32",
}


def measure(
    kills: int = 200,
    damages: int = 200,
    inputs: int = 300,
    disks: int = 20,
    pairs: int = 50,
    seed: int = 0,
    minutes: float = math.inf,
) -> Iterator[list[table.Row]]:
    """Try runs of digits in all these ways, so many times each.

    Args:
        kills: of a process at a random moment (kill −9); its run is started again until
            it is finished.
        damages: of a random file of a stopped or a finished run: a bit, a byte, an end,
            or all of it.
        inputs: random values of fields, broken config files, arrays and pictures.
        disks: that are full after a random size.
        pairs: of processes on one workdir, some time apart.
        seed: of what is random.
        minutes: after which a kind of fault ends, if it has not so often been tried.
    """
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        bench = _Bench(pathlib.Path(name), random.Random(seed))
        for fault, count, attempt in (
            ("damaged file", damages, bench.damage),
            ("bad input", inputs, bench.bad_input),
            ("full disk", disks, bench.full_disk),
            ("two processes", pairs, bench.pair),
            ("kill −9", kills, bench.kill),
        ):
            if not count:
                continue
            if attempt == bench.kill:
                bench.of_stages(2)
            begun, found = time.monotonic(), collections.Counter[str]()
            told: dict[str, str] = {}
            while found.total() < count and time.monotonic() < begun + 60 * minutes:
                for outcome, why in attempt():
                    found[outcome] += 1
                    told.setdefault(outcome, why)
            for outcome in _OUTCOMES[2:]:
                if found[outcome]:
                    print(f"{fault}, {outcome}: {told[outcome]}", file=sys.stderr)
            yield [
                {
                    "fault": fault,
                    "tried": found.total(),
                    **{each: found[each] for each in _OUTCOMES},
                    "seconds": round(time.monotonic() - begun),
                }
            ]


# What a trial came to, and what is to be known of it.
Outcomes = Iterator[tuple[str, str]]


class _Command:
    """A command in a process of its own; what it says goes into a file."""

    def __init__(
        self,
        context: Any,
        name: str,
        arguments: list[str],
        log: pathlib.Path,
        **more: Any,
    ) -> None:
        self.log, self.words = log, f"{name} {' '.join(arguments)}"
        self.process = context.Process(
            target=_command, args=(name, arguments, str(log)), kwargs=more
        )
        self.process.start()

    def wait(self, seconds: float = _PATIENCE) -> int | None:
        """Its exit status; None where it had to be killed."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            return None
        return int(self.process.exitcode)

    def kill(self) -> None:
        """kill −9."""
        self.process.kill()
        self.process.join()

    def said(self) -> list[str]:
        """The lines that it has printed."""
        return self.log.read_text(errors="replace").splitlines()

    def outcome(self, status: int | None, same: Callable[[], bool]) -> tuple[str, str]:
        """What it came to, and why."""
        lines = self.said()
        last = f"{self.words}: {status}: {lines[-1] if lines else 'nothing said'}"
        if status is None:
            return "hung", last
        if any(line.startswith("Traceback") for line in lines):
            return "traceback", last
        if status in (1, 2) and any(x.startswith("experiments.") for x in lines):
            return "refused", last
        if status:
            return "other", last
        return ("same" if same() else "unnoticed"), last


def _command(
    name: str,
    arguments: list[str],
    log: str,
    *,
    limit: int | None = None,
    drawn: bool = False,
) -> None:
    """Run a command in this process, as `start` does.

    Args:
        name: of the command.
        arguments: of it.
        log: the file that its outputs go to.
        limit: bytes of a file.
        drawn: whether a run draws its report, which takes most of its time.
    """
    import importlib
    import warnings

    from dib_jax.commands import command_line, surroundings

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (1, 2):
        os.dup2(handle, output)
    warnings.simplefilter("ignore")
    surroundings.settle()
    if limit is not None:
        import resource  # of Unix

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    command = importlib.import_module(f"dib_jax.commands.{name}")
    if name == "run" and not drawn:
        command.write_report = _write_no_report  # type: ignore[attr-defined]
    main = command.main
    sys.exit(
        command_line.main(
            main, command=f"experiments.{name}", goes_on=True, arguments=arguments
        )
    )


def _write_no_report(
    workdir: pathlib.Path, trained: Any, *, command: str = ""
) -> pathlib.Path:
    from dib_jax.analysis import recording
    from dib_jax.training.workdir import write_atomically

    recording.write_information(workdir)
    write_atomically(workdir / "report.html", command.encode())
    return workdir / "report.html"


class _Bench:
    """Where runs are made and spoilt, and the run that nothing happened to."""

    def __init__(self, folder: pathlib.Path, dice: random.Random) -> None:
        self.folder, self.dice, self.count = folder, dice, 0
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "programs")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["OPENBLAS_NUM_THREADS"] = os.environ["PJRT_NPROC"] = "1"
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([*_MODULES])
        self.of_stages(1)

    def of_stages(self, count: int) -> None:
        """Let the runs have so many phases from now on."""
        self.stages = count
        # The first fills the cache, the last says how long one takes.
        for drawn in (True, False):
            self.whole = self.new()
            begun = time.monotonic()
            first = self.run(self.whole, drawn=drawn)
            if first.wait(600):
                raise RuntimeError(f"the undisturbed run failed: {first.said()}")
            self.seconds = time.monotonic() - begun
        self.wanted = left(self.whole)

    def new(self) -> pathlib.Path:
        """A folder that is not there yet."""
        self.count += 1
        return self.folder / f"run{self.count}"

    def run(self, workdir: pathlib.Path, *more: str, **options: Any) -> _Command:
        """Start the run, or let it go on."""
        widths = {"model.widths": ",".join(["8"] * self.stages)}
        fields = [f"--config.{field}={x}" for field, x in (_FIELDS | widths).items()]
        config = "--config=configs/digits_cnn.py:quick"
        words = [config, *fields, f"--workdir={workdir}", *more]
        options.setdefault("drawn", self.dice.random() < _DRAWN)
        return self.command("run", words, **options)

    def command(self, name: str, words: list[str], **options: Any) -> _Command:
        """Start a command."""
        self.count += 1
        log = self.folder / f"log{self.count}"
        return _Command(self.context, name, words, log, **options)

    def same(self, workdir: pathlib.Path) -> bool:
        """Whether a run has left what the undisturbed one has."""
        return left(workdir) == self.wanted

    def kill(self) -> Outcomes:
        """A run that is killed at random moments until it is done."""
        workdir, outcomes = self.new(), []
        while True:
            running = self.run(workdir)
            status = running.wait(self.dice.uniform(0, self.seconds))
            if status is not None:
                break
            outcomes.append(running)
        if not outcomes:
            return
        ended = running.outcome(status, lambda: self.same(workdir))
        shutil.rmtree(workdir, ignore_errors=True)
        # What came of the run came of every kill that it has seen.
        yield from [ended] * len(outcomes)

    def stopped(self) -> pathlib.Path:
        """A run that is in the middle, or finished."""
        workdir = self.new()
        if self.dice.random() < 0.3:
            shutil.copytree(self.whole, workdir)
            return workdir
        while True:
            self.run(workdir).wait(self.dice.uniform(0.3, 1) * self.seconds)
            if any(workdir.glob("checkpoints/0*")):
                return workdir
            shutil.rmtree(workdir, ignore_errors=True)

    def damage(self) -> Outcomes:
        """A stopped run of which a file is spoilt, several times over."""
        stopped = self.stopped()
        for _ in range(4):
            workdir = self.new()
            shutil.copytree(stopped, workdir)
            files = [
                path
                for path in sorted(workdir.rglob("*"))
                if path.is_file()
                and path.suffix not in (".html", ".png", ".svg")
                # What is made of the run's own files, and made again from them.
                and path.name not in ("information.npz", "findings.json", ".lock")
            ]
            path = self.dice.choice(files)
            how = spoil(path, self.dice)
            running = self.run(workdir)
            status = running.wait()
            sound = functools.partial(self.same, workdir)
            outcome, why = running.outcome(status, sound)
            yield outcome, f"{path.relative_to(workdir)} {how}: {why}"
            shutil.rmtree(workdir, ignore_errors=True)
        shutil.rmtree(stopped, ignore_errors=True)

    def bad_input(self) -> Outcomes:
        """A command that is given nonsense."""
        kinds = (self._bad_field, self._bad_config, self._bad_arrays, self._bad_picture)
        running = self.dice.choice(kinds)()
        # What is not nonsense by chance is right.
        yield running.outcome(running.wait(), lambda: True)

    def _bad_field(self) -> _Command:
        from dib_jax.commands import config as configs

        fields = list(configs.schema(configs.complete({}).to_dict()))
        words = [
            f"--config.{self.dice.choice(fields)}={self.dice.choice(_VALUES)}"
            for _ in range(self.dice.choice((1, 1, 2)))
        ]
        return self.command(
            "run",
            [
                "--config=configs/digits_cnn.py:quick", f"--workdir={self.new()}",
                "--config.epochs=1", "--config.dataset.samples=64", *words,
            ],
        )  # fmt: skip

    def _bad_config(self) -> _Command:
        path = self.folder / f"config{self.count}.py"
        shutil.copy("configs/digits_cnn.py", path)
        for _ in range(3):
            spoil(path, self.dice)
            if not path.exists():
                break
        return self.command("run", [f"--config={path}", "--help"])

    def _bad_arrays(self) -> _Command:
        name = f"own{self.count}"
        folder = self.folder / "data" / name
        folder.mkdir(parents=True)
        draw = np.random.default_rng(self.count)
        for split in ("train", "test"):
            labels = np.arange(40) % 3
            images = draw.integers(0, 256, (40, 8, 8, 1), np.uint8)
            np.savez(folder / f"{split}.npz", images=images, labels=labels)
        spoil(folder / self.dice.choice(("train.npz", "test.npz")), self.dice)
        return self.run(
            self.new(),
            f"--config.dataset.name={name}",
            f"--config.dataset.data_dir={folder.parent}",
            "--config.algorithm.name=end_to_end",
        )

    def _bad_picture(self) -> _Command:
        from PIL import Image

        suffix = self.dice.choice(("png", "jpg", "gif", "bmp", "tiff", "webp"))
        path = self.folder / f"picture{self.count}.{suffix}"
        noise = np.random.default_rng(self.count).integers(0, 256, (9, 7, 3), np.uint8)
        Image.fromarray(noise).save(path)
        spoil(path, self.dice)
        out = self.folder / f"out{self.count}"
        return self.command(
            "predict", [f"--workdir={self.whole}", f"--out={out}", str(path)]
        )

    def full_disk(self) -> Outcomes:
        """A run on a disk that is full after a random size; then there is room."""
        workdir, size = self.new(), int(2 ** self.dice.uniform(9, 20))
        with _small_disk(self.folder / f"disk{self.count}", size) as disk:
            here = (disk or self.folder) / workdir.name
            running = self.run(here, limit=None if disk else size)
            first = running.outcome(running.wait(), lambda: self.same(here))
            if here.exists() and disk:
                shutil.copytree(here, workdir)
        if first[0] not in ("same", "refused"):
            yield first
            return
        again = self.run(workdir)
        yield again.outcome(again.wait(), lambda: self.same(workdir))
        shutil.rmtree(workdir, ignore_errors=True)

    def pair(self) -> Outcomes:
        """Two processes on one workdir, of which the first may be killed."""
        workdir = self.new()
        first = self.run(workdir)
        time.sleep(self.dice.choice((0, 0, self.dice.uniform(0, self.seconds))))
        second = self.run(workdir)
        if self.dice.random() < 0.3:
            time.sleep(self.dice.uniform(0, self.seconds / 2))
            first.kill()
        ended = [
            running.outcome(running.wait(), lambda: self.same(workdir))
            for running in (first, second)
            if running.process.exitcode != -9
        ]
        bad = [each for each in ended if each[0] not in ("same", "refused")]
        if not bad:
            last = self.run(workdir)
            bad = [last.outcome(last.wait(), lambda: self.same(workdir))]
        yield bad[0]
        shutil.rmtree(workdir, ignore_errors=True)


_VALUES = (
    "", "0", "-1", "1", "2", "1e400", "nan", "inf", "-inf", "1e-30", "9" * 20, "True",
    "None", "()", "(1,)", "1,2,3", "[[[[", "'", "a b", "None,None", "../../x",
    "digits", "no:thing", "os:system", "限速", "\x1b[31m", "1.5", "0.5", "{}", "-0.0",
)  # fmt: skip


def left(workdir: pathlib.Path) -> Any:
    """What a finished run has left, without seconds; None where it is not finished.

    Args:
        workdir: of a run.
    """
    if not (workdir / "results.json").is_file():
        return None
    with contextlib.suppress(ValueError, OSError):
        record = (workdir / "metrics.jsonl").read_text().splitlines()
        probes = {}
        for path in sorted((workdir / "probes").glob("*.npz")):
            with np.load(path) as found:
                probes[path.name] = {
                    name: array.tobytes()
                    for name, array in found.items()
                    if name != "seconds"
                }
        results = json.loads((workdir / "results.json").read_text())
        return _timeless(results), [_timeless(json.loads(x)) for x in record], probes
    return "damaged"


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if "seconds" not in k}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def spoil(path: pathlib.Path, dice: random.Random) -> str:
    """Damage a file, and say how.

    Args:
        path: it.
        dice: what chooses.
    """
    content = bytearray(path.read_bytes())
    how = dice.choice(("a bit", "a bit", "a byte", "cut off", "zeros", "deleted"))
    if how == "deleted" or not content:
        path.unlink()
        return "deleted"
    place = dice.randrange(len(content))
    if how == "a bit":
        content[place] ^= 1 << dice.randrange(8)
    elif how == "a byte":
        content[place] = dice.randrange(256)
    elif how == "cut off":
        del content[place:]
    else:
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    path.write_bytes(content)
    return how


@contextlib.contextmanager
def _small_disk(folder: pathlib.Path, size: int) -> Iterator[pathlib.Path | None]:
    """A disk of so many bytes; None where none can be made, and files are limited."""
    folder.mkdir()
    pages = f"size={math.ceil(size / 4096) * 4096}"
    words = ["mount", "-t", "tmpfs", "-o", pages, "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, check=False)
    except OSError:
        yield None
        return
    if done.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def plot(path: pathlib.Path, rows: list[table.Row]) -> None:
    """Draw how many of each fault ended how.

    Args:
        path: the file.
        rows: of `measure`.
    """
    figure = Figure(figsize=(7, 0.6 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [f"{row['fault']} ({row['tried']})" for row in rows]
    start = np.zeros(len(rows))
    colors = ("#009E73", "#56B4E9", "#D55E00", "#B00020", "#E69F00", "#5F5F5F")
    for outcome, color in zip(_OUTCOMES, colors, strict=True):
        shares = np.array([row[outcome] / row["tried"] for row in rows])
        if shares.any():
            axes.barh(names, shares, left=start, color=color, label=outcome)
        start += shares
    axes.invert_yaxis()
    axes.set_xlabel("Share of what was tried")
    axes.legend(
        ncols=6, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1)
    )
    figure.savefig(path, dpi=90)
