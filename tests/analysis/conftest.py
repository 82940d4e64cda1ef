import pathlib

import pytest
from finished_run import make_predictions, make_workdir

from dib_jax.analysis.report import Predictions


@pytest.fixture(scope="session")
def predictions() -> Predictions:
    return make_predictions()


@pytest.fixture
def workdir(tmp_path: pathlib.Path) -> pathlib.Path:
    return make_workdir(tmp_path / "greedy")
