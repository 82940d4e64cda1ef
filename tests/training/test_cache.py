"""The frozen stages' output: the same bits wherever it is kept."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dib_jax.training.cache import keep
from dib_jax.training.steps import (
    TRUNK_OUTPUT,
    Block,
    apply_frozen,
    epoch_rows,
    frozen,
    initial_state,
    train_step,
)

from dib_jax.data.augment import augment
from dib_jax.models.heads.linear import linear
from dib_jax.models.mlp import mlp
from dib_jax.objectives.dib import dib
from dib_jax.tasks.classification import classification
from dib_jax.training import cache, compilation
from dib_jax.training.compilation import compile_epoch
from dib_jax.training.devices import mesh_of

pytestmark = pytest.mark.once

STAGES = mlp(widths=(6, 5, 4))
COUNT = 35
KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def data():
    key = jax.random.key(0)
    return {
        "images": jax.random.randint(key, (COUNT, 4, 4, 1), 0, 256).astype(jnp.uint8),
        "labels": jax.random.randint(jax.random.key(1), (COUNT,), 0, 3),
    }


def block_at(stage, spec=""):
    return Block(
        trunk=STAGES[:stage],
        stages=STAGES[stage : stage + 1],
        head=linear(num_outputs=3),
        stage=stage,
        task=classification(num_classes=3),
        objective=dib(alpha=2.0, beta=0.1, every=1),
        optimizer=optax.sgd(0.1, momentum=0.9),
        prepare=jax.tree_util.Partial(lambda images: images.astype(jnp.float32) / 255),
        augment=augment(spec) if spec else None,
        compute_dtype=jnp.float32,
        batch_size=8,
    )


def states_and_trunk(data):
    states = [
        jax.jit(functools.partial(initial_state, block_at(stage)))(
            jax.random.key(stage), data["images"]
        )
        for stage in range(3)
    ]
    return states[2], frozen(states[0])[0] + frozen(states[1])[0]


def kept_at(choice, data, folder, *, copies=0, spec="", stage=2, previous=None):
    _, trunk = states_and_trunk(data)
    return keep(
        block_at(stage, spec),
        trunk[:stage],
        data,
        previous=previous,
        choice=choice,
        copies=copies,
        folder=folder / "cache",
        key=KEY,
        mesh=mesh_of(jax.devices()[:1]),
    )


def two_epochs(kept, data, spec=""):
    state, trunk = states_and_trunk(data)
    run, figures, _ = compile_epoch(
        (block_at(2, spec),),
        (state,),
        trunk,
        kept,
        (KEY,),
        mesh_of(jax.devices()[:1]),
    )
    states, _ = run((state,), trunk, kept, (KEY,))
    states, terms = run(states, trunk, kept, (KEY,))
    return states, terms, figures


@pytest.mark.parametrize("chunk", [2**26, 200])
@pytest.mark.parametrize(("copies", "spec"), [(0, ""), (2, "flip")])
def test_steps_have_the_same_bits_wherever_the_output_is_kept(
    data, tmp_path, monkeypatch, copies, spec, chunk
):
    monkeypatch.setattr(compilation, "_CHUNK_BYTES", chunk)
    on_host = {name: np.asarray(leaf) for name, leaf in data.items()}
    places = ("device", "host", "file") if copies else ("none", *cache.PLACES)
    kept = [
        kept_at(place, split, tmp_path, copies=copies, spec=spec)
        for place in places
        for split in (data, on_host)
    ]
    assert [bool(k.streamed) for k in kept[-4:]] == [True] * 4
    assert not kept[-6].streamed
    assert kept[-5].streamed.keys() == (set() if copies else data.keys())
    results = [two_epochs(k, data, spec) for k in kept]
    for other in results[1:]:
        chex.assert_trees_all_equal(other[:2], results[0][:2])
    assert len(results[0][1][0]["loss"]) == COUNT // 8
    if not copies:  # the trunk is not in the step any more
        assert results[2][2]["flops"] < results[0][2]["flops"]


def test_what_is_kept_is_the_trunks_output_for_the_pictures_beside_it(data, tmp_path):
    _, trunk = states_and_trunk(data)
    plain = kept_at("device", data, tmp_path)
    assert plain.data["images"] is data["images"]
    copied = kept_at("file", data, tmp_path, copies=3, spec="flip")
    assert (plain.copies, copied.copies) == (1, 3)
    for arrays in (plain.data, copied.streamed):
        x = jnp.asarray(arrays["images"]).astype(jnp.float32) / 255
        want = apply_frozen(STAGES[:2], trunk, x)[-1]
        np.testing.assert_allclose(arrays[TRUNK_OUTPUT], want, atol=1e-6)
    images = np.asarray(copied.streamed["images"]).reshape(3, COUNT, 4, 4, 1)
    assert (images[0] != images[1]).any()
    assert (images[1] != images[2]).any()
    flipped = [(one == data["images"]).all(axis=(1, 2, 3)) for one in images]
    backwards = [(one == data["images"][:, :, ::-1]).all((1, 2, 3)) for one in images]
    assert (np.asarray(flipped) | np.asarray(backwards)).all()


@pytest.mark.parametrize("place", cache.PLACES)
def test_from_the_output_kept_before_comes_the_same_and_that_is_given_up(
    data, tmp_path, place
):
    want = kept_at("device", data, tmp_path / "at_once")
    first = kept_at(place, data, tmp_path, stage=1)
    assert (first.place, first.stages) == (place, 1)
    pictures = {**data, "images": data["images"] * 0}  # not looked at
    then = kept_at(place, pictures, tmp_path, previous=first)
    assert then.stages == 2
    assert then.line.endswith(", made from that of the first 1")
    np.testing.assert_array_equal(then.arrays[TRUNK_OUTPUT], want.data[TRUNK_OUTPUT])
    assert TRUNK_OUTPUT not in first.arrays
    files = [path.relative_to(tmp_path).parts for path in tmp_path.rglob("*output")]
    assert files == ([("cache", "2", TRUNK_OUTPUT)] if place == "file" else [])


def test_where_there_is_no_room_for_both_the_output_kept_before_goes_first(
    data, tmp_path, monkeypatch
):
    want = kept_at("device", data, tmp_path)
    first = kept_at("device", data, tmp_path, stage=1)
    size = want.data[TRUNK_OUTPUT].nbytes
    monkeypatch.setattr(
        cache, "_room", lambda folder: dict.fromkeys(cache.PLACES, size)
    )
    then = kept_at("auto", data, tmp_path, previous=first)
    assert (then.place, then.stages) == ("device", 2)
    assert "made from" not in then.line
    assert first.arrays == {}
    np.testing.assert_array_equal(then.data[TRUNK_OUTPUT], want.data[TRUNK_OUTPUT])


def test_augmented_copies_are_drawn_anew_for_every_block(data, tmp_path):
    options = {"copies": 2, "spec": "flip"}
    want = kept_at("device", data, tmp_path, **options)
    first = kept_at("device", data, tmp_path, stage=1, **options)
    then = kept_at("device", data, tmp_path, previous=first, **options)
    chex.assert_trees_all_equal(then.data, want.data)
    assert first.arrays == {}


def test_an_empty_split_has_nothing_to_keep(data, tmp_path):
    empty = {name: leaf[:0] for name, leaf in data.items()}
    assert kept_at("device", empty, tmp_path).stages == 0


def test_epochs_take_the_copies_in_turn(data):
    block = block_at(2)
    rows = [epoch_rows(block, KEY, 4 * e, samples=COUNT, copies=3) for e in range(4)]
    for epoch, own in enumerate(rows):
        assert own.shape == (4, 8)
        assert set(np.unique(own // COUNT)) == {epoch % 3}
    alone = epoch_rows(block, KEY, 4, samples=COUNT)
    np.testing.assert_array_equal(rows[1] % COUNT, alone)


def test_a_step_neither_augments_nor_runs_the_trunk_where_its_output_is_given(data):
    state, _ = states_and_trunk(data)
    batch = {name: leaf[:8] for name, leaf in data.items()}
    batch[TRUNK_OUTPUT] = jnp.ones((8, 5))

    def must_not_run(key, batch):
        raise AssertionError

    block = block_at(2)._replace(augment=must_not_run)
    train_step((block,), (state,), (), batch, keys=(KEY,))


@pytest.mark.parametrize(
    ("room", "place"),
    [
        ((10**9, 10**9, 10**9), "device"),
        ((10, 10**9, 10**9), "host"),
        ((10, 10, 10**9), "file"),
        ((10, 10, 10), None),
    ],
)
def test_auto_takes_the_first_place_with_room_and_says_so(
    data, tmp_path, monkeypatch, room, place
):
    free = dict(zip(cache.PLACES, room, strict=True))
    monkeypatch.setattr(cache, "_room", lambda folder: free)
    kept = kept_at("auto", data, tmp_path)
    assert kept.line.startswith("stage 2: the output of the stages before it is ")
    if place is None:
        assert "computed at every step: 0.0 MiB are too many" in kept.line
        assert TRUNK_OUTPUT not in kept.data
    else:
        assert f"cached, place: {place}, 0.0 MiB" in kept.line
        assert (TRUNK_OUTPUT in kept.data) is (place == "device")
    assert (tmp_path / "cache").exists() is (place == "file")
    assert "\n" not in kept.line


@pytest.mark.parametrize(
    ("choice", "spec", "why"),
    [
        ("none", "", "computed at every step, as schedule.cache says"),
        ("auto", "flip", "computed at every step, for augmentation changes it"),
    ],
)
def test_what_is_not_to_be_kept_is_not(data, tmp_path, choice, spec, why):
    kept = kept_at(choice, data, tmp_path, spec=spec)
    assert kept.data == data
    assert kept.streamed == {}
    assert re.search(why, kept.line)


def test_without_a_trunk_there_is_nothing_to_keep(data, tmp_path):
    kept = keep(
        block_at(0),
        (),
        data,
        choice="auto",
        copies=2,
        folder=tmp_path,
        key=KEY,
        mesh=mesh_of(jax.devices()[:1]),
    )
    assert (kept.data, kept.streamed, kept.line) == (data, {}, "")


def test_every_place_has_some_room_here(tmp_path):
    assert set(cache._room(tmp_path)) == set(cache.PLACES)
    assert min(cache._room(tmp_path).values()) > 2**20
