import copy
import json
import math
from typing import Literal

import ml_collections
import numpy as np
import pytest

from dib_jax.training import config as configs


def network(*, widths: tuple[int, ...] = (8, 8, 8), depth: int = 3):
    """A network.

    Args:
        widths: of each stage.
        depth: number of stages, from 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be ≥ 1, got {depth!r}")
    return tuple(widths[:depth])


def readout(*, num_outputs: int, pool: int = 2):
    """A head.

    Args:
        num_outputs: of the task.
        pool: side of the grid.
    """
    if num_outputs != 2:
        raise AssertionError("tried out with two outputs")
    return pool


def sorting(*, num_classes: int, labels: list, smoothing: float = 0.0):
    """A task that wants more of the data than a number.

    Args:
        num_classes: of the data.
        labels: of the data.
        smoothing: of the labels.
    """
    raise AssertionError("cannot be tried out without data")


def penalty(
    *,
    alpha: float = 1.5,
    beta: float | tuple[float, ...] = 0.1,
    measure: str = "input",
    mode: Literal["fast", "exact"] = "fast",
    quiet: bool = False,
):
    """A loss.

    Args:
        alpha: the order.
        beta: a number or one per stage.
        measure: what is measured.
        mode: how.
        quiet: whether nothing is recorded.
    """
    if alpha <= 0:
        raise ValueError(f"the order alpha must be\n> 0, got {alpha!r}")
    if measure not in ("input", "output"):
        raise ValueError(f"measure must be 'input' or 'output', got {measure!r}")
    if quiet and mode == "exact":
        raise ValueError("these two do not go together")


def example() -> dict:
    return {
        "seed": 3,
        "workdir": "",
        "dataset": {
            "name": "pictures",
            "data_dir": "",
            "val_fraction": 0.1,
            "augment": "",
            "skip_bad_boxes": False,
            "skip_groups": (),
            "samples": 0,
            "placement": "auto",
        },
        "model": {"name": f"{__name__}:network", "widths": (8, 8, 8), "depth": 3},
        "head": {"name": f"{__name__}:readout", "pool": 2},
        "task": {"name": f"{__name__}:sorting", "smoothing": 0.0},
        "objective": {
            "name": f"{__name__}:penalty",
            "alpha": 1.5,
            "beta": 0.1,
            "measure": "input",
            "mode": "fast",
            "quiet": False,
        },
        "schedule": {
            "name": "sequential",
            "blocks": 1,
            "cache": "auto",
            "copies": 0,
            "renew": 0,
            "remat": False,
        },
        "optimizer": {
            "name": "sgd",
            "learning_rate": 0.1,
            "weight_decay": 0.0,
            "momentum": 0.9,
            "schedule": "constant",
            "warmup_epochs": 0.0,
        },
        "epochs": 2,
        "batch_size": 32,
        "precision": {"compute": "float32", "information": "float32"},
        "analysis": {
            "every_epochs": 5,
            "samples": 256,
            "alpha": 1.01,
            "bandwidth": "mean",
        },
    }


def changed(field: str, value: object) -> dict:
    config = example()
    place, _, name = field.rpartition(".")
    (config[place] if place else config)[name] = value
    return config


def without(field: str) -> dict:
    config = example()
    place, _, name = field.rpartition(".")
    del (config[place] if place else config)[name]
    return config


def refusal(config: object) -> str:
    with pytest.raises(ValueError, match="^[^\n]+$") as caught:
        configs.check(config)
    return str(caught.value)


def test_a_sound_config_passes_and_is_left_as_it_is():
    config = ml_collections.ConfigDict(example())
    before = copy.deepcopy(config.to_dict())
    configs.check(config)
    assert config.to_dict() == before


def test_completing_a_config_that_has_every_field_changes_nothing():
    assert configs.complete(example()).to_dict() == example()


def test_completing_adds_defaults_of_engine_and_factories():
    full = configs.complete(
        {
            "dataset": {"name": "pictures"},
            "model": {"name": f"{__name__}:network"},
            "head": {"name": f"{__name__}:readout"},
            "task": {"name": f"{__name__}:sorting"},
            "objective": {"name": f"{__name__}:penalty"},
            "schedule": {"name": "sequential"},
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "schedule": "constant"},
            "epochs": 2,
            "batch_size": 32,
        }
    )
    assert full.to_dict() == {**example(), "seed": 0}


def test_completing_makes_lists_tuples_and_integers_floats():
    config = changed("objective.beta", [1, 0, -1])
    config["model"]["widths"] = [np.int64(4)] * 3
    config["objective"]["alpha"] = 2
    full = configs.complete(config)
    assert full.objective.beta == (1.0, 0.0, -1.0)
    assert type(full.objective.alpha) is float
    assert full.model.widths == (4, 4, 4)
    assert all(type(width) is int for width in full.model.widths)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("objective.aplha", 2.0, "did you mean objective.alpha?"),
        ("objective.aplha", 2.0, "(with value 2.0)"),
        ("objective.aplha", 2.0, "name, alpha, beta, measure, mode, quiet"),
        ("batchsize", 8, "did you mean batch_size?"),
        ("objectve", {"name": "x"}, "did you mean objective?"),
        ("optimizer.batch_size", 8, "did you mean batch_size?"),
        ("head.alpha", 8, "did you mean objective.alpha?"),
        ("model.num_outputs", 8, "the fields of model are name, widths, depth"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest_spelling(field, value, message):
    text = refusal(changed(field, value))
    assert text.startswith(f"{field}: unknown field")
    assert message in text


def test_what_the_engine_supplies_is_no_field():
    assert refusal(changed("head.num_outputs", 10)).startswith(
        "head.num_outputs: unknown field (with value 10); the fields of head are name, "
    )


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("seed", -1, "an integer from 0 to 4294967295"),
        ("seed", 2**32, "an integer from 0 to 4294967295"),
        ("seed", True, "an integer from 0"),
        ("seed", 1.0, "an integer from 0"),
        ("workdir", None, "a string"),
        ("dataset.name", "", "a name that is not empty"),
        ("dataset.val_fraction", 1.0, "a number from 0 to 1, 1 excluded"),
        ("dataset.val_fraction", -0.1, "a number from 0 to 1, 1 excluded"),
        ("dataset.val_fraction", math.nan, "a number from 0 to 1, 1 excluded"),
        ("dataset.augment", ("crop",), "a string"),
        ("model.widths", "8,8", "a tuple of integers"),
        ("model.depth", 2.5, "an integer"),
        ("objective.alpha", "two", "a number"),
        ("objective.alpha", math.nan, "a number"),
        ("objective.beta", (0.1, "x", 0.1), "a number or a tuple of numbers"),
        ("objective.quiet", 1, "True or False"),
        ("objective.mode", "slow", "one of 'fast', 'exact'"),
        ("schedule.blocks", 0, "an integer from 1"),
        ("optimizer.learning_rate", 0, "a number above 0"),
        ("optimizer.learning_rate", math.inf, "a number above 0"),
        ("optimizer.weight_decay", -1e-4, "a number from 0"),
        ("optimizer.momentum", 1, "a number from 0 to 1, 1 excluded"),
        ("optimizer.warmup_epochs", -1, "a number from 0"),
        ("epochs", 0, "an integer from 1, or a tuple of such, one per block"),
        ("epochs", (), "an integer from 1, or a tuple of such, one per block"),
        ("epochs", (1, 0, 1), "an integer from 1, or a tuple of such, one per block"),
        ("epochs", 2.0, "an integer from 1, or a tuple of such, one per block"),
        ("batch_size", 0, "an integer from 1"),
        ("precision.information", "bfloat16", "'float32'"),
    ],
)
def test_an_impossible_value_is_refused_with_what_is_allowed(field, value, allowed):
    text = refusal(changed(field, value))
    assert text.startswith(f"{field}: got {value!r}; must be {allowed}")


@pytest.mark.parametrize(
    ("field", "value", "nearest"),
    [
        ("schedule.name", "sequental", "sequential"),
        ("optimizer.name", "sdg", "sgd"),
        ("optimizer.schedule", "constnat", "constant"),
        ("precision.compute", "bfloat61", "bfloat16"),
        ("dataset.augment", "filp", "flip"),
        ("objective.measure", "inptu", "input"),
        ("model.name", f"{__name__}:netwrok", "network"),
        ("objective.name", f"{__name__}:penatly", "penalty"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest(field, value, nearest):
    text = refusal(changed(field, value))
    assert text.startswith(f"{field}: ")
    assert repr(value) in text
    assert text.endswith(f"; did you mean {nearest!r}?")


@pytest.mark.parametrize("section", ["model", "head", "task", "objective"])
def test_an_unknown_factory_is_told_the_known_ones(section):
    known = configs.build.known(configs.FACTORIES[section])
    text = refusal(changed(f"{section}.name", "no_such_thing"))
    assert text.startswith(f"{section}.name: unknown {section} 'no_such_thing'")
    assert ", ".join(known) in text


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("dataset.name", "missing; must be a name that is not empty"),
        ("model.name", "missing; must be one of "),
        ("schedule.name", "missing; must be one of sequential"),
        ("optimizer.learning_rate", "missing; must be a number above 0"),
        ("epochs", "missing; must be an integer from 1"),
        ("batch_size", "missing; must be an integer from 1"),
    ],
)
def test_a_missing_field_without_default_is_named(field, message):
    assert refusal(without(field)).startswith(f"{field}: {message}")


@pytest.mark.parametrize("section", ["dataset", "model", "objective", "optimizer"])
def test_a_section_that_is_none_is_refused(section):
    text = refusal(changed(section, 3))
    assert text == f"{section}: got 3; must be a section with fields"


def test_a_section_where_a_value_belongs_is_refused():
    assert refusal(changed("batch_size", {"train": 8})).startswith("batch_size.train: ")
    assert refusal(changed("seed", {})).startswith("seed: got {}; must be an integer")


def test_what_is_no_config_is_refused():
    assert "must be an ml_collections.ConfigDict" in refusal([1, 2])


def test_a_factory_refuses_its_option_in_its_own_words():
    assert refusal(changed("model.depth", 0)) == "model.depth: depth must be ≥ 1, got 0"
    # It names the option somewhere, in two lines.
    assert refusal(changed("objective.alpha", -1.0)) == (
        "objective.alpha: the order alpha must be > 0, got -1.0"
    )


def test_a_refusal_that_names_no_option_is_the_sections():
    config = changed("objective.quiet", True)
    config["objective"]["mode"] = "exact"
    assert refusal(config) == "objective: these two do not go together"


def test_an_order_of_infinity_is_the_factorys_business():
    configs.check(changed("objective.alpha", math.inf))


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("epochs", (1, 2), "2 numbers for 3 blocks"),
        ("epochs", (1, 2, 3, 4), "4 numbers for 3 blocks"),
        ("objective.beta", (0.1, 0.2), "2 numbers for 3 stages"),
    ],
)
def test_one_number_for_each_means_as_many_as_there_are(field, value, what):
    text = refusal(changed(field, value))
    assert text.startswith(f"{field}: got {value!r}, {what}; must be one number, or")
    configs.check(changed(field, (*value, 1, 1)[:3]))


def test_epochs_are_counted_by_block_and_weights_by_stage():
    config = changed("epochs", (1, 2))
    config["schedule"]["blocks"] = 2
    config["objective"]["beta"] = (0.1, 0.2, 0.3)
    configs.check(config)


def test_a_schedule_without_local_losses_does_not_read_their_weights():
    config = changed("objective.beta", (0.1, 0.2))
    config["schedule"]["name"] = "end_to_end"
    configs.check(config)


def test_a_config_comes_back_from_strict_json_as_it_was():
    config = configs.complete(changed("objective.beta", (0.1, 0.0, -0.5)))
    config.objective.alpha = math.inf
    text = json.dumps(configs.to_json(config), allow_nan=False)
    back = configs.from_json(json.loads(text))
    assert back.to_dict() == config.to_dict()
    assert list(configs.to_json(config)) != []
    assert configs.differences(back, config) == []


def test_json_that_is_no_config_is_refused():
    with pytest.raises(ValueError, match="a config must be a mapping"):
        configs.from_json([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="objective.aplha: unknown field"):
        configs.from_json(changed("objective.aplha", 1))


def test_differences_name_the_fields_in_which_two_configs_differ():
    other = changed("objective.beta", (0.1, 0.1, 0.1))
    other["seed"] = 4
    del other["precision"]["information"]
    assert configs.differences(example(), other) == [
        "objective.beta",
        "precision.information",
        "seed",
    ]
    assert configs.differences(other, example())[1] == "precision.information"


def test_a_moved_run_is_the_same_run():
    moved = changed("dataset.data_dir", "/elsewhere")
    moved["workdir"] = "/somewhere"
    moved["model"]["widths"] = [8, 8, 8]
    moved["objective"]["alpha"] = np.float64(1.5)
    assert configs.differences(example(), ml_collections.ConfigDict(moved)) == []


@pytest.mark.parametrize("width", [60, 88, 200])
def test_the_description_has_every_field_with_value_and_meaning(width):
    config = configs.complete(changed("model.widths", tuple(range(100, 130))))
    text = configs.describe(config, width=width)
    unwrapped = " ".join(text.split())
    for field, value in configs.flatten(config.to_dict()).items():
        shown = value if isinstance(value, str) and value else repr(value)
        assert f"{field} {shown}" in unwrapped
    assert "number of stages, from 1" in unwrapped
    assert "passes over the training split" in unwrapped
    long = repr(config.model.widths)
    assert all(len(line) <= width for line in text.splitlines() if long not in line)


def test_the_description_is_in_columns():
    lines = configs.describe(configs.complete(example()), width=120).splitlines()
    starts = {line.index("all random") for line in lines if line.startswith("seed")}
    starts |= {line.index("samples") for line in lines if line.startswith("batch_")}
    assert len(starts) == 1


def test_the_description_lists_what_else_could_be_named():
    text = " ".join(configs.describe(configs.complete(example()), width=99).split())
    for package in configs.FACTORIES.values():
        assert f"(known: {', '.join(configs.build.known(package))})" in text
    assert f"(known: {', '.join(configs.data.known_names())})" in text


def test_the_default_workdir_tells_runs_apart():
    config = configs.complete(example())
    assert str(configs.default_workdir("x", "full", config)) == "runs/x-full-seed3"
    usual = configs.default_workdir("x", "quick", config, usual_schedule="sequential")
    assert str(usual) == "runs/x-quick-seed3"
    other = configs.default_workdir("x", "quick", config, usual_schedule="end_to_end")
    assert str(other) == "runs/x-quick-seed3-sequential"
