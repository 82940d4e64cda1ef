import pathlib

import pytest
from finished_run import Trained, make_trained, make_workdir

from dib_jax.analysis.figures import Rendered
from dib_jax.tasks.exhibits import Drawing


@pytest.fixture(scope="session")
def trained() -> Trained:
    return make_trained()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made up: what a page says besides them is the same."""

    def render(drawing: Drawing) -> Rendered:
        page = ("image/png", b"wide", b"narrow")
        return Rendered(drawing, b"png", None, page, 8.3, None)

    monkeypatch.setattr("dib_jax.analysis.figures.render", render)


@pytest.fixture
def workdir(tmp_path: pathlib.Path) -> pathlib.Path:
    return make_workdir(tmp_path / "greedy")
