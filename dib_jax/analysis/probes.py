"""What a network's activations hold at one moment, measured on one sample of pictures.

Every stage becomes two Grams of the same n samples: a Gaussian one, whose width follows
a rule from the activations themselves and is recorded, and a linear one. All quantities
are functions of these Grams, the input's and the target's; information is in bits.

The Gaussian Gram of a feature map (n, h, w, c) is its channel Gram, the Hadamard
product over channels, with one width for all channels by the rule for the whole map:
the tensor kernel of Wickstrøm et al., arXiv 1909.11396. With a width for each channel
by the same rule the exponents of c channels add up, and a map of many channels holds
log2 n bits, whatever is in it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dib_jax import information as info
from dib_jax.information.dependence import smoother
from dib_jax.information.entropy import hadamard
from dib_jax.information.gram import check_gram, check_trace

Apply = Callable[[Any], Sequence[Any]]
# What must be known of a target with labels when a program is compiled: `num_classes`
# and `class_size`, samples of the largest class; empty for a target without labels.
Sizes = Mapping[str, int]

# Regularisation of the normalised HSIC. With the 1e-5 of arXiv 1908.01580 it saturates
# on some hundred samples: of 144 digits a last stage had 8.97 of 9 possible with the
# labels, trained or not, and 8.8 with shuffled ones; with this 3.6 untrained, 4.8
# trained, and 1.0 with shuffled ones.
EPSILON = 1e-2


class Target(NamedTuple):
    """What the activations are to tell about, for n samples.

    Attributes:
        gram: (n, n), its Gram.
        shuffled: (n, n), that of the same targets dealt out to the wrong samples.
        labels: int (2, n), classes 0..C−1 of both, where `gram` is their `label_gram`;
            else None.
    """

    gram: jax.Array
    shuffled: jax.Array
    labels: jax.Array | None


class Grams(NamedTuple):
    """The input and s stages as Grams of the same n samples.

    Attributes:
        input: (n, n), of the network's input.
        stages: (s, n, n), Gaussian.
        linear: (s, n, n), `linear_gram`.
        sigma: (s,), widths of the Gaussian ones.
    """

    input: jax.Array
    stages: jax.Array
    linear: jax.Array
    sigma: jax.Array


def probe(
    apply: Apply,
    batch: Mapping[str, Any],
    *,
    alpha: float = 1.01,
    bandwidth: str | float = "mean",
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """All quantities of a network that need not be ours, in one jitted pass.

    Args:
        apply: input → activations (n, …) of each stage, input side first; must be
            traceable. `layer_outputs` makes one of any Flax module.
        batch: `images` (n, …), what `apply` is given, n ≥ 2; and either `labels`,
            integers (n,), or `target_gram` (n, n) for other targets.
        alpha: order of the Rényi entropy, > 0.
        bandwidth: rule of the kernel widths: mean, median, knn, quantile or scott; or
            the width itself.
        seed: of the order in which the shuffled targets are dealt out.

    Returns:
        As `quantities`, and `sigma` (s,).

    Raises:
        ValueError: `batch` has not those entries or their sizes differ, `apply` gives
            no activations of n samples, or an option is impossible.
    """
    if "images" not in batch:
        raise ValueError(f"batch has no 'images', only {sorted(batch)}")
    images = jnp.asarray(batch["images"])
    count = images.shape[0] if images.ndim else 0
    if count < 2:
        raise ValueError(
            f"batch['images'] must be (n, …) with n ≥ 2, got shape {images.shape}"
        )
    order = np.random.default_rng(seed).permutation(count)
    target, sizes = make_target(batch, order)
    measure = functools.partial(quantities, alpha=alpha, sizes=sizes)

    @jax.jit
    def run(images: jax.Array, target: Target) -> dict[str, jax.Array]:
        grams = make_grams(images, apply(images), bandwidth=bandwidth)
        return {**measure(grams, target), "sigma": grams.sigma}

    return jax.tree.map(np.asarray, run(images, target))


def layer_outputs(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    names: Sequence[str] = (),
    **options: Any,
) -> Apply:
    """The outputs of a Flax module's own submodules, for `probe`.

    Functions that are no modules, such as `nn.relu`, are not seen: what is measured is
    what each submodule returns.

    Args:
        module: a linen module.
        variables: its variables.
        names: those submodules to keep, as in `variables["params"]`; all where empty.
        options: passed to `module.apply`, such as `train=False`.

    Returns:
        Input → outputs, in the order of the calls. One submodule that is called twice
        is there twice. It raises a ValueError where a name is none of a submodule that
        was called and gave an array.
    """

    def apply(inputs: Any) -> list[jax.Array]:
        found: list[tuple[str, jax.Array]] = []

        def watch(function: Any, arguments: Any, keywords: Any, context: Any) -> Any:
            output = function(*arguments, **keywords)
            path = context.module.path
            is_own = len(path) == 1 and context.method_name == "__call__"
            if is_own and isinstance(output, jax.Array):
                found.append((path[0], output))
            return output

        with nn.intercept_methods(watch):
            module.apply(variables, inputs, **options)
        known = list(dict.fromkeys(name for name, _ in found))
        if missing := [name for name in names if name not in known]:
            raise ValueError(
                f"names: no submodule {missing[0]!r} was called; there are {known}"
            )
        return [output for name, output in found if name in (names or known)]

    return apply


def make_target(batch: Mapping[str, Any], order: np.ndarray) -> tuple[Target, Sizes]:
    """The target of a batch, and its shuffled control.

    Args:
        batch: `labels`, integers (n,), or `target_gram` (n, n), which goes first.
        order: a permutation of the n samples.

    Returns:
        The target, and the sizes that `quantities` needs to know of it.

    Raises:
        ValueError: there is neither, the sizes differ, or the Gram's trace is not 1.
    """
    if (given := batch.get("target_gram")) is not None:
        gram, labels = check_gram(given), None
        check_trace(gram)
    elif (labels := batch.get("labels")) is not None:
        gram = info.label_gram(jnp.asarray(labels))
    else:
        raise ValueError("batch must have 'labels' (n,) or 'target_gram' (n, n)")
    if gram.shape != (len(order), len(order)):
        raise ValueError(
            f"the target must be of the {len(order)} samples in 'images', got a Gram "
            f"of shape {gram.shape}"
        )
    shuffled = gram[order][:, order]
    if labels is None:
        return Target(gram, shuffled, None), {}
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    both = jnp.asarray(np.stack([classes, classes[order]]))
    sizes = {"num_classes": len(counts), "class_size": int(counts.max())}
    return Target(gram, shuffled, both), sizes


def make_grams(
    inputs: Any, activations: Sequence[Any], *, bandwidth: str | float
) -> Grams:
    """Grams of the input and of each stage's activations.

    Args:
        inputs: (n, …); several such arrays count as all of them in a row.
        activations: s of them, (n, …) each.
        bandwidth: rule of the widths, or a width.

    Raises:
        ValueError: there are no activations, they are not of n samples, or `bandwidth`
            is neither a rule nor a width.
    """
    rule = info.check_bandwidth(bandwidth)
    inputs = in_a_row(inputs)
    if not activations:
        raise ValueError("apply must return at least one stage's activations, got none")
    stages = [jnp.asarray(x) for x in activations]
    shapes = [x.shape for x in stages]
    if any(shape[:1] != inputs.shape[:1] for shape in shapes):
        raise ValueError(
            f"apply must return activations (n, …) of the {inputs.shape[0]} samples it "
            f"is given, got shapes {shapes}"
        )
    made = [_gaussian(x, rule) for x in stages]
    return Grams(
        input=_gaussian(inputs, rule)[0],
        stages=jnp.stack([gram for gram, _ in made]),
        linear=jnp.stack([info.linear_gram(x) for x in stages]),
        sigma=jnp.stack([sigma for _, sigma in made]),
    )


def in_a_row(inputs: Any) -> jax.Array:
    """One array (n, …) as it is, several as all their numbers for each sample."""
    first, *more = map(jnp.asarray, jax.tree.leaves(inputs))
    if not more:
        return first
    return jnp.concatenate([x.reshape(len(x), -1) for x in (first, *more)], axis=1)


def _gaussian(x: jax.Array, rule: str | float) -> tuple[jax.Array, jax.Array]:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    sigma = info.named_bandwidth(x, rule)
    gram = info.channel_gram if x.ndim == 4 else info.gaussian_gram
    return gram(x, sigma=sigma), sigma


def quantities(
    grams: Grams,
    target: Target,
    *,
    alpha: float,
    sizes: Sizes,
    epsilon: float = EPSILON,
) -> dict[str, jax.Array]:
    """Everything that is measured of s stages at one moment; T_0 is the input X.

    Args:
        grams: of input and stages.
        target: of the same samples.
        alpha: order of the Rényi entropy, > 0; static.
        sizes: of the target, as `make_target` gives them; static.
        epsilon: regularisation of the normalised HSIC, > 0.

    Returns:
        (s,): `input_stage` I(X;T_k), `stage_target` I(T_k;Y), `stage_target_shuffled`
        the same with shuffled targets, `previous_stage` I(T_{k−1};T_k), `entropy`
        H(T_k), `conditional_target` I(T_k;Y|T_{k−1}), `nhsic_input`, `nhsic_target`,
        `nhsic_target_shuffled`, `effective_rank` (of the covariance). (s, s):
        `stage_stage` I(T_i;T_j), `cka_stage`, `linear_cka_stage`. Scalars:
        `total_correlation` of all stages, `input_entropy`, `target_entropy`,
        `input_target` I(X;Y).

    Raises:
        ValueError: `alpha` or `epsilon` is impossible.
    """
    nodes = jnp.concatenate([grams.input[None], grams.stages])  # T_0 … T_s
    count = len(grams.stages)
    entropy = functools.partial(info.renyi_entropy, alpha=alpha)

    # One matrix after the other: a batch of decompositions is no faster on a CPU, and
    # a loop compiles one of them.
    whole = jnp.stack([target.gram, hadamard(*grams.stages)])
    single = jax.lax.map(entropy, jnp.concatenate([nodes, whole]))
    entropies, target_entropy, together = single[:-2], single[-2], single[-1]
    joint = _joint_entropies(nodes, entropy)
    information = entropies[:, None] + entropies[None, :] - joint

    # With the target: every T_k, every pair (T_{k−1}, T_k), and the shuffled control.
    pairs = jax.vmap(hadamard)(nodes[:-1], nodes[1:])
    others = jnp.concatenate([nodes, pairs, grams.stages])
    is_shuffled = jnp.asarray([0] * (2 * count + 1) + [1] * count)
    with_target = jax.lax.map(
        lambda one: _with_target(one[0], one[1], target, alpha, sizes),
        (others, is_shuffled),
    )
    stage_joint, pair_joint, shuffled_joint = jnp.split(
        with_target, [count + 1, 2 * count + 1]
    )
    about_target = entropies + target_entropy - stage_joint
    previous_joint = jnp.diagonal(joint, offset=1)
    conditional = previous_joint + stage_joint[:-1] - entropies[:-1] - pair_joint

    return {
        "input_stage": information[0, 1:],
        "stage_target": about_target[1:],
        "stage_target_shuffled": entropies[1:] + target_entropy - shuffled_joint,
        "previous_stage": jnp.diagonal(information, offset=1),
        "entropy": entropies[1:],
        "conditional_target": conditional,
        **_normalized_hsic(nodes, target, epsilon),
        "effective_rank": jax.lax.map(info.effective_rank, grams.linear),
        "stage_stage": information[1:, 1:],
        "cka_stage": info.cka_matrix(grams.stages),
        "linear_cka_stage": info.cka_matrix(grams.linear),
        "total_correlation": jnp.sum(entropies[1:]) - together,
        "input_entropy": entropies[0],
        "target_entropy": target_entropy,
        "input_target": about_target[0],
    }


def _joint_entropies(
    nodes: jax.Array, entropy: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Joint entropy of every two of (m, n, n) Grams, (m, m)."""
    count = len(nodes)
    rows, columns = np.triu_indices(count)
    joint = jax.lax.map(
        lambda pair: entropy(hadamard(nodes[pair[0]], nodes[pair[1]])),
        (jnp.asarray(rows), jnp.asarray(columns)),
    )
    joint = jnp.zeros((count, count)).at[rows, columns].set(joint)
    return jnp.maximum(joint, joint.T)


def _normalized_hsic(
    nodes: jax.Array, target: Target, epsilon: float
) -> dict[str, jax.Array]:
    """Of every stage with the input, which is the first node, and with the target."""
    whole = jnp.concatenate([nodes, jnp.stack([target.gram, target.shuffled])])
    smooth = jax.lax.map(functools.partial(smoother, epsilon=epsilon), whole)
    places = {"nhsic_input": 0, "nhsic_target": -2, "nhsic_target_shuffled": -1}
    return {
        name: jnp.einsum("kij,ji->k", smooth[1:-2], smooth[place])
        for name, place in places.items()
    }


def _with_target(
    gram: jax.Array, shuffled: jax.Array, target: Target, alpha: float, sizes: Sizes
) -> jax.Array:
    """Joint entropy with the target (0) or the shuffled one (1)."""
    if target.labels is None:
        dealt = jnp.stack([target.gram, target.shuffled])
        return info.renyi_entropy(hadamard(gram, dealt[shuffled]), alpha=alpha)
    labels = target.labels[shuffled]
    return info.label_joint_entropy(gram, labels, alpha=alpha, **sizes)
