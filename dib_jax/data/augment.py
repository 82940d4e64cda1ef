"""Random changes of training pictures, on the device, boxes moved with them.

Pure functions of (key, batch); each picture draws its own numbers. Shapes and dtypes
stay, so they run inside `jit` and `lax.scan`.
"""

import difflib
import functools
import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

# At strength 1, to either side.
_ANGLE = 10.0  # degrees
_SCALE = 0.1
_BRIGHTNESS = 0.3
_CONTRAST = 0.3
_SATURATION = 0.5
_SHIFT = 1 / 8  # of a side
_HOLE = 1 / 4  # of a side

_MIRRORED = {"left": "right", "right": "left"}

Batch = dict[str, jax.Array]
Augmentation = Callable[[jax.Array, Batch], Batch]


def augment(spec: str) -> Augmentation:
    """A function (key, batch) -> batch that applies the named augmentations in order.

    Args:
        spec: names separated by commas, "" for none; a name may have a strength, as in
            `affine:1.5`, which multiplies the numbers given here. `crop`: pad with
            zeros by an eighth of each side, cut a window of the old size at random.
            `flip`: mirror left and right with probability 1/2; takes no strength.
            `affine`: turn by up to 10 degrees and scale by 1 ± 0.1 about the centre,
            zeros come in; a box is then that around the ellipse that was in it.
            `brightness`: multiply by 1 ± 0.3. `contrast`: multiply the difference from
            the picture's mean by 1 ± 0.3. `saturation`: multiply the difference from
            the pixel's grey, the mean of its channels, by 1 ± 0.5. `cutout`: set a
            rectangle with a quarter of the sides, centred anywhere, to zero.

    Returns:
        A pure function of a key and a batch with `images` (n, h, w, c), float or uint8,
        and optionally `boxes` (n, 4), or (n, m, 4) with `box_labels` (n, m), in pixels.
        Other entries pass unchanged.

    Raises:
        ValueError: a name is unknown or stands twice, or a strength is no number or out
            of range.
    """
    names = [name.strip() for name in spec.split(",")] if spec.strip() else []
    steps = [_named(name, spec) for name in names]
    known = [name.partition(":")[0].strip() for name in names]
    for position, name in enumerate(known):
        if name in known[:position]:
            raise ValueError(f"augmentation {name!r} stands twice in {spec!r}")

    def apply(key: jax.Array, batch: Batch) -> Batch:
        _check(batch)
        for index, step in enumerate(steps):
            batch = step(jax.random.fold_in(key, index), batch)
        return batch

    return apply


def check_mirrored(spec: str, class_names: Sequence[str]) -> None:
    """Refuse `flip` where a mirrored picture belongs to another class.

    Such are classes whose names differ by left and right: keep left, keep right.

    Args:
        spec: as of `augment`.
        class_names: of the labels.

    Raises:
        ValueError: `spec` has a flip and two classes are each other's mirror image.
    """
    if "flip" not in (name.strip() for name in spec.split(",")):
        return
    numbers = {name.casefold(): label for label, name in enumerate(class_names)}
    for name, label in numbers.items():
        mirrored = re.sub("left|right", lambda side: _MIRRORED[side.group()], name)
        if numbers.get(mirrored, label) != label:
            raise ValueError(
                f"flip makes class {label}, {class_names[label]!r}, look like class "
                f"{numbers[mirrored]}, {class_names[numbers[mirrored]]!r}; leave it out"
            )


def _named(text: str, spec: str) -> Augmentation:
    """The augmentation that a part of `spec` asks for, at its strength."""
    name, colon, strength = (part.strip() for part in text.partition(":"))
    if name not in _AUGMENTATIONS:
        near = difflib.get_close_matches(name, _AUGMENTATIONS, n=1, cutoff=0.4)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown augmentation {name!r} in {spec!r}, allowed are "
            f"{', '.join(_AUGMENTATIONS)}, separated by commas{guess}"
        )
    change, limit = _AUGMENTATIONS[name]
    if not colon:
        return functools.partial(change, strength=1.0)
    try:
        factor = float(strength)
    except ValueError:
        factor = 0.0
    if limit == 1:
        raise ValueError(f"augmentation {name!r} takes no strength, got {text!r}")
    if not 0 < factor <= limit:
        raise ValueError(
            f"augmentation {name!r}: the strength must be a number above 0, at most "
            f"{limit:g}, got {strength!r}"
        )
    return functools.partial(change, strength=factor)


