import json
import math
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dib_jax.commands import values
from dib_jax.settings import plain

ONE_OR_MORE = float | tuple[float, ...]


@pytest.mark.parametrize(
    ("value", "annotation", "fitted"),
    [
        (3, int, 3),
        (np.int64(3), int, 3),
        (3, float, 3.0),
        (np.float32(0.5), float, 0.5),
        (math.inf, float, math.inf),
        ("inf", float, math.inf),
        (True, bool, True),
        ("", str, ""),
        (None, int | None, None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ((), tuple[int, ...], ()),
        ([1, "a"], tuple[int, str], (1, "a")),
        ([1, [2]], tuple, (1, [2])),
        (0.5, ONE_OR_MORE, 0.5),
        ([0, 1], ONE_OR_MORE, (0.0, 1.0)),
        (3, float | int, 3),
        ("b", Literal["a", "b"], "b"),
        ("inf", float | str, "inf"),
        (object, Any, object),
    ],
)
def test_a_value_of_the_wanted_type_fits(value, annotation, fitted):
    result = values.fit(value, annotation)
    assert result == fitted
    assert type(result) is type(fitted)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (True, int, "must be an integer"),
        (True, float, "must be a number"),
        (1, bool, "must be True or False"),
        (1.0, int, "must be an integer"),
        (math.nan, float, "must be a number"),
        (math.nan, ONE_OR_MORE, "must be a number or a tuple of numbers"),
        ((0.1, math.nan), ONE_OR_MORE, "must be a number or a tuple of numbers"),
        ("3", int, "must be an integer"),
        (3, str, "must be a string"),
        (None, int, "must be an integer"),
        ((1, 2.5), tuple[int, ...], "must be a tuple of integers"),
        ((1,), tuple[int, int], "must be a tuple of 2 values"),
        ("ab", tuple[str, ...], "must be a tuple of strings"),
        ("c", Literal["a", "b"], "must be one of 'a', 'b'"),
        (True, Literal[1], "must be 1"),
    ],
)
def test_a_value_of_another_type_is_refused(value, annotation, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        values.fit(value, annotation)


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("-3", int, -3),
        ("3", float, 3.0),
        ("1e-3", float, 1e-3),
        ("inf", float, math.inf),
        ("3", str, "3"),
        ("(1,2)", str, "(1,2)"),
        ("true", bool, True),
        ("False", bool, False),
        ("none", int | None, None),
        ("1,2", tuple[int, ...], (1, 2)),
        ("(1, 2)", tuple[int, ...], (1, 2)),
        ("[1, 2,]", tuple[int, ...], (1, 2)),
        ("5", tuple[int, ...], (5,)),
        ("()", tuple[int, ...], ()),
        ("(1,2),(3,)", tuple[tuple[int, ...], ...], ((1, 2), (3,))),
        ("1,a", tuple[int, str], (1, "a")),
        ("2", int | tuple[int, ...], 2),
        ("2", tuple[int, ...] | int, 2),
        ("2,3", int | tuple[int, ...], (2, 3)),
        ("2", str | float, 2.0),
        ("mean", str | float, "mean"),
        ("2", float | int, 2),
        ("a", Literal["a", "b"], "a"),
        ("{'a': 1}", Any, {"a": 1}),
        ("word", Any, "word"),
        ("", tuple[int, ...], ()),
        ("(inf, -inf)", tuple[float, ...], (math.inf, -math.inf)),
        ("-inf", ONE_OR_MORE, -math.inf),
        ("crop,flip", tuple[str, ...], ("crop", "flip")),
        ("true", str, "true"),
    ],
)
def test_text_is_read_as_the_wanted_type(text, annotation, value):
    result = values.parse(text, annotation)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("3.0", int),
        ("", int),
        ("nan", float),
        ("yes", bool),
        ("1", bool),
        ("1,x", tuple[int, ...]),
        ("1,,2", tuple[int, ...]),
        ("1", tuple[int, int]),
        ("c", Literal["a", "b"]),
    ],
)
def test_text_that_cannot_be_the_wanted_type_is_refused(text, annotation):
    with pytest.raises(ValueError, match="^must be "):
        values.parse(text, annotation)


@settings(max_examples=50)
@given(st.floats(allow_nan=False) | st.lists(st.floats(allow_nan=False)).map(tuple))
def test_numbers_come_back_from_strict_json_and_from_text_as_they_were(value):
    saved = json.dumps(plain(value), allow_nan=False)
    assert values.fit(json.loads(saved), ONE_OR_MORE) == value
    assert values.parse(repr(value), ONE_OR_MORE) == value


SHARE = Annotated[float, values.Allowed("a share", lambda share: 0 <= share < 1)]


def test_a_narrower_type_says_what_it_allows():
    assert values.fit(0, SHARE) == 0.0
    assert values.parse("0.5", SHARE) == 0.5
    assert values.parse("none", SHARE | None) is None
    for wrong in (1.0, "x", None):
        with pytest.raises(ValueError, match="^must be a share$"):
            values.fit(wrong, SHARE)


@pytest.mark.parametrize(
    "annotation",
    [
        Literal["crop", "flip"],
        None | Literal["crop", "flip", 1],
        Annotated[str, values.Allowed("a trick", "flip".__eq__, ("flip",))],
    ],
)
def test_a_name_that_is_misspelt_is_told_the_nearest(annotation):
    for read in (values.fit, values.parse):
        assert read("flip", annotation) == "flip"
        with pytest.raises(ValueError, match="; did you mean 'flip'\\?$"):
            read("filp", annotation)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (ONE_OR_MORE, True),
        (tuple[int, ...] | int, True),
        (tuple[float, ...], False),
        (float | tuple[int, ...], False),
        (float | tuple[float, float], False),
        (float, False),
    ],
)
def test_one_or_several_of_the_same(annotation, expected):
    assert values.one_or_several(annotation) is expected
