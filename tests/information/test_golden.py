"""Values and gradients that were computed without JAX; see tests/golden/README.md."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information

pytestmark = pytest.mark.once

FILE = pathlib.Path(__file__).parents[1] / "golden" / "information.npz"
DATA = dict(np.load(FILE, allow_pickle=False))
CASES = [json.loads(str(case)) for case in DATA["cases"]]


def array(name, dtype):
    values = DATA[f"input/{name}"]
    return jnp.asarray(values, None if values.dtype.kind == "i" else dtype)


def gram_of(spec, dtype):
    sigma = jnp.asarray(spec["sigma"], dtype) if "sigma" in spec else None
    if "gaussian" in spec:
        return information.gaussian_gram(array(spec["gaussian"], dtype), sigma=sigma)
    if "channel" in spec:
        return information.channel_gram(array(spec["channel"], dtype), sigma=sigma)
    if "kernel" in spec:
        return information.normalize_gram(array(spec["kernel"], dtype))
    return information.label_gram(array(spec["label"], dtype))


def value_of(case, dtype):
    grams = [gram_of(spec, dtype) for spec in case.get("grams", [])]
    options = dict(case.get("options", {}))
    if "alpha" in case:
        options["alpha"] = math.inf if case["alpha"] == "inf" else case["alpha"]
    name = case["function"]
    if name.startswith("grad "):
        measure = getattr(information, name.removeprefix("grad "))

        def loss(x):
            features = information.gaussian_gram(x, sigma=case["sigma"])
            return measure(features, *grams, **options)

        return jax.grad(loss)(array(case["x"], dtype))
    function = getattr(information, name)
    if name == "mutual_information_matrix":
        return function(jnp.stack(grams), **options)
    if "sigma" in case:
        options["sigma"] = case["sigma"]
    first = [array(case["x"], dtype)] if "x" in case else []
    return function(*first, *grams, **options)


def assert_close(case, dtype, tolerance):
    want = DATA["value/" + case["key"]]
    got = value_of(case, dtype)
    assert got.dtype == dtype
    assert got.shape == want.shape
    error = np.max(np.abs(np.asarray(got, np.float64) - want))
    if case["function"].startswith("grad "):
        assert error <= tolerance * max(np.max(np.abs(want)), 1e-3)
    else:
        assert error <= tolerance * max(1, np.max(np.abs(want)))


def test_there_are_as_many_values_as_the_origin_says():
    assert len(CASES) == 59
    assert sum(case["function"].startswith("grad ") for case in CASES) >= 5


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_value_in_float32(case):
    if case["tol32"] is None:
        pytest.skip("float32 cannot resolve this value")
    assert_close(case, jnp.float32, case["tol32"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_value_in_float64(case):
    with jax.enable_x64(True):
        assert_close(case, jnp.float64, case["tol64"])
