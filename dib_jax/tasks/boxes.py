"""Boxes x1, y1, x2, y2: overlap, suppression, the largest, and their coding.

All functions are pure and have static shapes; overlaps have finite gradients for boxes
that are apart or have no area, too. Units are the caller's, here shares of the
picture's width and height.
"""

import jax
import jax.numpy as jnp


def areas(boxes: jax.Array) -> jax.Array:
    """Areas (…,) of boxes (…, 4); 0 where a side is negative."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def shares(boxes: jax.Array, *, height: int, width: int) -> jax.Array:
    """Boxes in pixels as shares of the picture's width and height.

    Args:
        boxes: (…, 4).
        height: of the picture, in pixels.
        width: likewise.
    """
    return boxes / jnp.array([width, height] * 2, boxes.dtype)


def intersection_over_union(a: jax.Array, b: jax.Array) -> jax.Array:
    """|a ∩ b| / |a ∪ b|.

    Args:
        a: (…, 4).
        b: (…, 4), of a shape that broadcasts with that of `a`.

    Returns:
        (…,), 0..1; 0 for two boxes without area.
    """
    return _overlap(a, b)[0]


def generalized_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """IoU − (|hull| − |a ∪ b|) / |hull|, hull the smallest box around both.

    It grows as boxes that are apart come nearer, where IoU is 0 and flat.

    Args:
        a: (…, 4).
        b: (…, 4), of a shape that broadcasts with that of `a`.

    Returns:
        (…,), −1..1; 0 where the hull has no area.

    Source: Rezatofighi et al., arXiv 1902.09630.
    """
    iou, union = _overlap(a, b)
    low = jnp.minimum(a[..., :2], b[..., :2])
    high = jnp.maximum(a[..., 2:], b[..., 2:])
    hull = areas(jnp.concatenate([low, high], axis=-1))
    return iou - _ratio(hull - union, hull)


def _overlap(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """IoU and the area of the union."""
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    common = areas(jnp.concatenate([low, high], axis=-1))
    union = areas(a) + areas(b) - common
    return _ratio(common, union), union


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    # The divisor is guarded too: where(…, x / 0, 0) has a NaN gradient.
    positive = whole > 0
    return jnp.where(positive, part / jnp.where(positive, whole, 1), 0)


def suppress(boxes: jax.Array, labels: jax.Array, *, overlap: float) -> jax.Array:
    """Which boxes stay when each removes the later ones of its class that it overlaps.

    Greedy non-maximum suppression with static shapes.

    Args:
        boxes: (k, 4), the highest score first.
        labels: (k,) integers, −1 for none; boxes of different labels do not meet.
        overlap: an IoU above it removes the later box.

    Returns:
        (k,) bool.
    """
    iou = intersection_over_union(boxes[:, None], boxes[None])
    rivals = (iou > overlap) & (labels[:, None] == labels[None])
    order = jnp.arange(len(labels))

    def visit(row: jax.Array, stays: jax.Array) -> jax.Array:
        return stays & ~(stays[row] & rivals[row] & (order > row))

    return jax.lax.fori_loop(0, len(labels), visit, labels >= 0)


def largest(boxes: jax.Array, there: jax.Array) -> jax.Array:
    """The number (…,) of the box with the largest area, the first among equals.

    Args:
        boxes: (…, m, 4).
        there: bool (…, m), which of them count; where none does, the answer is 0.
    """
    return jnp.argmax(jnp.where(there, areas(boxes), -1.0), axis=-1)


def encode(
    boxes: jax.Array,
    centre: jax.Array | float = 0.5,
    unit: jax.Array | float = 1.0,
) -> jax.Array:
    """The outputs that stand for boxes: shift of the centre, and size by softplus⁻¹.

    Args:
        boxes: (…, 4), with positive sides.
        centre: (…, 2) or a number, the x, y that no shift means.
        unit: (2,) or a number, the width and height that shift and size count in.

    Returns:
        (…, 4).
    """
    shift = ((boxes[..., :2] + boxes[..., 2:]) / 2 - centre) / unit
    size = (boxes[..., 2:] - boxes[..., :2]) / unit
    # log(eˢ − 1), which is s itself to rounding where eˢ would be too large.
    inverse = size + jnp.log(-jnp.expm1(-size))
    return jnp.concatenate([shift, inverse], axis=-1)


def decode(
    outputs: jax.Array,
    centre: jax.Array | float = 0.5,
    unit: jax.Array | float = 1.0,
) -> jax.Array:
    """The boxes that outputs stand for; the inverse of `encode`.

    Sizes are softplus of an output, so that they are positive and, other than by
    exp, none explodes.

    Args:
        outputs: (…, 4).
        centre: as for `encode`.
        unit: as for `encode`.

    Returns:
        (…, 4); they may reach out of the picture.
    """
    middle = centre + unit * outputs[..., :2]
    half = unit * jax.nn.softplus(outputs[..., 2:]) / 2
    return jnp.concatenate([middle - half, middle + half], axis=-1)
