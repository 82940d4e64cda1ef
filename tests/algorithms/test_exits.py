"""Exits: rules, thresholds, and batches that only undecided samples stay in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.algorithms import AtExit, exits

pytestmark = pytest.mark.once

CLASSES = 4


def matrices(count=3, features=5):
    draw = np.random.default_rng(1)
    return tuple(
        (
            jnp.asarray(draw.normal(size=(features, features)), jnp.float32),
            jnp.asarray(2 * draw.normal(size=(features, CLASSES)), jnp.float32),
        )
        for _ in range(count)
    )


def pieces_of(count=3):
    """Layers of one matrix, each with a linear exit."""

    def piece(number, network, x):
        layer, head = network[number]
        x = {"x": jnp.tanh(x["x"] @ layer)}
        return AtExit(x, x["x"] @ head)

    return [
        lambda network, x, number=number: piece(number, network, x)
        for number in range(count)
    ]


def prepare(samples, common):
    return {"x": samples["x"] * common["scale"]}


def samples_of(count):
    draw = np.random.default_rng(2)
    return {"x": draw.normal(size=(count, 5)).astype(np.float32)}


COMMON = {"scale": np.float32(1.5)}


def one_by_one(network, samples, rule, tau):
    """What `compacted` is to give, without any batch."""
    outputs, left = [], []
    for row in range(len(samples["x"])):
        x = prepare({"x": samples["x"][row : row + 1]}, COMMON)
        found = 0
        for piece in pieces_of():
            at = piece(network, x)
            x = at.carried
            if float(exits.sureness(rule, at)[0]) >= tau:
                break
            found += 1
        outputs.append(np.asarray(at.outputs[0]))
        left.append(min(found, 2))
    return np.stack(outputs), np.array(left)


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
def test_every_sample_leaves_as_if_it_were_alone(rule):
    network, run = matrices(), exits.compacted(pieces_of(), prepare, rule=rule, size=16)
    samples = samples_of(71)
    for tau in (0.0, 0.5, 1.0):
        answers = run(network, COMMON, samples, tau)
        outputs, left = one_by_one(network, samples, rule, tau)
        np.testing.assert_array_equal(answers.exits, left)
        np.testing.assert_allclose(answers.outputs, outputs, rtol=1e-4, atol=1e-5)
    assert set(one_by_one(network, samples, rule, 0.5)[1]) == {0, 1, 2}


@pytest.mark.parametrize("count", [1, 16, 17])
def test_a_split_of_any_size_is_answered_in_order(count):
    network, samples = matrices(), samples_of(count)
    answers = exits.compacted(pieces_of(), prepare, size=16)(
        network, COMMON, samples, 0.6
    )
    outputs, left = one_by_one(network, samples, "confidence", 0.6)
    np.testing.assert_array_equal(answers.exits, left)
    np.testing.assert_allclose(answers.outputs, outputs, rtol=1e-4, atol=1e-5)


def test_only_full_batches_of_undecided_samples_go_on():
    done = []

    def counting(piece, number):
        def counted(network, x):
            jax.debug.callback(lambda: done.append((number, len(x["x"]))))
            return piece(network, x)

        return counted

    network, samples = matrices(), samples_of(160)
    pieces = [counting(piece, n) for n, piece in enumerate(pieces_of())]
    run = exits.compacted(pieces, prepare, size=32)
    answers = run(network, COMMON, samples, 0.6)
    jax.effects_barrier()
    rows = [sum(size for n, size in done if n == number) for number in range(3)]
    stays = [int((answers.exits >= number).sum()) for number in range(3)]
    assert rows[0] == 160
    for ran, needed in zip(rows[1:], stays[1:], strict=True):
        assert 0 < needed <= ran < needed + 32
    assert rows[2] < rows[1] < rows[0]


def test_confidence_and_entropy_are_1_of_certain_and_least_of_even_outputs():
    at = AtExit(None, jnp.array([[90.0, 0, 0, 0], [1, 1, 1, 1]]))
    np.testing.assert_allclose(exits.sureness("confidence", at), [1, 0.25], atol=1e-6)
    np.testing.assert_allclose(exits.sureness("entropy", at), [1, 0], atol=1e-6)
    with pytest.raises(ValueError, match="no commitment layers; use confidence or"):
        exits.sureness("commitment", at)
    with pytest.raises(ValueError, match="must be one of confidence, entropy, commit"):
        exits.sureness("hope", at)


def test_the_logit_of_confidence_keeps_its_digits_near_1():
    outputs = jnp.array([[40.0, 0.0, 1.0]])
    want = 40 - np.log(1 + np.e)
    np.testing.assert_allclose(exits.confidence_logit(outputs), [want], rtol=1e-6)


@pytest.fixture
def split():
    draw = np.random.default_rng(3)
    sure = draw.uniform(size=(3, 200))
    sure[-1] = 0  # nobody asks
    return sure, draw.uniform(size=(3, 200)) < 0.4 + 0.5 * sure


def test_a_curve_has_the_accuracy_and_the_cost_of_each_threshold(split):
    sure, right = split
    flops = (3.0, 5.0, 7.0)
    taus = exits.thresholds(sure, count=7)
    assert taus[0] == 0
    assert taus[-1] == 1
    found = exits.curve(sure, right, flops, taus)
    for place, tau in enumerate(taus):
        left = [
            next(k for k in range(3) if k == 2 or sure[k, n] >= tau) for n in range(200)
        ]
        assert found.accuracy[place] == np.mean(
            [right[k, n] for n, k in enumerate(left)]
        )
        assert found.flops[place] == pytest.approx(
            np.mean([sum(flops[: k + 1]) for k in left])
        )
        np.testing.assert_allclose(
            found.shares[place], np.bincount(left, minlength=3) / 200
        )
    assert found.flops[0] == 3
    assert found.flops[-1] == pytest.approx(15)


def test_the_threshold_is_the_best_within_the_cost_or_the_cheapest_within_the_loss():
    found = exits.Curve(
        np.array([0, 0.3, 0.6, 0.9]),
        np.array([0.70, 0.80, 0.84, 0.83]),
        np.array([1.0, 2, 3, 4]),
        np.zeros((4, 2)),
    )
    assert exits.choose(found, loss=0.0) == 0.6
    assert exits.choose(found, loss=0.05) == 0.3
    assert exits.choose(found, cost=2.5) == 0.3
    assert exits.choose(found, cost=9) == 0.6
    assert exits.choose(found, cost=0.1) == 0  # none is so cheap
