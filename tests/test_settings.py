import math

import ml_collections
import numpy as np
import pytest

from dib_jax import settings


def example() -> dict:
    return {
        "seed": 3,
        "workdir": "",
        "dataset": {"name": "pictures", "data_dir": "", "placement": "auto"},
        "model": {"name": "network", "widths": (8, 8, 8)},
        "objective": {"alpha": 1.5, "beta": 0.1},
    }


def test_names_of_nested_sections_are_joined():
    nested = {"a": {"b": 1, "c": {"d": (2,)}}, "e": {}, "f": {"g": {}}}
    flat = {"a.b": 1, "a.c.d": (2,), "e": {}, "f.g": {}}
    assert settings.flatten(nested) == flat
    assert settings.flatten(ml_collections.ConfigDict(nested))["a.c.d"] == (2,)


def test_differences_name_the_fields_in_which_two_configs_differ():
    other = example()
    other["objective"]["beta"] = (0.1, 0.1, 0.1)
    other["seed"] = 4
    del other["model"]["name"]
    fields = ["model.name", "objective.beta", "seed"]
    assert settings.differences(example(), other) == fields
    assert settings.differences(other, example()) == fields


def test_a_moved_run_is_the_same_run():
    moved = example()
    moved["workdir"] = "/somewhere"
    moved["dataset"] |= {"data_dir": "/elsewhere", "placement": "stream"}
    moved["model"]["widths"] = [8, 8, 8]
    moved["objective"]["alpha"] = np.float64(1.5)
    assert settings.differences(example(), ml_collections.ConfigDict(moved)) == []


def test_a_config_becomes_strict_json():
    config = ml_collections.ConfigDict({"a": {"b": (1, math.inf), "c": -math.inf}})
    assert settings.plain(config) == {"a": {"b": [1, "inf"], "c": "-inf"}}
    numbers = [np.int64(2), np.float32(0.5), True, None, "x", 3, 0.1]
    plain = settings.plain(numbers)
    assert plain == [2, 0.5, True, None, "x", 3, 0.1]
    types = [int, float, bool, type(None), str, int, float]
    assert [type(value) for value in plain] == types


@pytest.mark.parametrize("value", [math.nan, {"a": [math.nan]}, object(), {1, 2}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match="config"):
        settings.plain(value)
