"""Programs are compiled once and quickly: most tests spend their time on that."""

import os

# Read when NumPy is loaded; the workers' threads would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest


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
        # Only with a limit does JAX lock it, and nobody reads what is half written.
        "jax_compilation_cache_max_size": 2**33,
        "jax_persistent_cache_min_compile_time_secs": 0.3,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(name, value)
            patch.setitem(os.environ, name.upper(), str(value))
        yield
