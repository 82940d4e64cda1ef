"""A data set without pictures: scikit-learn's breast cancer, 30 numbers each."""

import numpy as np
from sklearn.datasets import load_breast_cancer

from dib_jax.data import Dataset
from dib_jax.data.split import split_rows
from dib_jax.data.vectors import VECTORS


def breast_cancer(data_dir: str = "") -> Dataset:
    """569 tumours, a fifth of each class as the test split.

    Source: Street, Wolberg & Mangasarian, 1993.
    """
    bunch = load_breast_cancer()
    arrays = {"features": bunch.data, "labels": bunch.target.astype(np.int32)}
    train, test = split_rows(arrays["labels"], fraction=0.2, seed=0)
    return Dataset(
        name="breast_cancer",
        train={name: array[train] for name, array in arrays.items()},
        validation={},
        test={name: array[test] for name, array in arrays.items()},
        class_names=tuple(map(str, bunch.target_names)),
        description="scikit-learn breast cancer, 30 measurements of 569 tumours",
        kind=VECTORS,
    )
