"""A whole run with feedback weights."""

import chex
import pytest
from tiny_runs import experiment_of, lines, stop_at

from dib_jax.training.train import train
from dib_jax.training.workdir import read_results

pytestmark = pytest.mark.once

CONFIG = {
    "model": {
        "name": "mlp",
        "widths": (8, 6),
        "batch_norm": False,
        "feedback": "mirror",
    },
    "algorithm": {"name": "feedback", "every": 3},
}


def test_a_mirror_goes_on_to_the_same_bits_and_its_angles_are_recorded(tmp_path):
    whole = train(experiment_of(**CONFIG), tmp_path / "whole")
    stop_at(1, experiment_of(**CONFIG), tmp_path / "stopped")
    again = train(experiment_of(**CONFIG), tmp_path / "stopped")
    chex.assert_trees_all_equal(whole.network, again.network)
    angles = read_results(tmp_path / "whole")["angles"]
    assert angles == again.results["angles"]
    assert len(angles) == 2
    (first, _), (last, _) = (
        [row for row in lines(tmp_path / "whole") if row["epoch"] == epoch]
        for epoch in (1, 2)
    )
    for layer in ("stage1_Dense_0", "head"):
        assert first[f"{layer}_weight_angle"] > last[f"{layer}_weight_angle"] > 0