def _crop(key: jax.Array, batch: Batch, *, strength: float) -> Batch:
    images = batch["images"]
    count, height, width, channels = images.shape
    pads = int(_SHIFT * strength * height), int(_SHIFT * strength * width)
    pad = jnp.array(pads)
    # The picture moves by `shift` (down, right); what leaves is lost, zeros come in.
    shift = jax.random.randint(key, (count, 2), -pad, pad + 1)
    if "boxes" in batch:
        shift = _keep_largest(shift, batch, height, width)
    padding = ((0, 0), (pads[0],) * 2, (pads[1],) * 2, (0, 0))
    padded = jnp.pad(images, padding)

    def window(picture: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(
            picture, (start[0], start[1], 0), (height, width, channels)
        )

    batch = {**batch, "images": jax.vmap(window)(padded, pad - shift)}
    if "boxes" not in batch:
        return batch
    boxes = batch["boxes"]
    move = shift.reshape(-1, *[1] * (boxes.ndim - 2), 2)[..., ::-1]
    moved = boxes + jnp.concatenate([move, move], axis=-1).astype(boxes.dtype)
    return _with_boxes(batch, moved)


def _flip(key: jax.Array, batch: Batch, *, strength: float) -> Batch:
    del strength
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


def _affine(key: jax.Array, batch: Batch, *, strength: float) -> Batch:
    images = batch["images"]
    count, height, width, _ = images.shape
    angle_key, scale_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, (count,), minval=-1, maxval=1)
    angle *= jnp.pi * _ANGLE * strength / 180
    scale = _around_one(scale_key, count, _SCALE * strength)
    middle = jnp.array([width, height]) / 2
    if "boxes" in batch:
        # Left as it is where the centre of the largest box would leave.
        moved = _turned(_largest(batch), angle, scale, middle)
        stays = _is_inside(moved, height, width)
        angle, scale = jnp.where(stays, angle, 0), jnp.where(stays, scale, 1)
    batch = {**batch, "images": _resampled(images, angle, scale)}
    if "boxes" not in batch:
        return batch
    turned = _turned(batch["boxes"], angle, scale, middle)
    return _with_boxes(batch, turned.astype(batch["boxes"].dtype))


