"""Graphs by the commands, from a file to the report."""

import numpy as np
import pytest

from dib_jax.commands import evaluate, run
from dib_jax.training.workdir import read_results

pytestmark = pytest.mark.once


def written(folder):
    """Three groups of nodes; edges and features tell them apart."""
    draw, labels = np.random.default_rng(0), np.arange(60) % 3
    ends = draw.integers(60, size=(400, 2))
    within = (labels[ends[:, 0]] == labels[ends[:, 1]]) & (ends[:, 0] != ends[:, 1])
    folder.mkdir(parents=True)
    np.savez(
        folder / "graph.npz",
        edges=ends[within],
        features=draw.normal(size=(60, 5)) + labels[:, None],
        labels=labels,
        train=np.arange(30),
        val=np.arange(30, 45),
        test=np.arange(45, 60),
    )


def test_a_graph_is_trained_evaluated_and_reported(tmp_path):
    written(tmp_path / "data" / "groups")
    words = [
        "--config=configs/cora_lgcn.py:quick",
        "--config.dataset.name=groups",
        f"--config.dataset.data_dir={tmp_path / 'data'}",
        "--config.model.widths=6,6",
        "--config.optimizer.learning_rate=0.05",
        "--config.batch_size=10",
        f"--workdir={tmp_path / 'run'}",
    ]
    run.main(words)
    results = read_results(tmp_path / "run")
    assert results["test"]["accuracy"] > 0.8
    page = (tmp_path / "run" / "report.html").read_text()
    assert "How alike nodes are" in page or "cosine" in page
    with pytest.raises(ValueError, match=r"exits: 'lgcn' gives no exit\(s\) to leave"):
        evaluate.main([f"--workdir={tmp_path / 'run'}", "--exits"])
