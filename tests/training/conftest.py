"""Finished runs of three ways to train, which many tests compare others with."""

import contextlib

import pytest
from tiny_runs import experiment_of

from dib_jax.training import evaluation
from dib_jax.training.train import train

# The same bits need the same batches: these are smaller than a split, so that samples
# on the host are predicted in several.
EVALUATED = 50


@contextlib.contextmanager
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_BATCH", EVALUATED)
        yield


@pytest.fixture(scope="module", autouse=True)
def small_evaluation():
    """Not for longer: tests elsewhere compare with what ran before these."""
    with small_batches():
        yield


def finished(name, folders):
    workdir = folders.mktemp(name) / "first"
    with small_batches():
        return workdir, train(experiment_of(algorithm={"name": name}), workdir)


@pytest.fixture(scope="session")
def in_turn(tmp_path_factory):
    """Workdir and result of stages one after the other."""
    return finished("sequential", tmp_path_factory)


@pytest.fixture(scope="session")
def at_once(tmp_path_factory):
    """Workdir and result of stages that train at once."""
    return finished("parallel", tmp_path_factory)


@pytest.fixture(scope="session")
def end_to_end(tmp_path_factory):
    """Workdir and result of back-propagation."""
    return finished("end_to_end", tmp_path_factory)
