"""All stages together, errors coming back through weights of their own.

The network trains as one, by the task's loss, and its forward pass is the usual one. Of
the backward pass one thing differs: δ_l = B_l δ_{l+1} ∘ σ', where `model.feedback` says
what B_l is (`dib_jax.models.feedback`). The output layer has a B, too; the first layer
needs none.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from dib_jax.algorithms import Algorithm, Batch, Occasional, Parts, Terms, per_phase
from dib_jax.algorithms import Network as AnyNetwork
from dib_jax.algorithms.blocks import (
    Block,
    Network,
    StageState,
    States,
    Variables,
    block,
    collapse,
    gradients,
    local,
    stack,
    task_loss,
)
from dib_jax.models.feedback import FEEDBACK, backward_weights
from dib_jax.models.options import check_at_least, check_positive

# What is recorded of a layer, after its name: the angle between B and W's transpose,
# and between the gradient of W as it comes back and the true one.
WEIGHT_ANGLE, GRADIENT_ANGLE = "_weight_angle", "_gradient_angle"
# Of the difference between Kolen and Pollack's B and W's transpose, what may be left at
# the end: with more the angle is above 5 degrees or so.
_MOST_LEFT = 0.1

# Of a module: (name of the layer, path of its parameters).
_Path = tuple[str, ...]
# Variables of a block's stages and of its head, by the name of each.
_Named = Mapping[str, Variables]


class _Mirror(NamedTuple):
    """How a mirror learns, as of `feedback`."""

    rate: float
    decay: float
    noise: int


def feedback(
    parts: Parts,
    *,
    rate: float = 0.01,
    decay: float = 0.005,
    noise: int = 128,
    every: int = 50,
    remat: bool = False,
) -> Algorithm:
    """All stages together, errors coming back through weights of their own.

    For networks with `model.feedback`. Recorded are, for each layer, the angle between
    B and Wᵀ and that between the gradient of W and the true one, in degrees; at the end
    results.json has the former as `angles`, input side first.

    Args:
        parts: network, heads, objective, as a config has them. Only the last stage's
            head is used, which must be linear, and the objective is not.
        rate: for model.feedback=mirror, of the mirror's learning, > 0.
        decay: for model.feedback=mirror, of its weights at each step, 0 to 1, 0
            excluded; rate / (2 · decay) is the size of B in units of W's.
        noise: for model.feedback=mirror, samples of noise at each step.
        every: steps from one measurement of the angles to the next; each costs two
            backward passes.
        remat: whether the backward pass recomputes each stage from its input: less
            memory, more time, the same gradient.

    Raises:
        ValueError: an option out of its range, `epochs` with more than one number, or a
            network or a head that has no feedback weights.

    Source: Akrout et al., arXiv 1904.05391 (mirror and Kolen-Pollack); Lillicrap et
    al., Nature Communications 7, 2016 (alignment); Liao, Leibo & Poggio, arXiv
    1510.05067 (signs).
    """
    mirror = _mirror(rate, decay, noise)
    check_at_least(1, every=every)
    (epochs,) = per_phase(parts.epochs, 1)
    rule = _rule(parts)
    stages = range(len(parts.stages))
    made = block(parts, stages, epochs, objective=task_loss, remat=remat, fed_back=True)
    whole, plain = _with_rule(made, rule), _with_rule(made, "")
    usual = local(whole, epochs)
    (number,) = usual.exits

    def step(
        states: States, network: AnyNetwork, batch: Batch, key: jax.Array
    ) -> tuple[States, dict[int, Terms]]:
        angles = _measured(whole, plain, rule, every, states[0], batch, key)
        (state,), terms = usual.step(states, network, batch, key)
        state = _renewed(rule, mirror, state, jax.random.fold_in(key, 1))
        return (state,), {number: {**terms[number], **angles}}

    def about(network: Network) -> dict[str, Any]:
        angles = _weight_angles(rule, _named(network.stages, network.heads[-1]))
        return {"angles": [round(float(angle), 3) for angle in angles.values()]}

    phase = usual._replace(step=step, notices=_notices(rule, whole))
    return stack([phase], [whole])._replace(about=about)


def _mirror(rate: float, decay: float, noise: int) -> _Mirror:
    check_positive(rate=rate)
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be 0 to 1, 0 excluded, got {decay!r}")
    check_at_least(1, noise=noise)
    return _Mirror(rate, decay, noise)


def _rule(parts: Parts) -> str:
    """The rule that all stages and the head follow."""
    rule = getattr(parts.stages[0], "feedback", None)
    if not rule:
        raise ValueError(
            "algorithm.name: got 'feedback', but the network has no feedback weights; "
            + (
                "set model.feedback, or use algorithm.name=end_to_end"
                if rule == ""
                else "the networks that can have some are mlp, cnn, lenet, "
                "vgg and resnet"
            )
        )
    if not hasattr(parts.head(len(parts.stages) - 1), "feedback"):
        raise ValueError(
            "head.name: this head has no feedback weights; use head.name=linear with "
            "algorithm.name=feedback"
        )
    return str(rule)


def _with_rule(made: Block, rule: str) -> Block:
    return made._replace(
        stages=tuple(stage.clone(feedback=rule) for stage in made.stages),
        head=made.head.clone(feedback=rule),
    )


# Layers and their angles --------------------------------------------------------------


def _named(stages: tuple[Variables, ...], head: Variables) -> dict[str, Variables]:
    return {f"stage{i}": entry for i, entry in enumerate(stages)} | {"head": head}


def _kernels(params: Mapping[str, Any], name: str) -> dict[str, jax.Array]:
    """The W of each layer of a module, by the layer's name; of the head just that."""
    return {
        name if name == "head" else "_".join((name, *path[:-1])): leaf
        for path, leaf in flatten_dict(params).items()
        if path[-1] == "kernel"
    }


