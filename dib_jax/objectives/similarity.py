"""Similarity matching and prediction ("predsim"): features as alike as labels."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dib_jax.models.convolution import Convolution
from dib_jax.models.options import check_one_of
from dib_jax.objectives import Objective, Signals, Terms, WithModules

_PROJECTIONS = ("trained", "none")


class Projection(nn.Module):
    """As many outputs as inputs, without a bias: a 3 × 3 convolution, or a dense layer.

    A convolution where features are maps (n, h, w, c), dense where they are (n, d).
    """

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        """Features (n, …, d) → (n, …, d), or (n, d) where they are flat."""
        del train
        width = features.shape[-1]
        if features.ndim == 4:
            return Convolution(width)(features)
        return nn.Dense(width, use_bias=False)(features.reshape(len(features), -1))


def similarity(
    *, beta: float = 0.99, projection: str = "trained", spread: bool = True
) -> Objective:
    """(1 − β) times the task's loss, plus β times the mismatch of two similarities.

    mismatch = ‖S(P(T_k)) − S(Y)‖²/n², S the matrix of cosine similarities between the
    n samples of a batch, the mean of each sample subtracted from it; P is a trained
    linear projection that belongs to the stage. Of feature maps, S takes the standard
    deviation of each channel over its places. β = 1 is similarity matching alone, β = 0
    prediction alone.

    Args:
        beta: β, the share of the mismatch, 0 to 1; the paper's is 0.99.
        projection: trained, or none for P = identity.
        spread: whether feature maps are reduced to a standard deviation for each
            channel first, as in the paper; otherwise all their numbers are compared.

    Returns:
        The objective; it records `similarity_loss`, the mismatch.

    Raises:
        ValueError: `beta` is not in 0..1, or an unknown `projection`; when called, the
            targets are not one class for each sample.

    Source: Nøkland & Eidnes, arXiv 1901.06656, section 3. The mean over the n² pairs,
    in place of their sum, is that of the authors' published settings for β. With β = 1
    the head learns on detached features, which is ours: it is how the stage is read.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be 0 to 1, got {beta!r}")
    check_one_of(_PROJECTIONS, projection=projection)

    def modules(stage: int, shape: tuple[int, ...]) -> Mapping[str, nn.Module]:
        del stage, shape
        trained = projection == "trained" and beta > 0
        return {"projection": Projection()} if trained else {}

    def loss(signals: Signals) -> tuple[jax.Array, Terms]:
        projected = signals.modules.get("projection", signals.features)
        mismatch = jnp.mean(
            (
                similarities(projected, spread=spread)
                - label_similarities(signals.targets, signals.outputs.shape[-1])
            )
            ** 2
        )
        prediction = (1 - beta) * signals.task_loss if beta < 1 else signals.head_loss
        return prediction + beta * mismatch, {"similarity_loss": mismatch}

    return WithModules(loss, modules)


def similarities(x: jax.Array, *, spread: bool = True) -> jax.Array:
    """Cosine similarities between samples, the mean of each subtracted from it.

    Args:
        x: (n, h, w, c) or (n, d).
        spread: whether maps of more than one place are reduced to the standard
            deviation (n, c) of each channel over its places first.

    Returns:
        (n, n), −1 to 1; 0 for a sample whose numbers are all alike.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # A sample's scale does not count; without it no square overflows or vanishes.
    largest = jnp.max(jnp.abs(x), axis=tuple(range(1, x.ndim)), keepdims=True)
    x = x / jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    if spread and x.ndim == 4 and x.shape[1] * x.shape[2] > 1:
        places = x.shape[1] * x.shape[2]
        variance = jnp.var(x, axis=(1, 2)) * (places / (places - 1))
        varied = variance > 0  # the root has no derivative at 0
        x = jnp.where(varied, jnp.sqrt(jnp.where(varied, variance, 1)), 0)
    x = x.reshape(len(x), -1)
    x = x - jnp.mean(x, axis=1, keepdims=True)
    squares = jnp.sum(x**2, axis=1, keepdims=True)
    varied = squares > 0
    x = jnp.where(varied, x / jnp.sqrt(jnp.where(varied, squares, 1)), 0)
    return jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)


def label_similarities(labels: jax.Array, num_classes: int) -> jax.Array:
    """The similarities of one-hot labels: 1 in a class, −1/(C − 1) between classes.

    Args:
        labels: (n,), integers.
        num_classes: C, at least 2.

    Returns:
        (n, n).

    Raises:
        ValueError: `labels` are not one array (n,).
    """
    if getattr(labels, "ndim", 0) != 1:
        raise ValueError(
            "similarity matching needs one class for each sample; use "
            "task.name=classification"
        )
    alike = labels[:, None] == labels[None, :]
    return jnp.where(alike, 1.0, -1 / (num_classes - 1))
