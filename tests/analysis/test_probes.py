"""Probes of networks that are not ours, and of Gaussians whose information is known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.datasets import load_digits

from dib_jax import information as info
from dib_jax.analysis import layer_outputs, probe
from dib_jax.analysis.probes import (
    EPSILON,
    Target,
    in_a_row,
    make_grams,
    quantities,
)

ALPHA = 1.01


class Example(nn.Module):
    """The convnet of Flax's MNIST example, narrower; nothing of this package."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(10)(nn.relu(nn.Dense(16)(x)))


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = (data.images[:60, :, :, None] / 16).astype(np.float32)
    return {"images": images, "labels": data.target[:60]}


@pytest.fixture(scope="module")
def network(digits):
    module = Example()
    return module, module.init(jax.random.key(0), digits["images"])


@pytest.fixture(scope="module")
def found(network, digits):
    return probe(layer_outputs(*network), digits, alpha=ALPHA)


@pytest.fixture(scope="module")
def grams(network, digits):
    outputs = layer_outputs(*network)(digits["images"])
    made = [info.gaussian_gram(x, sigma=info.mean_bandwidth(x)) for x in outputs]
    images = digits["images"]
    first = info.gaussian_gram(images, sigma=info.mean_bandwidth(images))
    return outputs, first, made


def test_the_layers_of_a_flax_module_come_in_the_order_of_their_calls(network, digits):
    outputs = layer_outputs(*network)(digits["images"])
    shapes = [(60, 8, 8, 4), (60, 4, 4, 6), (60, 16), (60, 10)]
    assert [x.shape for x in outputs] == shapes
    module, variables = network
    np.testing.assert_array_equal(
        outputs[-1], module.apply(variables, digits["images"])
    )
    chosen = layer_outputs(*network, names=["Dense_1"])(digits["images"])
    assert [x.shape for x in chosen] == [(60, 16)]
    with pytest.raises(
        ValueError, match="no submodule 'Dense_7' was called; there are"
    ):
        layer_outputs(*network, names=["Dense_7"])(digits["images"])


def test_a_network_that_is_not_ours_is_measured_by_the_public_functions(
    found, grams, digits
):
    """Each quantity a second time, one by one, from its definition."""
    outputs, first, made = grams
    target = info.label_gram(digits["labels"])

    def close(name, wanted, atol=2e-3):
        np.testing.assert_allclose(found[name], wanted, atol=atol, err_msg=name)

    def bits(a, b):
        return info.mutual_information(a, b, alpha=ALPHA)

    nodes = [first, *made]
    close("input_stage", [bits(first, gram) for gram in made])
    close("stage_target", [bits(gram, target) for gram in made])
    close("previous_stage", [bits(a, b) for a, b in zip(nodes, made, strict=False)])
    close("entropy", [info.renyi_entropy(gram, alpha=ALPHA) for gram in made])
    close("stage_stage", [[bits(a, b) for b in made] for a in made])
    close("total_correlation", info.total_correlation(*made, alpha=ALPHA), atol=5e-3)
    close("input_target", bits(first, target))
    close(
        "conditional_target",
        [
            info.joint_entropy(now, before, alpha=ALPHA)
            + info.joint_entropy(target, before, alpha=ALPHA)
            - info.renyi_entropy(before, alpha=ALPHA)
            - info.joint_entropy(now, target, before, alpha=ALPHA)
            for before, now in zip(nodes, made, strict=False)
        ],
        atol=5e-3,
    )
    close("cka_stage", [[info.cka(a, b) for b in made] for a in made], atol=1e-4)
    close(
        "linear_cka_stage",
        [[info.linear_cka(a, b) for b in outputs] for a in outputs],
        atol=1e-4,
    )
    for name, other in (("input", first), ("target", target)):
        close(
            f"nhsic_{name}",
            [info.normalized_hsic(other, gram, epsilon=EPSILON) for gram in made],
        )
    close(
        "effective_rank",
        [info.effective_rank(info.linear_gram(x)) for x in outputs],
        atol=1e-2,
    )
    close("sigma", [info.mean_bandwidth(x) for x in outputs], atol=1e-4)


def test_labels_dealt_out_wrongly_are_told_less_about(found):
    assert np.all(found["stage_target_shuffled"] < found["stage_target"] - 0.1)


