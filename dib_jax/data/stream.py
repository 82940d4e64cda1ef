"""Batches from the host's memory in a given order, read ahead by Grain."""

import functools
from typing import Any

import numpy as np

from dib_jax.data.kind import Split, take

_THREADS = 4
_AHEAD = 4  # chunks that are ready before they are asked for


def stream(split: Split, order: np.ndarray, *, steps: int) -> Any:
    """The batches of an epoch, some at a time, in their order whatever the threads do.

    Args:
        split: arrays of one length n.
        order: rows of it, (all steps, batch_size).
        steps: batches in a chunk; the last chunk may have fewer.

    Returns:
        Grain's iterator over dicts of arrays (steps, batch_size, …). Its `get_state`
        and `set_state` read and set its position.
    """
    import grain  # a slow import

    chunks = [order[start : start + steps] for start in range(0, len(order), steps)]
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
    dataset = grain.MapDataset.source(chunks).map(functools.partial(take, split))
    return iter(dataset.to_iter_dataset(options))
