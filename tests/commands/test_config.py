import copy
import json
import math
import re
import typing
from typing import Literal

import ml_collections
import numpy as np
import pytest

from dib_jax import settings
from dib_jax.commands import config as configs
from dib_jax.commands import optimizers, registry


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


def readout_of(*, num_outputs: int, stage: int, gain: float | tuple[float, ...] = 1.0):
    """A head that knows its stage.

    Args:
        num_outputs: of the task.
        stage: number of its stage.
        gain: of each stage.
    """
    if stage == 2:
        raise ValueError(f"no gain {gain!r} at the third stage")
    return gain


def sorting(*, num_classes: int, smoothing: float = 0.0):
    """A task.

    Args:
        num_classes: of the data.
        smoothing: of the labels.
    """
    return num_classes


def ranking(*, num_classes: int, labels: list):
    """A task that wants more of the data than a number.

    Args:
        num_classes: of the data.
        labels: of the data.
    """
    raise AssertionError("cannot be tried out without data")


def in_pairs(parts, *, pairs: int = 1, order: str = "forward"):
    """An algorithm that trains in as many phases as it is told.

    Args:
        parts: of the config.
        pairs: phases of training.
        order: of the stages.
    """
    for stage in range(len(parts.stages)):
        parts.head(stage)
    assert (parts.task, parts.steps) == (2, 0)
    if len(parts.stages) < 2 * pairs:
        raise ValueError(f"there are too few stages for {pairs!r} pairs")
    if isinstance(parts.epochs, tuple) and len(parts.epochs) != pairs:
        raise ValueError(f"epochs: got {parts.epochs!r}; must be {pairs}")
    if order == "backward":
        raise ValueError("the objective cannot be trained so")
    return parts


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
    return lambda signals: (signals.task_loss, {})


