"""Several objects in a picture, each told by places of a grid, without anchors.

A place says the class of the object that it belongs to, the way to its centre and its
size. It belongs to an object where it lies in the inner half of the object's box, or
holds the box's centre; to the smallest of several.

Source: in the manner of Tian et al., arXiv 1904.01355 (FCOS), with centre and size
instead of distances to the sides, so that a place outside a small box can tell of it.
"""

import jax
import jax.numpy as jnp

from dib_jax.tasks.boxes import areas, decode, encode, suppress

_CORE = 0.5  # the share of a box's sides within which places belong to it


def centres(rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
    """The places of a grid over a picture.

    Returns:
        Centres (rows, columns, 2) as x, y, and the width and height (2,) of a place,
        in shares of the picture's.
    """
    x, y = jnp.meshgrid(jnp.arange(columns), jnp.arange(rows))
    unit = 1 / jnp.array([columns, rows], jnp.float32)
    return (jnp.stack([x, y], axis=-1) + 0.5) * unit, unit


def assign(
    labels: jax.Array, boxes: jax.Array, *, rows: int, columns: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What each place of a grid over one picture should say.

    Args:
        labels: (m,) integers, −1 for none.
        boxes: (m, 4), shares of the picture's width and height.
        rows: of the grid.
        columns: of the grid.

    Returns:
        Labels (rows, columns), −1 for places without an object; the objects' boxes
        (rows, columns, 4), 0 there; how many places the object of each place has
        (rows, columns), 0 there.
    """
    places, unit = centres(rows, columns)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = boxes[:, 2:] - boxes[:, :2]
    away = jnp.abs(places[:, :, None] - middle)  # (rows, columns, m, 2)
    inner = jnp.all(away <= _CORE * sides / 2, axis=-1)
    last = jnp.array([columns - 1, rows - 1])
    home = jnp.clip(jnp.floor(middle / unit), 0, last)
    index = jnp.floor(places / unit)
    holds = jnp.all(index[:, :, None] == home, axis=-1)
    belongs = (inner | holds) & (labels >= 0)
    size = jnp.where(belongs, areas(boxes), jnp.inf)
    chosen = jnp.argmin(size, axis=-1)
    there = belongs.any(axis=-1)
    has = jnp.bincount(chosen.ravel(), there.ravel().astype(int), length=len(labels))
    return (
        jnp.where(there, labels[chosen], -1),
        jnp.where(there[..., None], boxes[chosen], 0.0),
        jnp.where(there, has[chosen], 0),
    )


def place_outputs(boxes: jax.Array) -> jax.Array:
    """The outputs (…, rows, columns, 4) by which places tell of boxes of that shape."""
    places, unit = centres(*boxes.shape[-3:-1])
    return encode(boxes, places, unit)


def place_boxes(outputs: jax.Array) -> jax.Array:
    """The boxes that places tell of; the inverse of `place_outputs`."""
    places, unit = centres(*outputs.shape[-3:-1])
    return decode(outputs, places, unit)


def detect(
    scores: jax.Array, boxes: jax.Array, *, candidates: int, overlap: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The objects of one picture: the surest places, without those that say the same.

    Args:
        scores: (rows, columns, c), how sure each place is of each class, 0..1.
        boxes: (rows, columns, 4).
        candidates: how many places are looked at, if there are as many; k.
        overlap: as for `suppress`.

    Returns:
        Labels (k,), −1 for none, scores (k,), the highest first and 0 for none, and
        boxes (k, 4), cut off at the picture's border and 0 for none.
    """
    every = scores.reshape(-1, scores.shape[-1])
    best, place = jax.lax.top_k(every.max(axis=-1), min(candidates, len(every)))
    labels = jnp.argmax(every, axis=-1)[place]
    chosen = jnp.clip(boxes.reshape(-1, 4)[place], 0, 1)
    stays = suppress(chosen, labels, overlap=overlap)
    order = jnp.argsort(~stays, stable=True)  # those that stay first
    stays = stays[order]
    return (
        jnp.where(stays, labels[order], -1),
        jnp.where(stays, best[order], 0.0),
        jnp.where(stays[:, None], chosen[order], 0.0),
    )
