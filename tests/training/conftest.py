"""Finished runs of three ways to train, which many tests compare others with."""

import pytest
from tiny_runs import experiment_of

from dib_jax.training import evaluation
from dib_jax.training.train import train

# The same bits need the same batches: these are smaller than a split, so that samples
# on the host are predicted in several.
EVALUATED = 50


@pytest.fixture(scope="session", autouse=True)
def small_evaluation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_BATCH", EVALUATED)
        yield


def finished(name, folders):
    workdir = folders.mktemp(name) / "first"
    return workdir, train(experiment_of(algorithm={"name": name}), workdir)


@pytest.fixture(scope="session")
def in_turn(small_evaluation, tmp_path_factory):
    """Workdir and result of stages one after the other."""
    return finished("sequential", tmp_path_factory)


@pytest.fixture(scope="session")
def at_once(small_evaluation, tmp_path_factory):
    """Workdir and result of stages that train at once."""
    return finished("parallel", tmp_path_factory)


@pytest.fixture(scope="session")
def end_to_end(small_evaluation, tmp_path_factory):
    """Workdir and result of back-propagation."""
    return finished("end_to_end", tmp_path_factory)
