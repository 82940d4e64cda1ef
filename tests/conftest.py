"""Programs are compiled once and quickly: most tests spend their time on that."""

import os

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_compilation(tmp_path_factory):
    """A compilation cache for this session, also for the processes it starts.

    Machine code is not optimised: these programs are small. What the compiler says of
    memory and work is as it would be.
    """
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0.3,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(name, value)
            patch.setitem(os.environ, name.upper(), str(value))
        yield