def example() -> dict:
    return {
        "seed": 3,
        "workdir": "",
        "dataset": {
            "name": "pictures",
            "data_dir": "",
            "val_fraction": 0.1,
            "augment": "",
            "views": "",
            "skip_bad_boxes": False,
            "skip_groups": (),
            "samples": 0,
            "repeat_rare": 0.0,
            "whiten": 0,
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
        "algorithm": {"name": "sequential", "blocks": 1, "remat": False},
        "cache": {"place": "auto", "copies": 0, "renew": 0},
        "optimizer": {
            "name": "sgd",
            "learning_rate": 0.1,
            "weight_decay": 0.0,
            "momentum": 0.9,
            "schedule": "constant",
            "warmup_epochs": 0.0,
            "warmup_from": 0.0,
            "decay_to": 0.0,
            "norm_rate": 1.0,
            "lookahead": 0,
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
        configs.complete(config)
    return str(caught.value)


def test_a_sound_config_passes_and_is_left_as_it_is():
    config = ml_collections.ConfigDict(example())
    before = copy.deepcopy(config.to_dict())
    configs.complete(config)
    assert config.to_dict() == before


def test_completing_a_config_that_has_every_field_changes_nothing():
    assert configs.complete(example()).to_dict() == example()


def test_completing_adds_defaults_of_engine_and_factories():
    full = configs.complete(
        model={"name": f"{__name__}:network"},
        head={"name": f"{__name__}:readout"},
        task={"name": f"{__name__}:sorting"},
        objective={"name": f"{__name__}:penalty"},
    ).to_dict()
    usual = {
        "seed": 0,
        "epochs": 20,
        "batch_size": 128,
        "optimizer": {
            "name": "sgd",
            "learning_rate": 0.05,
            "weight_decay": 5e-4,
            "momentum": 0.9,
            "schedule": "cosine",
            "warmup_epochs": 1.0,
            "warmup_from": 0.0,
            "decay_to": 0.0,
            "norm_rate": 1.0,
            "lookahead": 0,
        },
    }
    usual["dataset"] = {**example()["dataset"], "name": "digits"}
    assert full == {**example(), **usual}


def test_a_config_that_states_nothing_is_complete():
    full = configs.complete()
    names = [full[section].name for section in configs.FACTORIES]
    assert names == ["cnn", "linear", "classification", "dib", "sequential"]
    assert configs.complete({}).to_dict() == full.to_dict()
    assert configs.complete(model={"pools": 2}).model.pools == 2


def test_sections_take_the_place_of_a_configs():
    full = configs.complete(ml_collections.ConfigDict(example()), epochs=7, cache={})
    assert full.to_dict() == {**example(), "epochs": 7}


def test_what_can_be_named_is_what_there_is():
    fields = configs.schema({})
    for field, known in {
        "optimizer.name": optimizers.OPTIMIZERS,
        "optimizer.schedule": optimizers.SCHEDULES,
    }.items():
        assert typing.get_args(fields[field].type) == tuple(known)
        assert ", ".join(known) in fields[field].meaning


def test_every_field_says_what_it_means():
    for name, field in configs.schema({}).items():
        assert field.meaning, name


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
        ("algorithm.blocks", 0.5, "an integer"),
        ("cache.place", "attic", "one of 'auto', 'device', 'host', 'file', 'none'"),
        ("optimizer.learning_rate", 0, "a number above 0"),
        ("optimizer.learning_rate", math.inf, "a number above 0"),
        ("optimizer.weight_decay", -1e-4, "a number from 0"),
        ("optimizer.momentum", 1, "a number from 0 to 1, 1 excluded"),
        ("optimizer.warmup_epochs", -1, "a number from 0"),
        ("epochs", 0, "an integer from 1, or a tuple of such, one per phase"),
        ("epochs", (), "an integer from 1, or a tuple of such, one per phase"),
        ("epochs", (1, 0, 1), "an integer from 1, or a tuple of such, one per phase"),
        ("epochs", 2.0, "an integer from 1, or a tuple of such, one per phase"),
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
        ("algorithm.name", "sequental", "sequential"),
        ("optimizer.name", "sdg", "sgd"),
        ("optimizer.schedule", "constnat", "constant"),
        ("precision.compute", "bfloat61", "bfloat16"),
        ("dataset.augment", "filp", "flip"),
        ("dataset.views", "shfit", "shift"),
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


@pytest.mark.parametrize("section", configs.FACTORIES)
def test_an_unknown_factory_is_told_the_known_ones(section):
    known = registry.known(configs.FACTORIES[section])
    text = refusal(changed(f"{section}.name", "no_such_thing"))
    assert text.startswith(f"{section}.name: unknown {section} 'no_such_thing'")
    assert ", ".join(known) in text


@pytest.mark.parametrize(
    ("section", "name", "before"),
    [
        *(("algorithm", name, name) for name in ("name", "blocks", "remat")),
        *(("cache", name, name) for name in ("copies", "renew")),
        ("cache", "place", "cache"),
    ],
)
def test_a_field_that_was_renamed_is_told_its_name(section, name, before):
    text = f"schedule.{before}: got 2; this field is {section}.{name} now"
    assert refusal({**example(), "schedule": {before: 2}}) == text
    assert configs.unknown(f"schedule.{before}", 2, configs.schema({})) == text
    assert f"{section}.{name}" in configs.schema({})


def test_what_else_was_moved_is_told_too():
    assert refusal({**example(), "schedule": 2}).endswith("is algorithm.name now")
    assert refusal(changed("head.decay", 0.5)) == (
        "head.decay: got 0.5; this field is algorithm.decay, with "
        "algorithm.name=momentum now"
    )


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
    configs.complete(changed("objective.alpha", math.inf))


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("epochs", (1, 2), "2 numbers for 3"),
        ("epochs", (1, 2, 3, 4), "4 numbers for 3"),
        ("objective.beta", (0.1, 0.2), "2 numbers for 3 stages"),
    ],
)
def test_one_number_for_each_means_as_many_as_there_are(field, value, what):
    text = refusal(changed(field, value))
    assert text.startswith(f"{field}: got {value!r}, {what}")
    assert "; must be one number, or one for each" in text
    configs.complete(changed(field, (*value, 1, 1)[:3]))


def test_epochs_are_counted_by_block_and_weights_by_stage():
    config = changed("epochs", (1, 2))
    config["algorithm"]["blocks"] = 2
    config["objective"]["beta"] = (0.1, 0.2, 0.3)
    configs.complete(config)


def test_the_messages_of_an_algorithm_name_the_field():
    assert refusal(changed("algorithm.blocks", 0)) == (
        "algorithm.blocks: blocks must be 1 to 3, for a block has so many of the "
        "network's 3 stages; got 0"
    )
    config = changed("algorithm", {"name": f"{__name__}:in_pairs"})
    configs.complete(config)
    config["algorithm"]["pairs"] = 2
    assert refusal(config) == ("algorithm.pairs: there are too few stages for 2 pairs")
    config["algorithm"] = {"name": f"{__name__}:in_pairs", "order": "backward"}
    assert refusal(config) == "algorithm: the objective cannot be trained so"
    config["epochs"] = (1, 2)
    assert refusal(config) == "epochs: got (1, 2); must be 1"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("model", "must return a tuple of modules, one for each stage, got NoneType"),
        ("objective", r"must return an objective, \(signals\) → .*, got NoneType"),
        ("algorithm", "must return a dib_jax.algorithms.Algorithm, got NoneType"),
    ],
)
def test_what_a_factory_of_ones_own_must_return_is_said(section, message, monkeypatch):
    build = registry.build

    def wrong(package, chosen, **known):
        made = build(package, chosen, **known)
        return None if package is configs.FACTORIES[section] else made

    monkeypatch.setattr(registry, "build", wrong)
    assert re.fullmatch(rf"{section}\.name: '.*' {message}", refusal(example()))


