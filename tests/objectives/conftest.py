import example_signals
import pytest


@pytest.fixture
def make_signals():
    """Signals of 20 samples in 4 classes, any of them replaced."""
    return example_signals.signals
