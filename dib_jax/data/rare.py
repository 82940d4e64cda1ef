"""More of what is rare: repeated samples of classes that few samples have."""

import math

import numpy as np

from dib_jax.data.kind import Split, size, take


def repeat_rare(train: Split, share: float, *, seed: int) -> Split:
    """A training split in which samples of rare classes stand several times.

    A class that a part f of the samples has counts √(share / f) times, at least once. A
    sample stands as often as its rarest class counts; a broken number is rounded up or
    down at random, so that it holds on average.

    Args:
        train: arrays of one length with `labels` (n,), perhaps `box_labels` (n, m), −1
            for none: then a picture has the classes of all its boxes.
        share: classes with at least this part of the samples are not rare, 0 ≤ share
            < 1; 0 changes nothing.
        seed: draws the rounding.

    Returns:
        The split; samples keep their order, copies stand side by side. Copies are of
        one group: without `groups` in the split each sample becomes one.

    Raises:
        ValueError: `share` is out of range.

    Source: Gupta, Dollár & Girshick, arXiv 1908.03195, section 5.2 (repeat factor
    sampling), drawn once and not for every epoch.
    """
    if not 0 <= share < 1:
        raise ValueError(
            f"repeat_rare must be from 0 up to, not including, 1, got {share!r}"
        )
    classes = train.get("box_labels", train["labels"]).reshape(size(train), -1)
    times = np.ones(size(train))
    for label in np.unique(classes[classes >= 0]):
        has = (classes == label).any(axis=1)
        times = np.where(has, np.maximum(times, math.sqrt(share / has.mean())), times)
    random = np.random.default_rng(seed % 2**63)  # seeds may be negative
    whole = np.floor(times + random.random(len(times))).astype(int)
    rows = np.repeat(np.arange(len(times)), whole)
    return {"groups": rows, **take(train, rows)}
