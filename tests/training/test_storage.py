"""What frozen parts make of samples: the same bits wherever it is stored."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import CLASSES, experiment, layer, vectors

from dib_jax.algorithms import Batch
from dib_jax.training import compilation, storage
from dib_jax.training.compilation import compile_epoch
from dib_jax.training.experiment import Cache
from dib_jax.training.position import initial_state
from dib_jax.training.storage import PLACES, store

pytestmark = pytest.mark.once

FIGURES = True  # of the compiler, for one step
COUNT = 35
KEY = jax.random.key(4)
PHASES = (layer(0), layer(1), layer(2))


def flipped(key, samples, times):
    """Half of the vectors with their sign changed."""
    x = samples["features"]
    signs = jnp.where(jax.random.bernoulli(key, 0.5, (len(x), 1)), 1.0, -1.0)
    return {**samples, "features": x * signs}


@pytest.fixture(scope="module")
def network():
    draw = np.random.default_rng(0)
    shapes = ((5, CLASSES), (CLASSES, CLASSES))
    return tuple(jnp.asarray(draw.normal(size=s), jnp.float32) for s in shapes)


def made(copies=0, phases=PHASES):
    return experiment(
        *phases,
        dataset=vectors(train=COUNT),
        augment=flipped if copies else None,
        cache=Cache("auto", copies=copies),
    )


def split_of(experiment, *, on_host=False):
    data = experiment.data(experiment.dataset.train)
    if on_host:
        return data
    return data.replace(samples=jax.tree.map(jnp.asarray, data.samples))


def stored_at(place, network, folder, *, copies=0, phase=2, data=None, **options):
    """The training split as a phase reads it."""
    options = {"augment": flipped if copies else None, **options}
    whole = made(copies, options.pop("phases", PHASES))
    return store(
        whole,
        phase,
        network[:phase],
        split_of(whole) if data is None else data,
        place=place,
        folder=folder / "cache",
        key=KEY,
        **options,
    )


def two_epochs(stored, network, copies):
    whole = made(copies)
    state = initial_state(whole, whole.phases[2], network)
    epoch = compile_epoch(whole, 2, state, network, stored)
    terms = []
    for made_before in (0, epoch.steps):
        state, recorded = epoch.run(state, network, stored, made_before)
        terms.append(recorded[2])
    return state, terms, epoch.figures


@pytest.mark.parametrize("chunk", [2**26, 200])
@pytest.mark.parametrize("copies", [0, 2])
def test_steps_have_the_same_bits_wherever_the_output_is_stored(
    network, tmp_path, monkeypatch, copies, chunk
):
    monkeypatch.setattr(compilation, "_CHUNK_BYTES", chunk)
    places = PLACES if copies else ("none", *PLACES)
    stored = [
        stored_at(
            place,
            network,
            tmp_path,
            copies=copies,
            data=split_of(made(copies), on_host=on_host),
        )
        for place in places
        for on_host in (False, True)
    ]
    # Of two samples' arrays and what they are given: how many come from the host.
    from_host = [len(one.on_host) for one in stored]
    of_files = 3 if copies else 1
    assert from_host[-4:] == [of_files, 3] * 2
    assert from_host[-6:-4] == [0, 0 if copies else 2]
    results = [two_epochs(one, network, copies) for one in stored]
    for other in results[1:]:
        chex.assert_trees_all_equal(other[:2], results[0][:2])
    assert len(results[0][1][0]["loss"]) == COUNT // 8
    if not copies:  # what is frozen is not in the step any more
        assert results[2][2]["flops"] < results[0][2]["flops"]


def passed(network, features):
    """What two frozen layers make of samples."""
    whole = made()
    x = whole.dataset.kind.prepare({"features": np.asarray(features)}, whole.common)
    for weights in network:
        x = np.tanh(x @ np.asarray(weights))
    return x


def test_what_is_stored_is_the_output_for_the_samples_beside_it(network, tmp_path):
    data = split_of(made())
    plain = stored_at("device", network, tmp_path, data=data)
    assert plain.samples["features"] is data.samples["features"]
    copied = stored_at("file", network, tmp_path, copies=3)
    assert (plain.copies, copied.copies) == (1, 3)
    assert (plain.length, copied.length) == (COUNT, COUNT)
    for stored in (plain, copied):
        want = passed(network, stored.samples["features"])
        np.testing.assert_allclose(stored.given, want, atol=1e-5)
    copies = np.asarray(copied.samples["features"]).reshape(3, COUNT, 5)
    assert (copies[0] != copies[1]).any()
    assert (copies[1] != copies[2]).any()
    before = np.asarray(data.samples["features"])
    for copy in copies:
        same, turned = (copy == before).all(1), (copy == -before).all(1)
        assert (same | turned).all()
        assert same.any()
        assert turned.any()


@pytest.mark.parametrize("place", PLACES)
def test_from_the_output_stored_before_comes_the_same_and_that_is_given_up(
    network, tmp_path, place
):
    want = stored_at("device", network, tmp_path / "at_once")
    first = stored_at(place, network, tmp_path, phase=1)
    assert (first.place, first.done) == (place, 2)
    data = split_of(made())
    data = data.replace(samples={**data.samples, "features": jnp.zeros((COUNT, 5))})
    then = stored_at(place, network, tmp_path, data=data, previous=first)
    assert then.done == 3
    assert then.line.endswith(", made from that of stage 1")
    np.testing.assert_array_equal(then.given, want.given)
    assert then.samples["features"] is data.samples["features"]
    assert first.leaves == {}
    files = [p.relative_to(tmp_path).parts for p in tmp_path.rglob("*") if p.is_file()]
    assert files == ([("cache", "3", "0")] if place == "file" else [])


def test_where_there_is_no_room_for_both_the_output_stored_before_goes_first(
    network, tmp_path, monkeypatch
):
    want = stored_at("device", network, tmp_path)
    first = stored_at("device", network, tmp_path, phase=1)
    size = want.given.nbytes
    monkeypatch.setattr(storage, "_room", lambda folder: dict.fromkeys(PLACES, size))
    then = stored_at("auto", network, tmp_path, previous=first)
    assert (then.place, then.done) == ("device", 3)
    assert "made from" not in then.line
    assert first.leaves == {}
    np.testing.assert_array_equal(then.given, want.given)


def test_augmented_copies_are_drawn_anew_for_every_phase(network, tmp_path):
    want = stored_at("device", network, tmp_path, copies=2)
    first = stored_at("device", network, tmp_path, copies=2, phase=1)
    then = stored_at("device", network, tmp_path, copies=2, previous=first)
    chex.assert_trees_all_equal(then.leaves, want.leaves)
    assert first.leaves == {}


def test_a_phase_without_frozen_parts_of_its_own_reads_what_the_one_before_did(
    network, tmp_path
):
    phases = (layer(0), layer(1), layer(2, given=None))
    first = stored_at("device", network, tmp_path, phase=1, phases=phases)
    given = first.given
    then = stored_at("device", network, tmp_path, phases=phases, previous=first)
    assert then.given is given
    assert then.line == ""
    # Where the run goes on with that phase, it is made again.
    again = stored_at("device", network, tmp_path, phases=phases)
    np.testing.assert_array_equal(again.given, given)


@pytest.mark.parametrize("entering", [1, 2])
def test_what_was_stored_of_selected_samples_is_for_no_other_phase(
    network, tmp_path, entering
):
    phases = [layer(0), layer(1), layer(2)]
    phases[entering] = layer(entering, enter=lambda network, data: data.take(slice(9)))
    want = stored_at("device", network, tmp_path)
    data = split_of(made())
    some, every = (data.take(slice(9)), data)[:: 1 if entering == 1 else -1]
    options = {"phases": phases}
    first = stored_at("device", network, tmp_path, phase=1, data=some, **options)
    then = stored_at("device", network, tmp_path, data=every, previous=first, **options)
    assert then.length == len(every)
    np.testing.assert_array_equal(then.given, want.given[: len(every)])
    assert first.leaves == {}


def test_an_empty_split_has_nothing_to_store(network, tmp_path):
    empty = split_of(made()).take(slice(0))
    stored = stored_at("device", network, tmp_path, data=empty)
    assert (stored.done, stored.length, stored.place) == (0, 0, "")


@pytest.mark.parametrize(
    ("room", "place"),
    [
        ((10**9, 10**9, 10**9), "device"),
        ((10, 10**9, 10**9), "host"),
        ((10, 10, 10**9), "file"),
        ((10, 10, 10), ""),
    ],
)
def test_auto_takes_the_first_place_with_room_and_says_so(
    network, tmp_path, monkeypatch, room, place
):
    free = dict(zip(PLACES, room, strict=True))
    monkeypatch.setattr(storage, "_room", lambda folder: free)
    stored = stored_at("auto", network, tmp_path)
    assert stored.place == place
    line = "stage 2: the output of what is frozen before it is "
    assert stored.line.startswith(line)
    if place:
        assert f"cached, place: {place}, 0.0 MiB" in stored.line
        assert isinstance(stored.given, jax.Array) is (place == "device")
        assert isinstance(stored.given, np.memmap) is (place == "file")
    else:
        assert "computed at every step: 0.0 MiB are too many" in stored.line
        assert stored.given is None
    assert (tmp_path / "cache").exists() is (place == "file")
    assert "\n" not in stored.line


def test_copies_without_room_are_refused_for_training_without_them_is_another(
    network, tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "_room", lambda folder: dict.fromkeys(PLACES, 10))
    message = (
        r"^cache\.copies: got 2, but their 0\.0 MiB are too many \(free: device 0\.0 "
        r"MiB, host .*, file .*; auto takes half\); make room, or set "
        r"cache\.place=file or cache\.copies=0$"
    )
    with pytest.raises(ValueError, match=message):
        stored_at("auto", network, tmp_path, copies=2)
    assert stored_at("file", network, tmp_path, copies=2).copies == 2


@pytest.mark.parametrize(
    ("place", "augment", "why"),
    [
        ("none", None, "computed at every step, as cache.place says"),
        ("auto", flipped, "computed at every step, for augmentation changes it"),
    ],
)
def test_what_is_not_to_be_stored_is_not(network, tmp_path, place, augment, why):
    data = split_of(made())
    stored = stored_at(place, network, tmp_path, data=data, augment=augment)
    assert stored.samples == data.samples
    assert (stored.given, stored.place, stored.on_host) == (None, "", {})
    assert re.search(why, stored.line)


def test_where_nothing_is_frozen_there_is_nothing_to_store(tmp_path):
    data = split_of(made())
    stored = stored_at("auto", (), tmp_path, phase=0, data=data, augment=flipped)
    assert stored.samples == data.samples
    assert (stored.given, stored.line, stored.on_host) == (None, "", {})


def test_any_tree_of_arrays_can_be_given_and_stored(network, tmp_path):
    """As what is frozen makes of samples, it is an algorithm's own."""

    def given(network, batch):
        x = batch.inputs @ network[0]
        return {"features": x, "largest": x.argmax(axis=1)}

    phases = (layer(0), layer(1, given=given))
    data = split_of(made())
    for place in PLACES:
        stored = stored_at(place, network, tmp_path, phase=1, phases=phases, data=data)
        x = made().prepare_inputs(data.samples, made().common)
        assert isinstance(x, Batch)
        want = np.asarray(x.inputs @ network[0])
        np.testing.assert_allclose(stored.given["features"], want, atol=1e-5)
        np.testing.assert_array_equal(stored.given["largest"], want.argmax(axis=1))


def test_every_place_has_some_room_here(tmp_path):
    assert set(storage._room(tmp_path)) == set(PLACES)
    assert min(storage._room(tmp_path).values()) > 2**20
