"""Numbers about exits: calibration, gains at equal work, work of a training."""

import json

import numpy as np
import pytest

from dib_jax.analysis import exits
from dib_jax.analysis.runs import find_beside


def test_the_calibration_error_is_how_far_sureness_is_from_what_is_right():
    right = np.arange(100) % 5 > 0  # 80 %
    assert exits.calibration_error(np.full(100, 0.8), right)[0] == pytest.approx(0)
    error, bins = exits.calibration_error(np.full(100, 0.95), right)
    assert error == pytest.approx(0.15)
    assert bins == [[pytest.approx(0.95), pytest.approx(0.8), 1.0]]
    # Half too sure by 0.1, half by too little of 0.3: each bin counts by its size.
    sure = np.where(np.arange(100) < 50, 0.9, 0.5)
    assert exits.calibration_error(sure, right)[0] == pytest.approx(0.2)
    assert exits.calibration_error(np.ones(3), np.ones(3, bool))[0] == 0
    with pytest.raises(ValueError, match="got NaN for 1 of 2 samples"):
        exits.calibration_error(np.array([0.9, np.nan]), np.ones(2, bool))


def test_the_gain_of_commitment_is_taken_at_equal_work():
    def line(shift, scale=1):
        return [
            {"flops": scale * f, "accuracy": 0.5 + 0.1 * f + shift} for f in (1, 2, 4)
        ]

    curves = {"commitment": line(0.02), "confidence": line(0)}
    gain = exits._gain(curves, 1.7)
    assert gain == {"at": pytest.approx(0.02), "mean": pytest.approx(0.02)}
    # Further along one and the same line there is no gain.
    more = {"commitment": line(0)[1:], "confidence": line(0)}
    assert exits._gain(more, 2.5)["mean"] == pytest.approx(0)
    assert exits._gain({"confidence": line(0)}, 2) is None


def test_a_run_beside_is_one_that_differs_in_its_algorithm_alone(tmp_path):
    def run(name, algorithm, unused=(), **changes):
        folder = tmp_path / name
        folder.mkdir()
        config = {"seed": 0, "objective": {"name": "a"}, **changes}
        config["algorithm"] = {"name": algorithm}
        results = {"metric": "accuracy", "test": {"accuracy": 1}, "stages": [{}]}
        results |= {"algorithm": algorithm, "unused": list(unused)}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    ours = run("ours", "cascade")
    run("a", "sequential", seed=1)
    run("b", "sequential", objective={"name": "b"})
    run("c", "parallel")
    assert find_beside(ours, "sequential") is None
    run("d", "sequential")
    assert find_beside(ours, "sequential").workdir.name == "d"
    run("e", "plain", objective={"name": "b"}, unused=["objective"])
    assert find_beside(ours, "plain").workdir.name == "e"
