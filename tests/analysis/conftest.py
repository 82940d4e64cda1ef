import pathlib

import pytest
from finished_run import Trained, make_trained, make_workdir


@pytest.fixture(scope="session")
def trained() -> Trained:
    return make_trained()


@pytest.fixture
def workdir(tmp_path: pathlib.Path) -> pathlib.Path:
    return make_workdir(tmp_path / "greedy")