def _rotation(angle: jax.Array) -> jax.Array:
    """Matrices (n, 2, 2) that turn (x, y) by an angle, clockwise on the screen."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cosine, -sine, sine, cosine], axis=-1).reshape(-1, 2, 2)


def _resampled(images: jax.Array, angle: jax.Array, scale: jax.Array) -> jax.Array:
    """Pictures turned and scaled about their centre, by bilinear interpolation."""
    count, height, width, channels = images.shape
    x, y = jnp.meshgrid(jnp.arange(width), jnp.arange(height))
    places = jnp.stack([x.ravel(), y.ravel()], axis=-1)
    middle = (jnp.array([width, height]) - 1) / 2
    # Where each pixel comes from: the inverse of a rotation is its transpose.
    back = (places - middle) @ _rotation(angle) / scale[:, None, None] + middle
    corner = jnp.floor(back).astype(jnp.int32)
    share = back - corner
    pixels = images.reshape(count, height * width, channels)
    result = jnp.zeros(pixels.shape, jnp.promote_types(images.dtype, jnp.float32))
    for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = corner[..., 0] + right, corner[..., 1] + below
        weight = (share[..., 0] if right else 1 - share[..., 0]) * (
            share[..., 1] if below else 1 - share[..., 1]
        )
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        index = jnp.where(inside, y * width + x, 0)
        found = jnp.take_along_axis(pixels, index[..., None], axis=1)
        result += jnp.where(inside, weight, 0)[..., None] * found
    return _as_type(result, images.dtype).reshape(images.shape)


def _turned(
    boxes: jax.Array, angle: jax.Array, scale: jax.Array, middle: jax.Array
) -> jax.Array:
    """The boxes around what turned with boxes (n, 4) or (n, m, 4).

    Around the ellipse in the box, not its corners: few objects reach those, and boxes
    around turned corners would be too large on the average, which a network learns.

    Source: Kalra et al., arXiv 2109.13488.
    """
    angle, scale = (x.reshape(-1, *[1] * (boxes.ndim - 1)) for x in (angle, scale))
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    x, y = jnp.split((boxes[..., :2] + boxes[..., 2:]) / 2 - middle, 2, axis=-1)
    centre = jnp.concatenate([cosine * x - sine * y, sine * x + cosine * y], axis=-1)
    centre = scale * centre + middle
    sides = (boxes[..., 2:] - boxes[..., :2]) / 2
    half = scale * jnp.hypot(cosine * sides, sine * sides[..., ::-1])
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def _brightness(key: jax.Array, batch: Batch, *, strength: float) -> Batch:
    images = batch["images"]
    factor = _around_one(key, len(images), _BRIGHTNESS * strength)
    brighter = images * factor[:, None, None, None]
    return {**batch, "images": _as_type(brighter, images.dtype)}


def _contrast(key: jax.Array, batch: Batch, *, strength: float) -> Batch:
    return _away_from_mean(key, batch, _CONTRAST * strength, axes=(1, 2, 3))


def _saturation(key: jax.Array, batch: Batch, *, strength: float) -> Batch:
    return _away_from_mean(key, batch, _SATURATION * strength, axes=(3,))


def _away_from_mean(
    key: jax.Array, batch: Batch, half: float, *, axes: tuple[int, ...]
) -> Batch:
    images = batch["images"]
    factor = _around_one(key, len(images), half)[:, None, None, None]
    mean = jnp.mean(images, axis=axes, dtype=jnp.float32, keepdims=True)
    changed = mean + factor * (images - mean)
    return {**batch, "images": _as_type(changed, images.dtype)}


def _around_one(key: jax.Array, count: int, half: float) -> jax.Array:
    return jax.random.uniform(key, (count,), minval=1 - half, maxval=1 + half)


def _as_type(images: jax.Array, dtype: jnp.dtype) -> jax.Array:
    if jnp.issubdtype(dtype, jnp.integer):
        images = jnp.clip(jnp.round(images), 0, jnp.iinfo(dtype).max)
    return images.astype(dtype)


def _cutout(key: jax.Array, batch: Batch, *, strength: float) -> Batch:
    images = batch["images"]
    count, height, width, _ = images.shape
    size = int(_HOLE * strength * height), int(_HOLE * strength * width)
    sides = jnp.array(size)
    centre = jax.random.randint(key, (count, 2), 0, jnp.array([height, width]))
    start = centre - sides // 2
    inside = []
    for axis, length in enumerate((height, width)):
        place = jnp.arange(length) - start[:, axis, None]
        inside.append((place >= 0) & (place < sides[axis]))
    hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return {**batch, "images": jnp.where(hole, jnp.zeros((), images.dtype), images)}


# With the largest strength, at which scales and factors stay positive and a picture is
# not all hole; 1 where there is nothing to strengthen.
_AUGMENTATIONS: dict[str, tuple[Callable[..., Batch], float]] = {
    "crop": (_crop, 4.0),
    "flip": (_flip, 1.0),
    "affine": (_affine, 5.0),
    "brightness": (_brightness, 3.0),
    "contrast": (_contrast, 3.0),
    "saturation": (_saturation, 2.0),
    "cutout": (_cutout, 3.0),
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


def _is_inside(boxes: jax.Array, height: int, width: int) -> jax.Array:
    """Whether the centres of boxes lie in the picture."""
    centre = _centres(boxes)
    return jnp.all((centre >= 0) & (centre <= jnp.array([height, width])), axis=-1)


def _largest(batch: Batch) -> jax.Array:
    """The largest box (n, 4) of each picture."""
    boxes = batch["boxes"]
    if boxes.ndim == 2:
        return boxes
    sides = boxes[..., 2:] - boxes[..., :2]
    area = jnp.where(_real(batch), sides[..., 0] * sides[..., 1], -1.0)
    largest = jnp.argmax(area, axis=1)
    return jnp.take_along_axis(boxes, largest[:, None, None], axis=1)[:, 0]


def _keep_largest(shift: jax.Array, batch: Batch, height: int, width: int) -> jax.Array:
    """The shift made smaller where the centre of the largest box would leave.

    The label of a picture is that of its largest box, so that one must stay.
    """
    centre = _centres(_largest(batch))
    low = -jnp.floor(centre)
    high = jnp.floor(jnp.array([height, width]) - centre)
    return jnp.clip(shift, jnp.minimum(low, 0), jnp.maximum(high, 0)).astype(jnp.int32)


def _with_boxes(batch: Batch, moved: jax.Array) -> Batch:
    """Moved boxes, clipped; of several, those whose centre left become none."""
    _, height, width, _ = batch["images"].shape
    clipped = jnp.clip(moved, 0, jnp.array([width, height] * 2, moved.dtype))
    if moved.ndim == 2:
        return {**batch, "boxes": clipped}
    stays = _is_inside(moved, height, width) & _real(batch)
    return {
        **batch,
        "boxes": jnp.where(stays[..., None], clipped, -1),
        "box_labels": jnp.where(stays, batch["box_labels"], -1),
    }
