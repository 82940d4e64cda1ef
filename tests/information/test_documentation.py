"""The page of the measures: complete, and its examples run."""

import doctest
import pathlib
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "information.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
REFERENCE = TEXT[TEXT.index("## Reference") : TEXT.index("### What is not here")]
# What makes an example long → what it is here.
SHORTER = {
    "steps=200, batch=128": "steps=2, batch=8",
    "(0.0, 0.1, 0.3)": "(0.1,)",
    "max_iter=60": "max_iter=2",
    "data[1200:1712], labels[1200:1712]": "data[1200:1220], labels[1200:1220]",
    "for features in (x, *layers)": "for features in (layers[0],) * 4",
    "range(99)": "range(3)",
    "in columns.T]": "in columns.T[-2:]]",
    "size=(2, 400, 1)": "size=(2, 20, 1)",
    "np.linspace(0, 0.995, 15)": "np.linspace(0, 0.995, 2)",
}


NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


class ToThreeDigits(doctest.OutputChecker):
    """The same words, and numbers that agree to three digits after the point."""

    def check_output(self, want, got, optionflags):
        numbers = [list(map(float, NUMBER.findall(text))) for text in (want, got)]
        words = [NUMBER.sub("", text).split() for text in (want, got)]
        return words[0] == words[1] and np.allclose(*numbers, atol=5e-4)


class InOneProgram:
    """The measures, each call of which is compiled as one program: in little time."""

    def __getattr__(self, name):
        function = getattr(info, name)
        if name in ("Estimate", "check_bandwidth"):  # no functions of arrays
            return function
        return lambda *args, **options: jax.jit(lambda: function(*args, **options))()


@pytest.mark.parametrize("name", info.__all__)
def test_the_example_of_a_docstring_gives_what_it_says(name):
    scope = {"info": InOneProgram(), "jax": jax, "jnp": jnp}
    text = getattr(info, name).__doc__
    example = doctest.DocTestParser().get_doctest(text, scope, name, None, None)
    assert any(f"info.{name}" in line.source for line in example.examples)
    said = []
    doctest.DocTestRunner(ToThreeDigits()).run(example, out=said.append)
    assert not said, "".join(said)


@pytest.fixture
def somewhere_else(tmp_path, monkeypatch):
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


def test_every_export_has_its_formula_and_its_example():
    rows = "\n".join(line for line in REFERENCE.splitlines() if line.startswith("|"))
    examples = "\n".join(BLOCKS)
    for name in info.__all__:
        assert re.search(rf"`{name}\(", rows), f"{name} has no row"
        assert f"info.{name}" in examples, f"{name} is in no example"


def test_the_reference_runs_from_top_to_bottom():
    def run():
        shown = []
        scope = {"print": lambda *values: shown.extend(values)}
        for block in re.findall(r"^```python\n(.*?)^```$", REFERENCE, re.S | re.M):
            exec(block, scope)
        made = {**scope, "shown": shown}
        return [x for x in jax.tree.leaves(list(made.values())) if is_array(x)]

    # As one program, which takes a tenth of the time.
    results = jax.jit(run)()
    assert len(results) > 40
    assert all(np.all(np.isfinite(result)) for result in results)


def is_array(value):
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.number)


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block not in REFERENCE],
    ids=lambda block: max(re.findall(r"\w+", block), key=len),
)
def test_an_example_runs(block, somewhere_else):
    for long, short in SHORTER.items():
        block = block.replace(long, short)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of a training cut short
        exec(block, {})


def test_what_is_made_shorter_is_there():
    assert [long for long in SHORTER if long not in TEXT] == []
