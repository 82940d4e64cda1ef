"""InfoPro: each stage preserves what reconstructs the input, and predicts classes."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from dib_jax.models.convolution import Convolution
from dib_jax.models.options import check_one_of, check_positive
from dib_jax.objectives import Objective, Signals, Terms, WithModules

_PREDICTIONS = ("contrastive", "classification")


class Decoder(nn.Module):
    """Features → pictures: resized to the pictures' size, two 3 × 3 convolutions.

    Flat features (n, d) pass through two dense layers instead.

    Attributes:
        shape: (h, w, c) of a picture.
        width: outputs of the hidden layer.
    """

    shape: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        """Features (n, …) → (n, h, w, c), before the sigmoid."""
        height, width, channels = self.shape
        count = features.shape[0]
        if features.ndim == 4:
            size = (count, height, width, features.shape[-1])
            x = Convolution(self.width)(jax.image.resize(features, size, "bilinear"))
        else:
            x = nn.Dense(self.width)(features.reshape(count, -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        if features.ndim != 4:
            return nn.Dense(height * width * channels)(x).reshape(count, *self.shape)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        return Convolution(channels)(x) + bias.astype(x.dtype)


class Embedding(nn.Module):
    """Features → points (n, size) to compare: a convolution, two dense layers.

    Attributes:
        size: dimensions of a point.
    """

    size: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        """Features (n, …) → (n, size)."""
        x = features
        if x.ndim == 4:
            x = Convolution(2 * x.shape[-1], stride=2)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            x = x.mean(axis=(1, 2))
        x = nn.relu(nn.Dense(self.size)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.size)(x)


def infopro(
    *,
    num_stages: int,
    prediction: str = "contrastive",
    reconstruct: tuple[float, float] = (5.0, 0.2),
    predict: tuple[float, float] = (0.05, 0.5),
    temperature: float = 0.07,
    decoder_width: int = 12,
    embedding: int = 128,
) -> Objective:
    """λ₁ times the loss of a reconstruction plus λ₂ times that of a prediction.

    λ₁ and λ₂ change linearly with the stage's number from the first stage to the last
    but one; the last stage learns by the task's loss alone. A decoder beside the stage
    reconstructs the network's input; its loss is the cross-entropy between the sigmoid
    of its outputs and the picture, scaled to 0..1. The loss of the prediction is
    `supervised_contrast` of a trained embedding, or the task's loss of the head.

    Args:
        num_stages: number of the network's stages.
        prediction: contrastive or classification.
        reconstruct: λ₁ at the first and at the last stage but one, ≥ 0.
        predict: λ₂ likewise.
        temperature: temperature of the contrastive loss, > 0.
        decoder_width: channels between the decoder's two layers.
        embedding: dimensions of the points that the contrastive loss compares.

    Returns:
        The objective; it records `reconstruction_loss` and, where it is used,
        `contrastive_loss`.

    Raises:
        ValueError: an unknown `prediction`, a negative weight, `temperature`,
            `decoder_width` or `embedding` not above 0.

    Source: Wang, Ni, Song, Yang & Huang, arXiv 2101.10832, section 3.3 and appendix;
    weights, temperature and layer sizes are those of the authors' published runs of
    ResNet-32 in 16 modules on CIFAR-10; but theirs leave a map of 64 channels as wide
    and as large as it is, and enlarge maps corner to corner. Where the prediction does
    not train the head, it learns on detached features, and pictures are scaled to 0..1
    by the least and the greatest number of each channel in the batch: both ours.
    """
    check_one_of(_PREDICTIONS, prediction=prediction)
    for name, pair in {"reconstruct": reconstruct, "predict": predict}.items():
        if not 0 <= min(pair) <= max(pair) < math.inf:
            raise ValueError(f"{name} must be two numbers ≥ 0, got {pair!r}")
    check_positive(
        temperature=temperature, decoder_width=decoder_width, embedding=embedding
    )

    def weights(stage: int) -> tuple[float, float]:
        depth = stage / (num_stages - 2) if num_stages > 2 else 0.0
        lambda_1, lambda_2 = (
            first + (last - first) * depth for first, last in (reconstruct, predict)
        )
        return lambda_1, lambda_2

    def modules(stage: int, shape: tuple[int, ...]) -> Mapping[str, nn.Module]:
        if stage >= num_stages - 1:
            return {}
        if len(shape) != 3:
            raise ValueError(
                "objective.name: infopro reconstructs pictures (h, w, c), but one "
                f"input has shape {tuple(shape)}; use another objective"
            )
        decoder = Decoder(shape=tuple(shape), width=decoder_width)
        if prediction == "contrastive":
            return {"decoder": decoder, "embedding": Embedding(size=embedding)}
        return {"decoder": decoder}

    def loss(signals: Signals) -> tuple[jax.Array, Terms]:
        if signals.stage >= num_stages - 1:
            return signals.task_loss, {}
        lambda_1, lambda_2 = weights(signals.stage)
        rebuilt = reconstruction(signals.modules["decoder"], signals.network_input)
        terms: Terms = {"reconstruction_loss": rebuilt}
        if prediction == "contrastive":
            contrast = supervised_contrast(
                signals.modules["embedding"], signals.targets, temperature=temperature
            )
            terms["contrastive_loss"] = contrast
            return lambda_1 * rebuilt + lambda_2 * contrast + signals.head_loss, terms
        predicted = lambda_2 * signals.task_loss if lambda_2 > 0 else signals.head_loss
        return lambda_1 * rebuilt + predicted, terms

    return WithModules(loss, modules)


def reconstruction(decoded: jax.Array, pictures: jax.Array) -> jax.Array:
    """Cross-entropy between pictures and the sigmoid of a decoder's outputs, in nats.

    Args:
        decoded: (n, h, w, c), before the sigmoid.
        pictures: (n, h, w, c), any scale; taken to 0..1 by each channel's extremes.

    Returns:
        Scalar ≥ 0, the mean over all numbers. Its least value, where both agree, is the
        entropy of the pictures rather than 0.
    """
    low = jnp.min(pictures, axis=(0, 1, 2), keepdims=True)
    high = jnp.max(pictures, axis=(0, 1, 2), keepdims=True)
    wanted = (pictures - low) / jnp.where(high > low, high - low, 1)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(decoded, wanted))


def supervised_contrast(
    points: jax.Array, labels: jax.Array, *, temperature: float
) -> jax.Array:
    """A loss that is small where points lie closest to those of their class, in nats.

    With unit vectors z and P(i) the other points of i's class:
    −mean over i, over p in P(i), of log(exp(z_i·z_p/τ) / Σ_{a≠i} exp(z_i·z_a/τ)).

    Args:
        points: (n, d), normalised here; a point at 0 stays there.
        labels: (n,), integers.
        temperature: τ, > 0.

    Returns:
        Scalar; a point that is alone in its class counts as 0.

    Raises:
        ValueError: `labels` are not one array (n,).

    Source: Khosla et al., arXiv 2004.11362, eq. 2 (one view of each sample).
    """
    if getattr(labels, "ndim", 0) != 1:
        raise ValueError(
            "a contrastive loss needs one class for each sample; use "
            "task.name=classification, or objective.prediction=classification"
        )
    squares = jnp.sum(points**2, axis=1, keepdims=True)
    points = points * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
    logits = jnp.matmul(points, points.T, precision=jax.lax.Precision.HIGHEST)
    logits = logits / temperature
    others = ~jnp.eye(len(points), dtype=bool)
    rest = jax.nn.logsumexp(logits, axis=1, keepdims=True, where=others)
    alike = (labels[:, None] == labels[None, :]) & others
    shortfall = jnp.sum(jnp.where(alike, rest - logits, 0), axis=1)
    return jnp.mean(shortfall / jnp.maximum(alike.sum(axis=1), 1))
