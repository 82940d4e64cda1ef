import asyncio
import errno
import functools
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dib_jax import checkpoints
from dib_jax.checkpoints import CheckpointError, newest_sound, restore, save


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: optax.OptState
    name: str = flax.struct.field(pytree_node=False, default="stage")


class Pair(NamedTuple):
    first: jax.Array
    second: tuple


def make_tree(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "Dense_0": {"kernel": jax.random.normal(keys[0], (5, 4)), "bias": jnp.ones(4)},
        "scale": jax.random.normal(keys[1], (3,)).astype(jnp.bfloat16),
    }
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    pair = Pair(jnp.arange(3), (jnp.array(True), {"half": jnp.float16(0.1)}))
    state = State(jnp.int32(7), params, optimizer.init(params))
    return {"states": [state, state.replace(step=jnp.int32(8))], "pair": pair}


def assert_same_bits(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert jnp.result_type(a) == jnp.result_type(b)
        assert np.shape(a) == np.shape(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def test_dataclasses_named_tuples_and_optimizer_states_come_back_bit_for_bit(tmp_path):
    tree = make_tree()
    path = save(tmp_path, 12, tree, {"stage": 1})
    assert path == tmp_path / "00000012"
    for target in (tree, abstract(tree)):
        restored = restore(path, target)
        assert_same_bits(restored, tree)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
        assert isinstance(restored["pair"], Pair)


def test_not_a_number_and_signed_zero_keep_their_bits(tmp_path):
    odd = np.array([np.nan, -0.0, np.inf, 1e-42], np.float32)
    odd.view(np.uint32)[0] |= 0x1234  # a NaN with a payload
    assert_same_bits(restore(save(tmp_path, 0, {"x": odd}, {}), {"x": odd}), {"x": odd})


def test_numbers_empty_arrays_and_wide_dtypes_come_back(tmp_path):
    tree = {"step": 3, "rate": 0.5, "none": None, "empty": jnp.zeros((0, 4)), "t": ()}
    tree["wide"] = np.array([1 / 3], np.float64)
    restored = restore(save(tmp_path, 0, tree, {}), tree)
    assert (restored["step"], restored["rate"], restored["none"]) == (3, 0.5, None)
    assert restored["empty"].shape == (0, 4)
    assert restored["wide"].dtype == np.float64
    assert restored["wide"][0] == 1 / 3


def test_metadata_can_be_read_before_the_tree(tmp_path):
    metadata = {"stage": 2, "names": ["ä", "b"], "best": {"loss": 0.25}, "none": None}
    save(tmp_path, 3, make_tree(), metadata)
    path, found = newest_sound(tmp_path)
    assert (path.name, found) == ("00000003", metadata)


def test_without_checkpoints_there_is_none(tmp_path):
    assert newest_sound(tmp_path) is None
    assert newest_sound(tmp_path / "missing") is None


def test_the_newest_by_step_is_taken_and_the_oldest_go(tmp_path):
    for step in (1, 9, 10, 99999999, 100000000):
        save(tmp_path, step, {"x": jnp.full(2, step)}, {"step": step}, keep=3)
    assert sorted(os.listdir(tmp_path)) == ["00000010", "100000000", "99999999"]
    assert newest_sound(tmp_path)[1] == {"step": 100000000}


def test_the_checkpoint_just_written_is_kept_beside_later_damaged_ones(tmp_path):
    for step in (50, 60):
        path = save(tmp_path, step, {"x": jnp.ones(2)}, {})
        (path / "metadata.json").unlink()
    save(tmp_path, 40, {"x": jnp.ones(2)}, {}, keep=1)
    assert sorted(os.listdir(tmp_path)) == ["00000040", "00000050", "00000060"]
    assert newest_sound(tmp_path, report=lambda line: None)[0].name == "00000040"


def test_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 4, {"x": jnp.zeros(2)}, {"take": 1})
    save(tmp_path, 4, {"x": jnp.ones(3)}, {"take": 2})
    path, metadata = newest_sound(tmp_path)
    assert metadata == {"take": 2}
    assert_same_bits(restore(path, {"x": jnp.ones(3)}), {"x": jnp.ones(3)})
    assert os.listdir(tmp_path) == ["00000004"]


def test_a_moved_folder_restores(tmp_path):
    tree = make_tree()
    save(tmp_path / "old", 1, tree, {})
    shutil.move(tmp_path / "old", tmp_path / "new place")
    path, _ = newest_sound(tmp_path / "new place")
    assert_same_bits(restore(path, tree), tree)


def test_a_relative_folder_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("here", 1, {"x": jnp.ones(2)}, {})
    assert newest_sound("here")[0] == tmp_path / "here" / "00000001"
    assert_same_bits(restore("here/00000001", {"x": jnp.ones(2)}), {"x": jnp.ones(2)})


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x20  # in a text: another letter case
    file.write_bytes(content)


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for step in (1, 2):
        save(folder, step, make_tree(step), {"step": step})
    return folder


@pytest.mark.parametrize("damage", [flip_a_bit, cut, os.unlink])
def test_damage_to_any_file_is_told_and_the_checkpoint_before_used(
    two_checkpoints, tmp_path, damage
):
    folder = tmp_path / "run"
    shutil.copytree(two_checkpoints, folder)
    newest = folder / "00000002"
    files = [file for file in newest.rglob("*") if file.is_file()]
    assert len(files) > 8
    for file in files:
        whole = file.read_bytes()
        damage(file)
        lines = []
        path, metadata = newest_sound(folder, report=lines.append)
        file.write_bytes(whole)
        assert metadata == {"step": 1}
        (line,) = lines
        assert f"checkpoint {newest} is damaged" in line
        assert file.relative_to(newest).as_posix() in line
        assert "\n" not in line
    assert_same_bits(restore(path, make_tree(1)), make_tree(1))
    assert newest_sound(folder)[1] == {"step": 2}


def test_the_bits_of_the_digest_itself_count(tmp_path, monkeypatch):
    path = save(tmp_path, 1, {"x": jnp.ones(2)}, {})
    monkeypatch.setattr(checkpoints, "_sha256", functools.cache(checkpoints._sha256))
    digest = path / "digest.json"
    whole = digest.read_bytes()
    for position in range(0, 8 * len(whole), 17):
        content = bytearray(whole)
        content[position // 8] ^= 1 << position % 8
        digest.write_bytes(content)
        damage = checkpoints.find_damage(path)
        assert damage == "digest.json is not as it was written", position
    digest.write_bytes(whole)
    assert checkpoints.find_damage(path) == ""


def test_it_works_inside_an_event_loop_as_notebooks_have_one(tmp_path):
    async def cell():
        path = save(tmp_path, 1, {"x": jnp.ones(2)}, {})
        return restore(path, {"x": jnp.ones(2)})

    assert_same_bits(asyncio.run(cell()), {"x": jnp.ones(2)})


def test_with_no_sound_checkpoint_left_it_says_where_and_what_to_do(tmp_path):
    for step in (1, 2):
        flip_a_bit(save(tmp_path, step, {"x": jnp.ones(2)}, {}) / "metadata.json")
    lines = []
    with pytest.raises(CheckpointError) as error:
        newest_sound(tmp_path, report=lines.append)
    assert len(lines) == 2
    message = str(error.value)
    assert f"none of the 2 checkpoint(s) in {tmp_path} is sound" in message
    assert "\n" not in message
    assert len(os.listdir(tmp_path)) == 2  # nothing deleted


def test_what_a_killed_save_left_is_ignored_then_cleaned(tmp_path):
    save(tmp_path, 1, {"x": jnp.ones(2)}, {"step": 1})
    half = tmp_path / ".tmp-left"
    shutil.copytree(tmp_path / "00000001", half)
    (half / "digest.json").unlink()
    mine = tmp_path / "notes.txt"
    mine.write_text("kept")
    lines = []
    assert newest_sound(tmp_path, report=lines.append)[1] == {"step": 1}
    assert (lines, half.exists()) == ([], True)
    save(tmp_path, 2, {"x": jnp.ones(2)}, {"step": 2})
    assert sorted(os.listdir(tmp_path)) == ["00000001", "00000002", "notes.txt"]


def test_a_kill_at_any_rename_leaves_a_sound_checkpoint(tmp_path, monkeypatch):
    class Killed(BaseException):
        """Not an Exception, so that nothing cleans up, as in a real kill."""

    rename, calls = checkpoints.Path.rename, []

    def dying(path, target):
        calls.append(target)
        if len(calls) == deadly:
            raise Killed
        return rename(path, target)

    for deadly in (1, 2):  # the new one in place; the oldest out of the way
        folder = tmp_path / str(deadly)
        for step in (1, 2):
            save(folder, step, {"x": jnp.full(2, step)}, {"step": step}, keep=2)
        calls.clear()
        monkeypatch.setattr(checkpoints.Path, "rename", dying)
        with pytest.raises(Killed):
            save(folder, 3, {"x": jnp.full(2, 3)}, {"step": 3}, keep=2)
        monkeypatch.undo()
        lines = []
        assert newest_sound(folder, report=lines.append)[1] == {"step": 1 + deadly}
        assert lines == []
        numbered = [path for path in folder.iterdir() if path.name.isdigit()]
        assert not any(checkpoints.find_damage(path) for path in numbered)
        save(folder, 4, {"x": jnp.full(2, 4)}, {"step": 4}, keep=2)
        assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_a_process_killed_while_it_saves_leaves_sound_checkpoints(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from dib_jax.checkpoints import save\n"
        "for step in range(1, 10**6):\n"
        "    save(sys.argv[1], step, {'x': np.full(1000, step)}, {'step': step})\n"
        "    print(step, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE
    ) as process:
        for _ in range(4):
            line = process.stdout.readline()
        time.sleep(0.012)  # somewhere within the next save
        process.kill()
    lines = []
    path, metadata = newest_sound(tmp_path, report=lines.append)
    assert lines == []
    assert metadata["step"] >= int(line)
    expected = {"x": np.full(1000, metadata["step"])}
    assert_same_bits(restore(path, expected), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": jnp.ones(2)}, "b is missing in the checkpoint, float32 (2,) here"),
        ({"a": {"w": None}}, "a/w is float32 (2, 3) in the checkpoint, missing here"),
        ({"a": {"w": jnp.ones((3, 2))}}, "a/w is float32 (2, 3) in the checkpoint, fl"),
        ({"a": {"w": jnp.ones((2, 3), int)}}, "in the checkpoint, int32 (2, 3) here"),
        (
            {"a": [jnp.ones(3)]},
            "a/0 is missing in the checkpoint, float32 (3,) here (a",
        ),
    ],
)
def test_another_structure_is_a_line_that_names_the_entry(tmp_path, change, message):
    tree = {"a": {"w": jnp.ones((2, 3))}}
    path = save(tmp_path, 1, tree, {})
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        restore(path, tree | change)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": -1}, "step must be an integer >= 0, got -1"),
        ({"step": 1.0}, "step must be an integer >= 0, got 1.0"),
        ({"keep": 0}, "keep must be an integer >= 1, got 0"),
        ({"metadata": {"x": float("nan")}}, "metadata must be a mapping of plain JSON"),
        ({"metadata": {"x": np.zeros(2)}}, "metadata must be a mapping of plain JSON"),
        ({"tree": {}}, "tree holds no array"),
        ({"tree": jnp.ones(2)}, "tree must be a container"),
        ({"tree": {"a": "text"}}, "a must be an array or a number, got str"),
        ({"tree": {"a": object()}}, "a must be an array or a number, got object"),
        ({"tree": {"k": jax.random.key}}, "k must be an array or a number"),
        ({"tree": {"a.b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}}, "same name on disk"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(
    tmp_path, arguments, message
):
    given = {"step": 1, "tree": {"x": jnp.ones(2)}, "metadata": {}} | arguments
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_random_key_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="key is a PRNG key: save jax.random.key_data"):
        save(tmp_path, 1, {"key": jax.random.key(0)}, {})


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be written: .*file") as error:
        save(tmp_path / "file" / "run", 1, {"x": jnp.ones(2)}, {})
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line_and_the_earlier_checkpoints_are_whole(tmp_path, capfd):
    save(tmp_path, 1, {"x": jnp.ones(2)}, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CheckpointError) as error:
            save(tmp_path, 2, {"x": np.random.default_rng(0).random(10**5)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path / "00000002") in str(error.value)
    assert "earlier checkpoints are whole" in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == ["00000001"]
    assert newest_sound(tmp_path)[1] == {"step": 1}


def test_no_room_for_the_small_files_is_the_same(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.Path, "write_text", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(tmp_path, 2, {"x": jnp.ones(2)}, {})
    assert os.listdir(tmp_path) == []


def test_restore_of_a_damaged_tree_is_one_line(tmp_path):
    path = save(tmp_path, 1, {"x": jnp.ones(2)}, {})
    shutil.rmtree(path / "tree" / "d")
    with pytest.raises(CheckpointError, match="cannot be read") as error:
        restore(path, {"x": jnp.ones(2)})
    assert "\n" not in str(error.value)


def test_orbax_alone_restores_a_flipped_bit_so_the_digest_is_needed(tmp_path):
    tree = {"x": jnp.arange(4096.0)}
    path = save(tmp_path, 1, tree, {})
    largest = max(path.rglob("*"), key=lambda file: file.stat().st_size)
    flip_a_bit(largest)
    restored = restore(path, tree)
    assert not np.array_equal(restored["x"], tree["x"])
    assert largest.name in checkpoints.find_damage(path)


def test_saving_and_restoring_print_nothing(tmp_path, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        path = save(tmp_path, 1, make_tree(), {})
        restore(path, make_tree())
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_digest_lists_every_file_by_its_relative_path(tmp_path):
    path = save(tmp_path, 1, {"x": jnp.ones(2)}, {})
    listed = set(json.loads((path / "digest.json").read_text())["files"])
    files = {
        file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()
    }
    assert files == listed | {"digest.json"}
