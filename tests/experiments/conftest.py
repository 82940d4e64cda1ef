"""One finished run for all tests that need no run of their own."""

import pathlib

import pytest

from dib_jax.commands import run
from dib_jax.commands.command_line import load_config

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits_cnn.py"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a tiny run with probes and a report; to be left as it is."""
    config = load_config(f"{CONFIG}:quick").config
    config.model = dict(name="mlp", widths=(8, 6), batch_norm=True)
    config.algorithm = dict(name="end_to_end")
    config.epochs, config.analysis.samples = 1, 32
    workdir = tmp_path_factory.mktemp("finished") / "run"
    command = "python -m experiments.run --config=elsewhere/mine.py"
    run.run(config, workdir, config_name="digits_cnn", command=command)
    return workdir
