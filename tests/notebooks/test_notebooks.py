"""The notebooks: as they are stored, and executed in quick mode without a network."""

import json
import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# What a system's own folders are called; devices are no files of anybody's.
ABSOLUTE = re.compile(r"""["'(=\s](/(?!dev/)[a-z]+/\w|[A-Z]:\\)""")


def cells(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    return content["cells"]


def source(cell):
    return "".join(cell["source"])


def test_the_readme_names_every_notebook():
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 5
    assert [path.name for path in NOTEBOOKS if path.name not in readme] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_small_and_with_what_it_puts_out(path):
    assert path.stat().st_size < 200_000
    counts, outputs = [], []
    for cell in cells(path):
        assert not cell["metadata"]
        assert ABSOLUTE.search(source(cell)) is None
        if cell["cell_type"] == "code":
            counts.append(cell["execution_count"])
            outputs += cell["outputs"]
    # Once from top to bottom, and to the end.
    assert counts == list(range(1, len(counts) + 1))
    assert "error" not in {out["output_type"] for out in outputs}
    assert any("image/png" in out.get("data", {}) for out in outputs)
    said = "".join(text for out in outputs for text in out.get("text", ()))
    assert "In its place" not in said  # with the data set that it is about
    assert ABSOLUTE.findall(said) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cells_open_it_on_colab_install_and_ask(path):
    badge, install, settings = map(source, cells(path)[:3])
    assert install == source(cells(NOTEBOOKS[0])[1])
    assert 'if importlib.util.find_spec("dib_jax") is None:' in install
    assert "git clone" in install
    assert "{repository}" in install
    assert "%pip install" in install
    # What the badge opens is the repository that the next cell takes.
    name = re.search(r'repository = "https://github.com/(\S+)\.git"', install)[1]
    place = f"github/{name}/blob/main/notebooks/{path.name}"
    assert f"(https://colab.research.google.com/{place})" in badge
    values = {}
    exec(settings, values)
    assert values["quick"] is True
    assert values["data_dir"] == ""


@pytest.mark.once
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # A kernel that finds a backend chosen keeps it and shows no figures.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    # Downloads fail at once, whether there is a network or not.
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert any("image/png" in out.get("data", {}) for out in outputs)
    said = "".join(out.get("text", "") for out in outputs)
    falls_back = any("except ConnectionError" in cell.source for cell in notebook.cells)
    assert ("In its place" in said) == falls_back
