"""scikit-learn's handwritten digits: 1797 grey pictures of 8×8 pixels, embedded."""

import numpy as np

from dib_jax.data.dataset import Dataset
from dib_jax.data.kind import take
from dib_jax.data.split import split_rows


def digits(data_dir: str = "") -> Dataset:
    """The digits, a fifth of each class (drawn once and for all) as the test split.

    Values 0..16 become 0..255. The split depends on nothing, so results of different
    seeds are of the same test pictures.

    Args:
        data_dir: not used; nothing is read from disk but scikit-learn itself.

    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
    """
    del data_dir
    from sklearn.datasets import load_digits  # a slow import

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    split = {"images": images, "labels": bunch.target.astype(np.int32)}
    train, test = split_rows(split["labels"], fraction=0.2, seed=0)
    return Dataset(
        name="digits",
        train=take(split, train),
        validation={},
        test=take(split, test),
        class_names=tuple(str(name) for name in bunch.target_names),
        description="scikit-learn digits, 8x8 grey, a fixed 20 % as test split",
    )
