"""What every algorithm gets and gives: batches, whole splits, epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.algorithms import Batch, Data, Phase, in_batches, per_phase

pytestmark = pytest.mark.once

COUNT = 35


def prepare(samples, common):
    return Batch(samples["x"] * common["scale"], samples["label"], common=common)


@pytest.fixture
def data():
    draw = np.random.default_rng(0)
    samples = {
        "x": jnp.asarray(draw.normal(size=(COUNT, 2, 3)), jnp.float32),
        "label": jnp.arange(COUNT) % 3,
    }
    return Data(samples, {"scale": jnp.float32(2)}, prepare)


def test_a_whole_split_is_taken_by_rows_and_prepared_as_one_batch(data):
    assert len(data) == COUNT
    some = data.take(np.array([4, 1, 1]))
    assert len(some) == 3
    assert some.samples["label"].tolist() == [1, 1, 1]
    assert len(data.take(slice(2, 7))) == 5
    batch = data.batch()
    np.testing.assert_array_equal(batch.inputs, 2 * data.samples["x"])
    np.testing.assert_array_equal(batch.targets, data.samples["label"])
    assert batch.given is None
    assert batch.common["scale"] == 2
    # It passes a compiled program: what prepares it is static.
    again = jax.jit(lambda data: data.take(slice(3)))(data)
    np.testing.assert_array_equal(again.batch().inputs, batch.inputs[:3])


@pytest.mark.parametrize("size", [1, 8, COUNT, 500])
def test_results_of_a_split_do_not_depend_on_the_batch_size(data, size):
    given = {"more": jnp.arange(COUNT, dtype=jnp.float32)}
    sizes = []

    def function(batch):
        sizes.append(len(batch.inputs))
        sums = batch.inputs.sum(axis=(1, 2)) + batch.given["more"]
        return sums, {"pairs": jnp.stack([sums, batch.targets], axis=1)}

    sums, rest = in_batches(function, data, given=given, size=size)
    want = 2 * data.samples["x"].sum(axis=(1, 2)) + given["more"]
    np.testing.assert_allclose(sums, want, rtol=1e-5)
    assert rest["pairs"].shape == (COUNT, 2)
    np.testing.assert_array_equal(rest["pairs"][:, 1], data.samples["label"])
    assert set(sizes) == {min(size, COUNT)}


@pytest.mark.parametrize("count", [3, 35])
def test_samples_on_the_host_are_read_some_batches_at_a_time(data, count):
    rows = data.take(slice(count))
    host = rows.replace(samples=jax.device_get(rows.samples))
    seen = []

    def function(batch):
        seen.append(batch.inputs)
        return {"sum": batch.inputs.sum(axis=(1, 2)), "label": batch.targets}

    given = in_batches(function, rows, size=2)
    found = in_batches(function, host, size=2)  # two times eight batches, and two
    assert all(isinstance(x, np.ndarray) for x in found.values())
    for name, want in given.items():
        np.testing.assert_array_equal(found[name], want)


def test_epochs_are_one_number_or_one_for_each_phase():
    assert per_phase(3, 2) == (3, 3)
    assert per_phase((1, 2), 2) == (1, 2)
    with pytest.raises(
        ValueError, match=r"epochs: got \(1, 2\), 2 numbers for 3 phases"
    ):
        per_phase((1, 2), 3)


def test_a_phase_says_nothing_of_its_terms_unless_it_is_told_to():
    functions = [lambda *arguments: None] * 3
    phase = Phase(*functions, epochs=1)
    assert phase.notices({"loss": 0.0}) == {}
    assert (phase.exits, phase.trains, phase.predicts) == ((0,), None, True)
