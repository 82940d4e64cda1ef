"""Joint terms with labels by diagonal blocks against the dense way."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax import information as info

pytestmark = pytest.mark.once

N = 20
X = np.random.default_rng(0).normal(size=(N, 3))
LABELS = {
    "even": np.arange(N) % 5,
    "uneven": np.array([7] * 11 + [-3] * 5 + [100, 101, 102, 102]),
    "one class": np.zeros(N, int),
    "each its own": np.arange(N),
}


def gram(x):
    return info.gaussian_gram(x, sigma=1.5)


GRAM = np.exp(-np.sum((X[:, None] - X) ** 2, axis=-1)) / N


def dense_joint(x, labels, alpha):
    return info.joint_entropy(gram(x), info.label_gram(labels), alpha=alpha)


def dense_information(x, labels, alpha):
    return info.mutual_information(gram(x), info.label_gram(labels), alpha=alpha)


def assert_same(got, want, slack):
    np.testing.assert_allclose(got[0], want[0], rtol=1e-9, atol=slack)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-7, atol=1e3 * slack)


@functools.cache
def dense(function, alpha):
    return jax.jit(jax.value_and_grad(lambda x, labels: function(x, labels, alpha)))


ORDERS = [("uneven", alpha) for alpha in (0.5, 1.0, 2.0, 3.0)]


@pytest.mark.parametrize(("case", "alpha"), [*((c, 1.01) for c in LABELS), *ORDERS])
def test_concrete_labels_give_what_the_dense_way_gives(case, alpha):
    labels = LABELS[case]

    def loss(x):
        return info.label_mutual_information(gram(x), labels, alpha=alpha)

    with jax.enable_x64(True):
        got = jax.jit(jax.value_and_grad(loss))(X)
        want = dense(dense_information, alpha)(X, labels)
        assert_same(got, want, 1e-12)


@pytest.mark.parametrize(("size", "alpha"), [(4, 1.01), (7, 1.01), (100, 3.0)])
def test_traced_labels_give_what_the_dense_way_gives(size, alpha):
    def loss(x, labels):
        return info.label_joint_entropy(
            gram(x), labels, alpha=alpha, num_classes=6, class_size=size
        )

    rows = {
        "even, with an empty class": np.arange(N) % 5,
        "one class above the size": np.minimum(np.arange(N) // 2, 5),
        "a label that is too large": np.arange(N) % 5 + 3,
        "a negative label": np.arange(N) % 5 - 1,
    }
    with jax.enable_x64(True):
        by_blocks = jax.jit(jax.value_and_grad(loss))
        for labels in rows.values():
            want = dense(dense_joint, alpha)(X, labels)
            assert_same(by_blocks(X, labels), want, 1e-12)


def test_traced_labels_under_vmap():
    batch = np.stack([np.arange(N) % 5, np.zeros(N, int)])
    got = jax.jit(
        jax.vmap(
            lambda labels: info.label_mutual_information(
                gram(X), labels, alpha=1.01, num_classes=5, class_size=4
            )
        )
    )(batch)
    want = [dense(dense_information, 1.01)(X, labels)[0] for labels in batch]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_labels_that_are_closed_over_stay_concrete_and_need_no_large_problem():
    labels = jnp.arange(N) % 5
    for closed_over in (labels, np.asarray(labels)):
        function = functools.partial(
            info.label_joint_entropy, labels=closed_over, alpha=1.01
        )
        program = (
            jax.jit(jax.value_and_grad(function)).lower(np.float32(GRAM)).compile()
        )
        shapes = re.findall(r"= \((f32\[[\d,]*\]).*?syevd", program.as_text())
        assert shapes == ["f32[4,4]"]  # one by one, five times


def test_a_gram_of_any_trace_is_normalised():
    labels = LABELS["uneven"]
    entropy = jax.jit(lambda t: info.label_joint_entropy(t * gram(X), labels, alpha=3))
    np.testing.assert_allclose(entropy(1.0), entropy(5.0), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "sizes", "message"),
    [
        (np.zeros(N), {}, "labels must be integers, got float"),
        (np.zeros((N, 2), int), {}, r"labels must have shape \(n,\)"),
        (np.zeros(3, int), {}, "of the same samples, got 20 and 3"),
        (LABELS["even"], {"class_size": 0}, "class_size must be an integer ≥ 1"),
        (LABELS["even"], {"num_classes": 2.5}, "num_classes must be an integer ≥ 1"),
    ],
)
def test_mistakes_are_named(labels, sizes, message):
    for function in (info.label_joint_entropy, info.label_mutual_information):
        with pytest.raises(ValueError, match=message):
            function(GRAM, labels, alpha=1.01, **sizes)


@pytest.mark.parametrize("alpha", [1.01, 2.0])
def test_traced_labels_of_unknown_sizes_take_the_dense_way(alpha):
    with jax.enable_x64(True):
        for function, same in (
            (info.label_joint_entropy, dense_joint),
            (info.label_mutual_information, dense_information),
        ):
            loss = functools.partial(function, alpha=alpha)
            of_features = jax.jit(
                jax.value_and_grad(lambda x, labels, f=loss: f(gram(x), labels))
            )
            got = of_features(X, LABELS["uneven"])
            assert_same(got, dense(same, alpha)(X, LABELS["uneven"]), 1e-12)


def test_one_size_alone_is_refused():
    with pytest.raises(ValueError, match="together, or neither, got 5 and None"):
        info.label_joint_entropy(GRAM, LABELS["even"], num_classes=5)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([1, 2**32 + 1, 1, 2**40]),
        np.array([7, 2**63 + 7, 7, 2**63 + 8], np.uint64),
        [3, 2**35, 3, 2**36],
        np.array([0, 1, 0, 2], ">i4"),
    ],
    ids=["int64", "uint64", "list", "big-endian"],
)
def test_labels_of_any_width_and_byte_order_stay_apart(labels):
    want = [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(info.label_gram(labels), np.array(want) / 4)


def test_labels_that_are_words_are_refused():
    with pytest.raises(ValueError, match="labels must be numbers, got an array of <U1"):
        info.label_gram(np.array(["a", "b"]))
