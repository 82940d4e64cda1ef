"""What is recorded of an epoch."""

import hashlib
import json

import numpy as np
import pytest

from dib_jax.objectives import Occasional
from dib_jax.training.records import NonFiniteError, Record, means


def test_a_term_that_is_measured_now_and_then_is_averaged_where_it_was():
    measured = np.array([True, False, False, True])
    terms = {
        "loss": np.array([4.0, 1.0, 1.0, 2.0]),
        "entropy": Occasional(np.array([3.0, 0.0, 0.0, 1.0]), measured),
        "never": Occasional(np.zeros(4), np.zeros(4, bool)),
    }
    assert means(terms, number=0, epoch=1) == {"loss": 2.0, "entropy": 2.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_named(bad):
    terms = {
        "loss": np.array([1.0, 2.0, bad, bad]),
        "entropy": Occasional(np.array([3.0, bad, 0.0, 1.0]), np.zeros(4, bool)),
    }
    message = f"stage 2, epoch 5, step 2 of the epoch: entropy is {bad}; the last"
    with pytest.raises(NonFiniteError, match=message):
        means(terms, number=2, epoch=5)


def test_a_line_for_each_exit_and_split_and_whoever_watches_sees_it(tmp_path):
    path, seen = tmp_path / "metrics.jsonl", []
    path.write_text('{"earlier": 1}\n')
    splits = {"train": {"loss": 1.5}, "validation": {"accuracy": 0.5}}
    metrics = {0: splits, 3: {"train": {"loss": 2.0}}}
    with Record(path, seen.append) as record:
        record.write(metrics, epoch=2, step=18, seconds=0.123456)
    first, *lines = map(json.loads, path.read_text().splitlines())
    assert first == {"earlier": 1}
    assert record.size == path.stat().st_size
    assert record.digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert seen == lines
    same = {"epoch": 2, "step": 18}
    assert lines == [
        {"stage": 0, **same, "split": "train", "loss": 1.5, "seconds": 0.1235},
        {"stage": 0, **same, "split": "validation", "accuracy": 0.5, "seconds": 0.1235},
        {"stage": 3, **same, "split": "train", "loss": 2.0, "seconds": 0.1235},
    ]