def test_an_algorithm_is_given_heads_of_every_stage():
    config = changed("head", {"name": f"{__name__}:readout_of", "gain": (1, 2, 3)})
    config["algorithm"] = {"name": f"{__name__}:in_pairs"}
    assert refusal(config) == "head.gain: no gain (1.0, 2.0, 3.0) at the third stage"
    config["model"]["depth"] = 2
    assert refusal(config).startswith("head.gain: got (1.0, 2.0, 3.0), 3 numbers for 2")
    config["head"]["gain"] = 1
    configs.complete(config)


def test_what_asks_for_the_data_is_not_tried_out():
    config = changed("task", {"name": f"{__name__}:ranking"})
    config["algorithm"] = {"name": f"{__name__}:in_pairs", "order": "backward"}
    configs.complete(config)


@pytest.mark.parametrize("arg", ["", "quick", "deep"])
def test_a_variant_that_there_is_comes_back(arg):
    assert configs.variant(arg, "quick", "deep") == arg


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "unknown variant 'slow': there is none"),
        (("quick",), "unknown variant 'slow': use \":quick\", or none"),
        (("a", "b"), 'unknown variant \'slow\': use ":a", ":b", or none'),
    ],
)
def test_an_unknown_variant_is_told_the_known_ones(names, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        configs.variant("slow", *names)


def test_a_config_comes_back_from_strict_json_as_it_was():
    config = configs.complete(changed("objective.beta", (0.1, 0.0, -0.5)))
    config.objective.alpha = math.inf
    text = json.dumps(settings.plain(config), allow_nan=False)
    back = configs.complete(json.loads(text))
    assert back.to_dict() == config.to_dict()


@pytest.mark.parametrize("width", [60, 88, 200])
def test_the_description_has_every_field_with_value_and_meaning(width):
    config = configs.complete(changed("model.widths", tuple(range(100, 130))))
    text = configs.describe(config, width=width)
    unwrapped = " ".join(text.split())
    for field, value in settings.flatten(config).items():
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
        assert f"(known: {', '.join(registry.known(package))})" in text
    assert f"(known: {', '.join(configs.data.known_names())})" in text


def test_the_default_workdir_tells_runs_apart():
    config = configs.complete(example())
    assert str(configs.default_workdir("x", "full", config)) == "runs/x-full-seed3"
    names = {section: config[section].name for section in configs.FACTORIES}
    usual = configs.default_workdir("x", "quick", config, usual=names)
    assert str(usual) == "runs/x-quick-seed3"
    names |= {"algorithm": "end_to_end"}
    other = configs.default_workdir("x", "quick", config, usual=names)
    assert str(other) == "runs/x-quick-seed3-sequential"
    config.objective.name = "my_loss:sparse"
    other = configs.default_workdir("x", "quick", config, usual=names)
    assert str(other) == "runs/x-quick-seed3-sequential-my_loss-sparse"
