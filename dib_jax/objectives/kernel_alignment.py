"""Pairwise learning with kernels: the features' kernel is aligned with the targets'."""

import jax
import jax.numpy as jnp
import optax

from dib_jax.information import normalize_gram
from dib_jax.objectives import Objective, Signals, Terms


def kernel_alignment() -> Objective:
    """Minus the alignment ⟨K, K*⟩/(‖K‖ ‖K*‖); the head is trained on detached features.

    K_ij is the cosine between the features of samples i and j, K* the kernel of the
    targets: with classes 1 in a class and 0 between classes. Norms and product are over
    the pairs i ≠ j. Where K or K* is 0 for all of them, the alignment is 0.

    No gradient of a prediction reaches the stage.

    Returns:
        The objective; it records `alignment`, −1 to 1; from 0 on for features ≥ 0.

    Source: Duan, Yu & Príncipe, arXiv 2005.05541; of its proxies for hidden modules the
    alignment, without the diagonal as in the authors' published runs. That the head
    learns at the same time is ours, and that feature maps are compared at full size:
    theirs are averaged over 4 × 4 places first.
    """

    def objective(signals: Signals) -> tuple[jax.Array, Terms]:
        x = signals.features.reshape(len(signals.features), -1)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        product = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
        pairs = jnp.triu_indices(len(x), k=1)
        # The Grams' common factor 1/n drops out; the floor keeps norms of 0 finite.
        aligned = optax.losses.cosine_similarity(
            normalize_gram(product)[pairs], signals.target_gram[pairs], epsilon=1e-8
        )
        return signals.head_loss - aligned, {"alignment": aligned}

    return objective
