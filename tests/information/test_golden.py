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
KINDS = ("gaussian", "channel", "kernel", "label")
CASES = [json.loads(str(case)) for case in DATA["cases"]]


def inputs_of(case, dtype):
    """The arrays that a case names, by name."""
    names = [case["x"]] if "x" in case else []
    for spec in case.get("grams", []):
        names += [spec[kind] for kind in KINDS if kind in spec]
    arrays = {name: DATA[f"input/{name}"] for name in names}
    return {
        name: values if values.dtype.kind == "i" else values.astype(dtype)
        for name, values in arrays.items()
    }


def gram_of(spec, inputs):
    sigma = np.asarray(spec["sigma"]) if "sigma" in spec else None
    if "gaussian" in spec:
        x = inputs[spec["gaussian"]]
        return information.gaussian_gram(x, sigma=sigma.astype(x.dtype))
    if "channel" in spec:
        x = inputs[spec["channel"]]
        return information.channel_gram(x, sigma=sigma.astype(x.dtype))
    if "kernel" in spec:
        return information.normalize_gram(inputs[spec["kernel"]])
    return information.label_gram(inputs[spec["label"]])


def value_of(case, inputs):
    grams = [gram_of(spec, inputs) for spec in case.get("grams", [])]
    options = dict(case.get("options", {}))
    if "alpha" in case:
        options["alpha"] = math.inf if case["alpha"] == "inf" else case["alpha"]
    name = case["function"]
    if name.startswith("grad "):
        measure = getattr(information, name.removeprefix("grad "))

        def loss(x):
            features = information.gaussian_gram(x, sigma=case["sigma"])
            return measure(features, *grams, **options)

        return jax.grad(loss)(inputs[case["x"]])
    function = getattr(information, name)
    if name == "mutual_information_matrix":
        return function(jnp.stack(grams), **options)
    if "sigma" in case:
        options["sigma"] = case["sigma"]
    first = [inputs[case["x"]]] if "x" in case else []
    return function(*first, *grams, **options)


def assert_close(case, dtype, tolerance):
    want = DATA["value/" + case["key"]]
    inputs = inputs_of(case, dtype)
    labels = {name: x for name, x in inputs.items() if x.dtype.kind == "i"}
    numbers = {name: x for name, x in inputs.items() if name not in labels}
    # Labels stay concrete, as some functions want them.
    got = jax.jit(lambda numbers: value_of(case, numbers | labels))(numbers)
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
