"""Information measures on Gram matrices: pure functions, in bits.

A Gram is (n, n), symmetric, positive semi-definite, trace 1. Everything works under
`jit`, `vmap` and `grad`; importing this package initialises no backend.
"""

from dib_jax.information.dependence import (
    aligned_bandwidth,
    cka,
    cka_matrix,
    hsic,
    linear_cka,
    minibatch_cka,
    normalized_hsic,
)
from dib_jax.information.entropy import (
    conditional_entropy,
    dual_total_correlation,
    effective_rank,
    joint_entropy,
    label_joint_entropy,
    label_mutual_information,
    mutual_information,
    mutual_information_matrix,
    renyi_entropy,
    total_correlation,
)
from dib_jax.information.estimation import (
    Estimate,
    estimated_mutual_information,
    estimated_renyi_entropy,
)
from dib_jax.information.gram import (
    channel_gram,
    check_bandwidth,
    gaussian_gram,
    knn_bandwidth,
    label_gram,
    linear_gram,
    mean_bandwidth,
    median_bandwidth,
    named_bandwidth,
    normalize_gram,
    quantile_bandwidth,
    scott_bandwidth,
    squared_distances,
    unit_scale,
)
from dib_jax.information.layers import information_plane, layer_grams

__all__ = [
    "Estimate",
    "aligned_bandwidth",
    "channel_gram",
    "check_bandwidth",
    "cka",
    "cka_matrix",
    "conditional_entropy",
    "dual_total_correlation",
    "effective_rank",
    "estimated_mutual_information",
    "estimated_renyi_entropy",
    "gaussian_gram",
    "hsic",
    "information_plane",
    "joint_entropy",
    "knn_bandwidth",
    "label_gram",
    "label_joint_entropy",
    "label_mutual_information",
    "layer_grams",
    "linear_cka",
    "linear_gram",
    "mean_bandwidth",
    "median_bandwidth",
    "minibatch_cka",
    "mutual_information",
    "mutual_information_matrix",
    "named_bandwidth",
    "normalize_gram",
    "normalized_hsic",
    "quantile_bandwidth",
    "renyi_entropy",
    "scott_bandwidth",
    "squared_distances",
    "total_correlation",
    "unit_scale",
]