def _fed_back(variables: Variables) -> Iterator[tuple[_Path, jax.Array, Variables]]:
    """Path, W and what it keeps for B, of each layer of a module that has a B."""
    params = flatten_dict(variables["params"])
    kept = flatten_dict(variables.get(FEEDBACK, {}))
    for path, kernel in params.items():
        *place, last = path
        if last != "kernel":
            continue
        own = {p[-1]: leaf for p, leaf in kept.items() if list(p[:-1]) == place}
        if (learnt := (*place, FEEDBACK)) in params:
            own["kernel"] = params[learnt]
        if own:
            yield tuple(place), kernel, own


def _weight_angles(rule: str, named: _Named) -> dict[str, jax.Array]:
    return {
        name if name == "head" else "_".join((name, *place)): angle(
            backward_weights(rule, kernel, own), kernel
        )
        for name, variables in named.items()
        for place, kernel, own in _fed_back(variables)
    }


def angle(a: jax.Array, b: jax.Array) -> jax.Array:
    """The angle between two arrays as vectors, 0 to 180 degrees; 90 if one is 0.

    Args:
        a: of any shape.
        b: of the same.
    """

    def unit(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).ravel()
        largest = jnp.max(jnp.abs(x))
        x = x / jnp.where(largest > 0, largest, 1)
        norm = jnp.linalg.norm(x)
        return x / jnp.where(norm > 0, norm, 1)

    one, other = unit(a), unit(b)
    # Not arccos, which has half the digits where the two are nearly parallel.
    difference, total = jnp.linalg.norm(one - other), jnp.linalg.norm(one + other)
    return jnp.degrees(2 * jnp.arctan2(difference, total))


def _measured(
    whole: Block,
    plain: Block,
    rule: str,
    every: int,
    state: StageState,
    batch: Batch,
    key: jax.Array,
) -> Terms:
    """Angles of a batch before its update, at some of the steps."""

    def measure() -> dict[str, jax.Array]:
        named = _named(state.variables(), state.head)
        found = {
            f"{name}{WEIGHT_ANGLE}": value
            for name, value in _weight_angles(rule, named).items()
        }
        ours, true = (
            dict(_gradients(each, state, batch, key)) for each in (whole, plain)
        )
        return found | {
            f"{name}{GRADIENT_ANGLE}": angle(ours[name], true[name]) for name in ours
        }

    def nothing() -> dict[str, jax.Array]:
        shapes = jax.eval_shape(measure)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    now = state.step % every == 0
    found = jax.lax.cond(now, measure, nothing)
    return {name: Occasional(value, now) for name, value in found.items()}


def _gradients(
    block: Block, state: StageState, batch: Batch, key: jax.Array
) -> Iterator[tuple[str, jax.Array]]:
    """The gradient of each layer's W, by the layer's name."""
    stages, head, _ = gradients(block, state, batch, key).trainable
    for name, params in [
        *((f"stage{i}", p) for i, p in enumerate(stages)),
        ("head", head),
    ]:
        yield from _kernels(params, name).items()


