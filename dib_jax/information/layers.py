"""The layers of a network at once: their Grams, and the information plane."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dib_jax.information.entropy import label_mutual_information, mutual_information
from dib_jax.information.gram import gaussian_gram, named_bandwidth
from dib_jax.information.spectral import DEFAULT_ALPHA


def layer_grams(
    layers: Sequence[jax.Array], *, bandwidth: str | float = "mean"
) -> jax.Array:
    """Gaussian Grams of several layers, as `mutual_information_matrix` takes them.

    Args:
        layers: (n, …) each, the features of the same samples; their shapes may differ.
        bandwidth: a rule, applied to each layer, or a width, as for `named_bandwidth`.

    Returns:
        (l, n, n), each of trace 1.

    Raises:
        ValueError: there is no layer, they are not of as many samples, or `bandwidth`
            is neither.

    Examples:
        >>> x = jnp.array([[0.0], [0.1], [3.0], [3.1]])
        >>> info.layer_grams([x, jnp.tanh(x)]).shape
        (2, 4, 4)
    """
    counts = [jnp.shape(layer)[:1] for layer in layers]
    if len(set(counts)) != 1:
        raise ValueError(
            "layers must be one or more arrays (n, …) of the same samples, got "
            f"{[count[0] if count else 'a scalar' for count in counts]} samples"
        )
    return jnp.stack(
        [gaussian_gram(x, sigma=named_bandwidth(x, bandwidth)) for x in layers]
    )


def information_plane(
    x: jax.Array,
    layers: Sequence[jax.Array],
    labels: jax.Array,
    *,
    alpha: float = DEFAULT_ALPHA,
    bandwidth: str | float = "mean",
) -> tuple[jax.Array, jax.Array]:
    """I(X; T) and I(T; Y) of several layers, in bits.

    Args:
        x: (n, …), the network's input.
        layers: (n, …) each, the features of the same samples; their shapes may differ.
        labels: (n,), integers.
        alpha: the order, a Python number > 0 or `math.inf`; static under `jit`.
        bandwidth: a rule, applied to the input and to each layer, or a width, as for
            `named_bandwidth`.

    Returns:
        Two arrays (l,): the information with the input, and that with the labels.

    Raises:
        ValueError: as `layer_grams` and `label_mutual_information`.

    Source: Tishby & Zaslavsky, arXiv 1503.02406; with matrices, Yu, Wickstrøm, Jenssen
    & Príncipe, arXiv 1804.06537.

    Examples:
        >>> x = jnp.array([[0.0], [0.1], [3.0], [3.1]])
        >>> labels = jnp.array([0, 0, 1, 1])
        >>> of_input, of_labels = info.information_plane(x, [x, x / 100], labels)
        >>> of_labels.shape
        (2,)
    """
    if len(layers) == 0:
        raise ValueError("layers must have one layer at least, got none")
    source, *grams = layer_grams((x, *layers), bandwidth=bandwidth)

    def both(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (
            mutual_information(source, gram, alpha=alpha),
            label_mutual_information(gram, labels, alpha=alpha),
        )

    return jax.lax.map(both, jnp.stack(grams))
