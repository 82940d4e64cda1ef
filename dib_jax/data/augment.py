"""Random changes of training pictures, on the device, boxes moved with them.

Pure functions of (key, batch); each picture draws its own numbers. Shapes and dtypes
stay, so they run inside `jit` and `lax.scan`.
"""

import difflib
from collections.abc import Callable

import jax
import jax.numpy as jnp

Batch = dict[str, jax.Array]
Augmentation = Callable[[jax.Array, Batch], Batch]


def augment(spec: str) -> Augmentation:
    """A function (key, batch) -> batch that applies the named augmentations in order.

    Args:
        spec: names separated by commas, "" for none. `crop`: pad with zeros by an
            eighth of each side, cut a window of the old size at random. `flip`: mirror
            left and right with probability 1/2. `cutout`: set a rectangle with a
            quarter of the sides, centred anywhere, to zero.

    Returns:
        A pure function of a key and a batch with `images` (n, h, w, c), float or uint8,
        and optionally `boxes` (n, 4), or (n, m, 4) with `box_labels` (n, m), in pixels.
        Other entries pass unchanged.

    Raises:
        ValueError: a name is unknown or stands twice.
    """
    names = [name.strip() for name in spec.split(",")] if spec.strip() else []
    for position, name in enumerate(names):
        if name not in _AUGMENTATIONS:
            near = difflib.get_close_matches(name, _AUGMENTATIONS, n=1, cutoff=0.4)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"unknown augmentation {name!r} in {spec!r}, allowed are "
                f"{', '.join(_AUGMENTATIONS)}, separated by commas{guess}"
            )
        if name in names[:position]:
            raise ValueError(f"augmentation {name!r} stands twice in {spec!r}")

    def apply(key: jax.Array, batch: Batch) -> Batch:
        _check(batch)
        for index, name in enumerate(names):
            batch = _AUGMENTATIONS[name](jax.random.fold_in(key, index), batch)
        return batch

    return apply


def _crop(key: jax.Array, batch: Batch) -> Batch:
    images = batch["images"]
    count, height, width, channels = images.shape
    pad = jnp.array([height // 8, width // 8])
    # The picture moves by `shift` (down, right); what leaves is lost, zeros come in.
    shift = jax.random.randint(key, (count, 2), -pad, pad + 1)
    if "boxes" in batch:
        shift = _keep_largest(shift, batch, height, width)
    padding = ((0, 0), (height // 8,) * 2, (width // 8,) * 2, (0, 0))
    padded = jnp.pad(images, padding)

    def window(picture: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(
            picture, (start[0], start[1], 0), (height, width, channels)
        )

    batch = {**batch, "images": jax.vmap(window)(padded, pad - shift)}
    return _shift_boxes(batch, shift, height, width) if "boxes" in batch else batch


def _flip(key: jax.Array, batch: Batch) -> Batch:
    images = batch["images"]
    mirrored = jax.random.bernoulli(key, 0.5, images.shape[:1])
    pick = mirrored[:, None, None, None]
    batch = {**batch, "images": jnp.where(pick, images[:, :, ::-1], images)}
    if "boxes" in batch:
        boxes = batch["boxes"]
        x1, y1, x2, y2 = (boxes[..., side] for side in range(4))
        width = images.shape[2]
        other = jnp.stack([width - x2, y1, width - x1, y2], axis=-1)
        moves = mirrored.reshape(-1, *[1] * (boxes.ndim - 1)) & _real(batch)[..., None]
        batch["boxes"] = jnp.where(moves, other, boxes)
    return batch


def _cutout(key: jax.Array, batch: Batch) -> Batch:
    images = batch["images"]
    count, height, width, _ = images.shape
    sides = jnp.array([height // 4, width // 4])
    centre = jax.random.randint(key, (count, 2), 0, jnp.array([height, width]))
    start = centre - sides // 2
    inside = []
    for axis, length in enumerate((height, width)):
        place = jnp.arange(length) - start[:, axis, None]
        inside.append((place >= 0) & (place < sides[axis]))
    hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return {**batch, "images": jnp.where(hole, jnp.zeros((), images.dtype), images)}


_AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": _crop,
    "flip": _flip,
    "cutout": _cutout,
}


def _check(batch: Batch) -> None:
    shape = batch["images"].shape
    if len(shape) != 4:
        raise ValueError(f"images must have shape (n, h, w, c), got {shape}")
    boxes = batch.get("boxes")
    if boxes is not None and boxes.ndim == 3 and "box_labels" not in batch:
        raise ValueError(f"boxes of shape {boxes.shape} need box_labels in the batch")


def _real(batch: Batch) -> jax.Array:
    """Which boxes are there: (n,) or (n, m)."""
    if "box_labels" in batch:
        return batch["box_labels"] >= 0
    return jnp.ones(batch["boxes"].shape[:-1], bool)


def _centres(boxes: jax.Array) -> jax.Array:
    """Centres as (y, x)."""
    return (boxes[..., 1::-1] + boxes[..., :1:-1]) / 2


def _keep_largest(shift: jax.Array, batch: Batch, height: int, width: int) -> jax.Array:
    """The shift made smaller where the centre of the largest box would leave.

    The label of a picture is that of its largest box, so that one must stay.
    """
    boxes = batch["boxes"]
    if boxes.ndim == 3:
        sides = boxes[..., 2:] - boxes[..., :2]
        area = jnp.where(_real(batch), sides[..., 0] * sides[..., 1], -1.0)
        largest = jnp.argmax(area, axis=1)
        boxes = jnp.take_along_axis(boxes, largest[:, None, None], axis=1)[:, 0]
    centre = _centres(boxes)
    low = -jnp.floor(centre)
    high = jnp.floor(jnp.array([height, width]) - centre)
    return jnp.clip(shift, jnp.minimum(low, 0), jnp.maximum(high, 0)).astype(jnp.int32)


def _shift_boxes(batch: Batch, shift: jax.Array, height: int, width: int) -> Batch:
    """Boxes moved and clipped; of several, those whose centre left become none."""
    boxes = batch["boxes"]
    move = shift.reshape(-1, *[1] * (boxes.ndim - 2), 2)[..., ::-1]
    moved = boxes + jnp.concatenate([move, move], axis=-1).astype(boxes.dtype)
    limits = jnp.array([width, height] * 2, boxes.dtype)
    clipped = jnp.clip(moved, 0, limits)
    if boxes.ndim == 2:
        return {**batch, "boxes": clipped}
    centre = _centres(moved)
    stays = jnp.all((centre >= 0) & (centre <= jnp.array([height, width])), axis=-1)
    stays &= _real(batch)
    return {
        **batch,
        "boxes": jnp.where(stays[..., None], clipped, -1),
        "box_labels": jnp.where(stays, batch["box_labels"], -1),
    }