# Between steps ------------------------------------------------------------------------


def _renewed(
    rule: str, mirror: _Mirror, state: StageState, key: jax.Array
) -> StageState:
    """The state with feedback weights as they are for the next batch."""
    change: Callable[..., dict[str, jax.Array]]
    if rule == "mirror":
        change = functools.partial(_mirrored, mirror)
    elif rule == "sign_random_batch":
        change = _redrawn
    else:
        return state
    named = _named(state.variables(), state.head)
    new = []
    for index, variables in enumerate(named.values()):
        kept = flatten_dict(variables.get(FEEDBACK, {}))
        module_key = jax.random.fold_in(key, index)
        for layer, (place, kernel, own) in enumerate(_fed_back(variables)):
            layer_key = jax.random.fold_in(module_key, layer)
            for name, value in change(kernel, own, layer_key).items():
                kept[*place, name] = value
        new.append({FEEDBACK: unflatten_dict(kept)} if kept else {})
    fixed = tuple(
        {**old, **renewed} for old, renewed in zip(state.fixed, new[:-1], strict=True)
    )
    return state.replace(fixed=fixed, head={**state.head, **new[-1]})


def _redrawn(kernel: jax.Array, own: Variables, key: jax.Array) -> dict[str, jax.Array]:
    return {"sizes": jnp.abs(jax.random.normal(key, kernel.shape))}


def _mirrored(
    mirror: _Mirror, kernel: jax.Array, own: Variables, key: jax.Array
) -> dict[str, jax.Array]:
    """B after a moment in mirror mode: (1 − decay) B + rate · mean of ξ yᵀ.

    The layer gets noise ξ and nothing else, and its units are rectified: y = max(Wξ, 0)
    less its mean. For Gaussian noise of variance 1 the mean of ξ yᵀ is W/2 (Stein's
    lemma, each unit being active half of the time), so B settles, up to the noise of
    its average, on rate / (2 · decay) times W. A convolution's noise is neighbourhoods
    of pixels, which its weights see one by one as those of a dense layer.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    x = jax.random.normal(key, (mirror.noise, len(matrix)))
    y = jax.nn.relu(x @ matrix)
    learnt = x.T @ (y - jnp.mean(y, axis=0)) / mirror.noise
    back = (1 - mirror.decay) * own["kernel"]
    return {"kernel": back + mirror.rate * learnt.reshape(kernel.shape)}


# Whether Kolen and Pollack's B can get near -------------------------------------------


def difference_left(optimizer: optax.GradientTransformation, steps: int) -> float:
    """Of the difference of two weights with the same gradients, what is left at last.

    Equal gradients move both alike, so weight decay alone takes them together: as much
    is left of their difference as of a weight that has no gradient. With SGD that is
    about exp(−Σ rate · decay / (1 − momentum)), with AdamW exp(−Σ rate · decay).

    Args:
        optimizer: of both; its weight decay is linear in the weights.
        steps: how many updates.
    """

    @jax.jit
    def run() -> jax.Array:
        weight = jnp.ones((1, 1))

        def decayed(carry: Any, _: None) -> tuple[Any, None]:
            weight, state = carry
            updates, state = optimizer.update(jnp.zeros((1, 1)), state, weight)
            return (optax.apply_updates(weight, updates), state), None

        start = weight, optimizer.init(weight)
        return jax.lax.scan(decayed, start, length=steps)[0][0]

    return float(jnp.abs(run()[0, 0]))


def _notices(
    rule: str, whole: Block
) -> Callable[[Mapping[str, float]], dict[str, str]]:
    """What `collapse` says, and what Kolen and Pollack's rule lacks."""

    @functools.cache
    def left() -> float:
        if rule != "kolen_pollack":
            return 0.0
        return difference_left(whole.optimizer, whole.steps)

    def notices(means: Mapping[str, float]) -> dict[str, str]:
        said = collapse(means)
        if left() > _MOST_LEFT:
            said["unaligned"] = (
                f"{left():.0%} of the initial difference between B and the transpose "
                "of W will be left at the end, as weight decay alone reduces it; take "
                "a larger optimizer.weight_decay or learning_rate, more epochs, or "
                "optimizer.name=sgd with momentum (adamw decays less at each step)"
            )
        return said

    return notices
