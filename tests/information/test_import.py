"""What importing the package does: nothing."""

import os
import subprocess
import sys


def test_import_needs_no_backend_and_only_jax():
    code = """
import sys
import dib_jax.information
heavy = {"flax", "optax", "orbax", "tensorflow_datasets", "ml_collections", "sklearn"}
print(sorted(heavy & set(sys.modules)))
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_backend"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split("\n")[:2] == ["[]", "False"]