def test_a_target_by_its_gram_is_measured_as_by_its_labels(network, digits, found):
    batch = {
        "images": digits["images"],
        "target_gram": info.label_gram(digits["labels"]),
    }
    by_gram = probe(layer_outputs(*network), batch, alpha=ALPHA)
    for name in ("stage_target", "stage_target_shuffled", "conditional_target"):
        np.testing.assert_allclose(by_gram[name], found[name], atol=2e-3)


def gaussian_chain(key, widths, noises):
    """T_k = W_k T_{k−1} + noise: W and the covariances of all T_k with each other."""
    keys = jax.random.split(key, len(widths) - 1)
    weights = [
        np.asarray(jnp.linalg.qr(jax.random.normal(k, (b, a)))[0], np.float64)
        for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)
    ]
    # Each T as a linear map of all independent sources: X and every noise.
    maps = [np.eye(widths[0], sum(widths))]
    for index, (weight, noise) in enumerate(zip(weights, noises, strict=True)):
        own = np.zeros((widths[index + 1], sum(widths)))
        start = sum(widths[: index + 1])
        own[:, start : start + widths[index + 1]] = noise * np.eye(widths[index + 1])
        maps.append(weight @ maps[-1] + own)
    return maps


def gaussian_information(a, b):
    def logdet(m):
        return np.linalg.slogdet(m @ m.T)[1]

    both = np.concatenate([a, b])
    return (logdet(a) + logdet(b) - logdet(both)) / 2 / np.log(2)


def test_of_a_linear_gaussian_network_the_order_is_that_of_the_closed_form():
    """I(X;T_k) and I(T_i;T_j) of networks of several noises, ranked by both.

    Orthogonal weights: directions of little variance count in full for the closed form
    and hardly for a kernel with one width, so with any weights it is 0.93 to 0.98.
    """
    widths, n = (3, 3, 3, 3), 128
    estimates, truths = [], []

    @jax.jit
    def measure(x, stages, target):
        grams = make_grams(x, stages, bandwidth="mean")
        return quantities(grams, target, alpha=ALPHA, sizes={})

    for index, noise in enumerate((0.1, 0.25, 0.5, 1.0, 2.0)):
        maps = gaussian_chain(jax.random.key(1), widths, (noise,) * 3)
        sources = jax.random.normal(jax.random.key(10 + index), (n, sum(widths)))
        stages = [sources @ jnp.asarray(m.T, jnp.float32) for m in maps[1:]]
        x = sources[:, : widths[0]]
        target = info.gaussian_gram(x, sigma=info.mean_bandwidth(x))
        found = measure(x, stages, Target(target, target, None))
        np.testing.assert_allclose(
            found["stage_target"], found["input_stage"], atol=1e-3
        )
        estimates += list(found["input_stage"])
        truths += [gaussian_information(maps[0], m) for m in maps[1:]]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            estimates.append(found["stage_stage"][i, j])
            truths.append(gaussian_information(maps[i + 1], maps[j + 1]))
    assert scipy.stats.spearmanr(estimates, truths).statistic >= 0.95


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"images": np.zeros((1, 2)), "labels": [0]}, r"n ≥ 2, got shape \(1, 2\)"),
        ({"images": np.zeros((4, 2))}, "must have 'labels' .* or 'target_gram'"),
        ({"images": np.zeros((4, 2)), "labels": [0, 1]}, "of the 4 samples in"),
        ({"labels": [0, 1]}, "batch has no 'images'"),
        ({"images": np.zeros((4, 2)), "target_gram": np.eye(4)}, "must have trace 1"),
    ],
)
def test_a_batch_that_cannot_be_probed_is_named(batch, message):
    with pytest.raises(ValueError, match=message):
        probe(lambda x: [x], batch)


@pytest.mark.parametrize(
    ("apply", "message"),
    [(lambda x: [], "at least one stage"), (lambda x: [x[:2]], "of the 4 samples it")],
)
def test_activations_of_other_samples_are_refused(apply, message):
    with pytest.raises(ValueError, match=message):
        probe(apply, {"images": np.zeros((4, 2)), "labels": [0, 0, 1, 1]})


def test_an_input_of_several_arrays_counts_as_all_of_them_in_a_row():
    x = np.arange(60.0).reshape(6, 5, 2)
    np.testing.assert_array_equal(in_a_row(x), x)
    parts = {"a": x[:, :3], "b": x[:, 3:]}
    np.testing.assert_array_equal(in_a_row(parts), x.reshape(6, -1))
