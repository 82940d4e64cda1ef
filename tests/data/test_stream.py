import numpy as np
import pytest

from dib_jax.data.stream import stream


@pytest.fixture
def split():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (103, 5, 4, 3), np.uint8)
    return {"images": images, "labels": np.arange(103, dtype=np.int32)}


@pytest.fixture
def order():
    return np.random.default_rng(1).permutation(103)[:100].reshape(20, 5)


def test_the_order_is_kept_and_every_chunk_but_the_last_is_whole(split, order):
    chunks = list(stream(split, order, steps=6))
    assert [len(chunk["labels"]) for chunk in chunks] == [6, 6, 6, 2]
    np.testing.assert_array_equal(
        np.concatenate([chunk["labels"] for chunk in chunks]), order
    )
    for chunk in chunks:
        np.testing.assert_array_equal(chunk["images"], split["images"][chunk["labels"]])
        assert chunk["images"].dtype == np.uint8


def test_it_goes_on_where_it_stood(split, order):
    first = stream(split, order, steps=3)
    for _ in range(4):
        next(first)
    position = first.get_state()
    again = stream(split, order, steps=3)
    again.set_state(position)
    rest = [chunk["labels"] for chunk in again]
    np.testing.assert_array_equal(np.concatenate(rest), order[12:])
    np.testing.assert_array_equal(
        np.concatenate([chunk["labels"] for chunk in first]), order[12:]
    )
