"""Linear layers whose errors come back through weights of their own.

Back-propagation sends the error δ of a layer y = W x back as Wᵀ δ. Here it goes back as
B δ: B has the size of Wᵀ and is no copy of it, and a rule says what it is. W learns as
ever, from its input and the error of its output.

B is kept in W's layout, so that "B is Wᵀ" means two equal arrays. Where no gradient
trains it, it is in the collection `feedback`, which optimizers do not reach: weight
decay on a fixed B takes it to 0, and with it all that the layers below are told. Kolen
and Pollack's B alone is a parameter, since it is to get each update of W and its decay.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.options import check_one_of

# What B is under each rule.
RULES = {
    "": "the transpose of W: back-propagation",
    "alignment": "random and fixed",
    "sign_uniform": "the signs of W, all of one size",
    "sign_random_batch": "the signs of W, of sizes that are drawn for each batch",
    "sign_random_fixed": "the signs of W, of sizes that are drawn once",
    "kolen_pollack": "random at first; then it gets W's updates and weight decay",
    "mirror": "random at first; then it learns from noise that is sent through W",
}
# The collection of what no gradient trains; and, among the parameters of its layer, the
# name of the B that one does.
FEEDBACK = "feedback"

# Of a layer, by name: `kernel` is B itself; of a sign rule `scale` is the size of all
# its entries, and `sizes` those of each, in units of it.
Own = Mapping[str, jax.Array]
Initializer = Callable[..., jax.Array]


def check_feedback(feedback: str) -> None:
    """Refuse what is not the name of a rule.

    Args:
        feedback: the name.
    """
    check_one_of(RULES, feedback=feedback)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def fed_back(
    linear: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    back: jax.Array,
) -> jax.Array:
    """A product of x and W whose error goes back through B; reverse mode only.

    Args:
        linear: (x, W) → y, linear in either: a dense layer, a convolution.
        x: (n, …).
        kernel: W.
        back: B, of W's shape. Its own cotangent is that of W, which is what Kolen and
            Pollack's rule wants; of all others nobody asks for it.

    Returns:
        `linear(x, kernel)`.
    """
    del back
    return linear(x, kernel)


def _forward(
    linear: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    back: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return fed_back(linear, x, kernel, back), (x, back)


def _backward(
    linear: Callable[[jax.Array, jax.Array], jax.Array],
    residuals: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    # What comes back to x depends on the weights, and what to W on x alone: so this is
    # B's way back for the former, and the true gradient of W from that error.
    error, change = jax.vjp(linear, *residuals)[1](cotangent)
    return error, change, change


fed_back.defvjp(_forward, _backward)


def backward_weights(rule: str, kernel: jax.Array, own: Own) -> jax.Array:
    """B of a layer.

    Args:
        rule: one of `RULES`.
        kernel: W.
        own: what the layer keeps for B.

    Returns:
        B, of W's shape and dtype.
    """
    if not rule:
        return kernel
    if "kernel" in own:
        return own["kernel"].astype(kernel.dtype)
    sizes = own["scale"] * own.get("sizes", 1)
    return jnp.sign(kernel) * sizes.astype(kernel.dtype)


def applied(
    module: nn.Module,
    rule: str,
    linear: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    initializer: Initializer,
) -> jax.Array:
    """`linear(x, kernel)` within a module, with variables of it for the way back.

    Args:
        module: whose `__call__` this is; compact.
        rule: one of `RULES`.
        linear: as of `fed_back`.
        x: (n, …).
        kernel: W, drawn before: it is the same under each rule.
        initializer: of W. B starts as independent weights of its kind, and the entries
            of a sign rule have their standard deviation as scale.
    """
    if not rule:
        return linear(x, kernel)

    def draw() -> jax.Array:
        return initializer(module.make_rng("params"), kernel.shape)

    def kept(name: str, initial: Callable[[], jax.Array]) -> jax.Array:
        return jnp.asarray(module.variable(FEEDBACK, name, initial).value)

    if rule == "kolen_pollack":
        own = {"kernel": module.param(FEEDBACK, initializer, kernel.shape)}
    elif rule in ("alignment", "mirror"):
        own = {"kernel": kept("kernel", draw)}
    else:
        own = {"scale": kept("scale", lambda: jnp.std(draw()))}
        if rule != "sign_uniform":
            normal = nn.initializers.normal(1.0)
            own["sizes"] = kept(
                "sizes",
                lambda: jnp.abs(normal(module.make_rng("params"), kernel.shape)),
            )
    return fed_back(linear, x, kernel, backward_weights(rule, kernel, own))


class FeedbackDense(nn.Module):
    """A dense layer, (n, d) → (n, features), with a way back of its own.

    Attributes:
        features: number of outputs.
        feedback: one of `RULES`.
        kernel_init: of W.
    """

    features: int
    feedback: str
    kernel_init: Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = applied(self, self.feedback, jnp.matmul, x, kernel, self.kernel_init)
        return y + self.param("bias", nn.initializers.zeros, (self.features,))


def dense(features: int, *, feedback: str = "", **options: Any) -> nn.Module:
    """A dense layer, called alike and with the same initial weights under each rule.

    Args:
        features: number of outputs.
        feedback: one of `RULES`.
        options: perhaps `kernel_init`, of W.
    """
    if not feedback:
        return nn.Dense(features, **options)
    return FeedbackDense(features, feedback, **options, name="Dense_0")
