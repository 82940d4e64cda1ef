"""Programs are compiled quickly, shared by workers and let go again.

Most of the tests' time and memory goes into compiled programs: the smallest, one
operation on one shape, takes 15 ms and 1.3 MB. So a test

- draws its data by NumPy, and takes results apart as NumPy's arrays: every operation on
  an array of JAX's outside `jax.jit` is a program for each shape;
- compiles what it checks once, value and gradient and tangent together, and cases that
  differ in data alone share that program (`functools.cache` around what makes it);
- asks `jax.eval_shape` where only shapes and dtypes count.

Without optimisation a value that a program computes twice need not come out as the same
bits. Where equality decides, as in the gradient of a maximum, parts are compiled apart.
"""

import contextlib
import ctypes
import gc
import os
import pathlib
import resource
import subprocess
import sys

# Read when the libraries start; threads of several workers would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PJRT_NPROC", "2")
# Only with a limit does JAX lock a compilation cache, and nobody reads what is half
# written. Set before anything may open the one that JAX_COMPILATION_CACHE_DIR names.
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**33))

import jax
import pytest

from dib_jax.training import compilation

# The older way from a fusion to machine code, in half the time. What the compiler says
# of a network's memory and work is the same, of small programs within 2 %.
QUICK_FLAG = "--xla_cpu_use_fusion_emitters=false"

# Above so many bytes a worker lets go of its programs, if it has any worth it.
ALLOWED = 600 * 2**20
WORTH_IT = 120 * 2**20


def pytest_configure(config):
    """Workers and processes that tests start inherit the flag."""
    if hasattr(config, "workerinput"):
        return
    config.pluginmanager.register(Peaks())
    flags = os.environ.get("XLA_FLAGS", "")
    if QUICK_FLAG in flags:
        return
    flags = f"{flags} {QUICK_FLAG}".strip()
    # XLA ends the process at a flag that it does not know, as a later one may not.
    known = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        check=False,
    )
    if known.returncode == 0:
        os.environ["XLA_FLAGS"] = flags


@pytest.fixture(scope="session", autouse=True)
def quick_compilation(tmp_path_factory):
    """A compilation cache for this session, also for the processes it starts.

    One that JAX_COMPILATION_CACHE_DIR names is used, so several sessions can share it.
    Machine code is not optimised: these programs are small. What the compiler says of
    memory and work is as it would be.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each has a folder of its own in this one
        folder = folder.parent
    settings = {
        "jax_compilation_cache_dir": os.environ.get(
            "JAX_COMPILATION_CACHE_DIR", str(folder / "xla")
        ),
        # With a limit JAX looks at all entries for each new one, 20 ms at 400: few are
        # worth it.
        "jax_persistent_cache_min_compile_time_secs": 0.3,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(name, value)
            patch.setitem(os.environ, name.upper(), str(value))
        yield


figures_beside = compilation.figures_beside


@contextlib.contextmanager
def no_figures(*given):
    """In place of a step that is compiled for the compiler's figures alone.

    The epoch holds the same step, so a run would compile everything twice. Modules that
    test the figures say `FIGURES = True`; processes that tests start have them, too.
    """
    yield lambda: {"temp_bytes": 3_000_000, "peak_bytes": 3_000_000, "flops": 10**6}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    real = getattr(item.module, "FIGURES", False)
    compilation.figures_beside = figures_beside if real else no_figures


class Memory:
    """Lets go of compiled programs where this process has become too large.

    Not after every module: what the next one shares would be compiled again.
    """

    statm = pathlib.Path("/proc/self/statm")

    def __init__(self):
        self.least = 0

    def resident(self):
        """Bytes; elsewhere than on Linux as if always at the limit."""
        if not self.statm.exists():
            return ALLOWED + WORTH_IT
        return int(self.statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def release(self):
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":
            # malloc holds on to what is freed. A C library without it is left alone.
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim:
                trim(0)
        self.least = self.resident()


memory = Memory()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    between = nextitem is None or nextitem.path != item.path
    if memory.statm.exists():
        if memory.resident() > max(ALLOWED, memory.least + WORTH_IT):
            memory.release()
    elif between:
        memory.release()


def peak():
    """The most memory that this process has had, in GiB."""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = peak()


class Peaks:
    """Says how large the workers became; their limit is 1.2 GiB each."""

    def __init__(self):
        self.found = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        self.found.append(getattr(node, "workeroutput", {}).get("peak", 0.0))

    def pytest_terminal_summary(self, terminalreporter):
        numbers = ", ".join(f"{number:.2f}" for number in self.found or [peak()])
        terminalreporter.write_line(f"peak memory: {numbers} GiB")
