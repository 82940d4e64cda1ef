"""Random changes of training pictures and their boxes, on the device.

Pure functions of (key, samples, times); random numbers are drawn for each picture.
Shapes and dtypes stay the same, so they run inside `jit` and `lax.scan`.
"""

import functools
import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dib_jax.data.kind import Augmentation
from dib_jax.data.messages import did_you_mean

# At strength 1, to either side.
_ANGLE = 10.0  # degrees
_SCALE = 0.1
_SHIFT = 1 / 8  # of a side
_HOLE = 1 / 4  # of a side
_ZOOM = 1.5
# In pixels: so far inside the picture stays the centre of its largest box. On the
# border itself rounding may put it outside, and the label would be lost.
_ROOM = 0.5

_MIRRORED = {"left": "right", "right": "left"}

Samples = dict[str, jax.Array]
_Change = Callable[[jax.Array, Samples], Samples]
# The one change that depends on how often a picture was seen.
_ALTERNATES = "alternate_flip"


def augment(spec: str) -> Augmentation:
    """A function that applies named augmentations in order.

    Args:
        spec: names separated by commas, "" for none; a name may have a strength, as in
            `affine:1.5`, which multiplies the numbers given here. `crop`: pad with
            zeros by an eighth of each side, cut a window of the old size at random.
            `shift`: the same by a sixteenth, with pixels mirrored at the border.
            `flip`: mirror left and right with probability 1/2; takes no strength.
            `alternate_flip`: mirror every picture every second time; its pixels decide
            at which of the two. No strength.
            `affine`: turn by up to 10 degrees and scale by 1 ± 0.1 about the centre,
            zeros come in; a box is then that around the ellipse that was in it.
            `zoom`: scale by 1.5^u with u from −1 to 1, and move at random: a small
            picture lies anywhere in the old frame, among zeros, of a large one any
            window is seen. A strength multiplies u.
            `brightness`: multiply by 1 ± 0.3. `contrast`: multiply the difference from
            the picture's mean by 1 ± 0.3. `saturation`: multiply the difference from
            the pixel's grey, the mean of its channels, by 1 ± 0.5. `cutout`: set a
            rectangle with a quarter of the sides, centred anywhere, to zero.

    Returns:
        A pure function (key, samples, times=0) → samples. Samples are a dict of
        `images` (n, h, w, c), float or uint8, and optionally `boxes` (n, 4), or
        (n, m, 4) with `box_labels` (n, m), in pixels. Other entries pass unchanged.
        `times` is how often these samples were augmented before, an integer scalar.

    Raises:
        ValueError: a name is unknown or given twice, two flips are asked for, or a
            strength is no number or out of range.

    Source: of `alternate_flip`, Jordan, arXiv 2404.00498, section 3.6.
    """
    steps: dict[str, _Change] = {}
    for text in spec.split(",") if spec.strip() else ():
        name, step = _named(text, spec)
        if name in steps:
            raise ValueError(f"augmentation {name!r} stands twice in {spec!r}")
        steps[name] = step
    if {"flip", _ALTERNATES} <= steps.keys():
        raise ValueError(f"{spec!r} has flip and {_ALTERNATES}; keep one of them")

    def apply(
        key: jax.Array, samples: Samples, times: jax.typing.ArrayLike = 0
    ) -> Samples:
        _check(samples)
        given = samples["images"]
        for index, (name, step) in enumerate(steps.items()):
            if name == _ALTERNATES:
                mirrored = (_first_side(given) + times) % 2 == 1
                samples = mirror(samples, mirrored)
            else:
                samples = step(jax.random.fold_in(key, index), samples)
        return samples

    return apply


def check_mirrored(spec: str, class_names: Sequence[str]) -> None:
    """Refuse `flip` where a mirrored picture belongs to another class.

    These are classes whose names differ by left and right: turn left, turn right.

    Args:
        spec: as for `augment`.
        class_names: names of the labels, in their order.

    Raises:
        ValueError: `spec` has a flip and two classes are each other's mirror image.
    """
    if not {"flip", _ALTERNATES} & {name.strip() for name in spec.split(",")}:
        return
    numbers = {name.casefold(): label for label, name in enumerate(class_names)}
    for name, label in numbers.items():
        mirrored = re.sub("left|right", lambda side: _MIRRORED[side.group()], name)
        if numbers.get(mirrored, label) != label:
            raise ValueError(
                f"flip makes class {label}, {class_names[label]!r}, look like class "
                f"{numbers[mirrored]}, {class_names[numbers[mirrored]]!r}; leave it out"
            )


def _named(text: str, spec: str) -> tuple[str, _Change]:
    """The augmentation that a part of `spec` asks for, its name and at its strength."""
    name, colon, strength = (part.strip() for part in text.partition(":"))
    if name not in _AUGMENTATIONS:
        allowed = ", ".join(_AUGMENTATIONS)
        raise ValueError(
            f"unknown augmentation {name!r} in {spec!r}, allowed are {allowed}, "
            f"separated by commas{did_you_mean(name, _AUGMENTATIONS)}"
        )
    change, limit = _AUGMENTATIONS[name]
    if colon and limit == 1:
        raise ValueError(
            f"augmentation {name!r} takes no strength, got {text.strip()!r}"
        )
    try:
        factor = float(strength) if colon else 1.0
    except ValueError:
        factor = 0.0
    if not 0 < factor <= limit:
        raise ValueError(
            f"augmentation {name!r}: the strength must be a number above 0, at most "
            f"{limit:g}, got {strength!r}"
        )
    return name, functools.partial(change, strength=factor)


def _crop(
    key: jax.Array,
    samples: Samples,
    *,
    strength: float,
    share: float = _SHIFT,
    border: str = "constant",
) -> Samples:
    images = samples["images"]
    count, height, width, channels = images.shape
    # A pixel at least, also of a small picture; `reflect` has no more than its side.
    pads = [
        min(max(1, int(share * strength * side)), side - 1) for side in (height, width)
    ]
    pad = jnp.array(pads)
    # The picture moves by `shift` (down, right); what leaves is lost, the border of
    # `jnp.pad` comes in.
    shift = jax.random.randint(key, (count, 2), -pad, pad + 1)
    if "boxes" in samples:
        shift = _bounded(shift, samples, height, width)
    widths = ((0, 0), (pads[0],) * 2, (pads[1],) * 2, (0, 0))
    padded = jnp.pad(images, widths, mode=border)

    def window(picture: jax.Array, start: jax.Array) -> jax.Array:
        corner = (start[0], start[1], 0)
        return jax.lax.dynamic_slice(picture, corner, (height, width, channels))

    def move(boxes: jax.Array) -> jax.Array:
        return boxes + _beside(shift[:, [1, 0, 1, 0]], boxes).astype(boxes.dtype)

    return _moved(samples, jax.vmap(window)(padded, pad - shift), move)


def _flip(key: jax.Array, samples: Samples, *, strength: float) -> Samples:
    del strength
    mirrored = jax.random.bernoulli(key, 0.5, samples["images"].shape[:1])
    return mirror(samples, mirrored)


def _first_side(images: jax.Array) -> jax.Array:
    """0 or 1 for each picture (n,), as if drawn, but always the same of its pixels.

    The highest bit of Σ wᵢ xᵢ mod 2³² with odd weights w, a universal hash. No number
    of a picture is needed, so batches of any order have it.
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        images = jax.lax.bitcast_convert_type(images.astype(jnp.float32), jnp.uint32)
    pixels = images.reshape(len(images), -1).astype(jnp.uint32)
    weights = jax.random.bits(jax.random.key(0), pixels.shape[1:], jnp.uint32) | 1
    return (pixels @ weights >> 31).astype(jnp.int32)


def mirror(samples: Samples, mirrored: jax.Array) -> Samples:
    """Samples of which some are mirrored left and right, with their boxes.

    Args:
        samples: as for `augment`.
        mirrored: booleans (n,), which ones.
    """
    images = samples["images"]
    pick = mirrored[:, None, None, None]
    samples = {**samples, "images": jnp.where(pick, images[:, :, ::-1], images)}
    if "boxes" in samples:
        boxes = samples["boxes"]
        x1, y1, x2, y2 = (boxes[..., side] for side in range(4))
        width = images.shape[2]
        other = jnp.stack([width - x2, y1, width - x1, y2], axis=-1)
        moves = _beside(mirrored, boxes) & _real(samples)[..., None]
        samples["boxes"] = jnp.where(moves, other, boxes)
    return samples


def _affine(key: jax.Array, samples: Samples, *, strength: float) -> Samples:
    images = samples["images"]
    count, height, width, _ = images.shape
    angle_key, scale_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, (count,), minval=-1, maxval=1)
    angle *= jnp.pi * _ANGLE * strength / 180
    scale = _around_one(scale_key, count, _SCALE * strength)
    middle = jnp.array([width, height]) / 2
    if "boxes" in samples:
        # The picture stays as it is where the centre of its largest box would leave.
        largest = _turned(_largest(samples), angle, scale, middle)
        stays = _is_inside(largest, height, width, by=_ROOM)
        angle, scale = jnp.where(stays, angle, 0), jnp.where(stays, scale, 1)
    turn = functools.partial(_turned, angle=angle, scale=scale, middle=middle)
    still = jnp.zeros((count, 2))
    return _moved(samples, _resampled(images, angle, scale, still), turn)


def _zoom(key: jax.Array, samples: Samples, *, strength: float) -> Samples:
    images = samples["images"]
    count, height, width, _ = images.shape
    scale_key, shift_key = jax.random.split(key)
    power = jax.random.uniform(scale_key, (count,), minval=-1, maxval=1)
    scale = _ZOOM ** (strength * power)
    sides = jnp.array([width, height])
    room = jnp.abs(scale - 1)[:, None] * sides / 2
    shift = room * jax.random.uniform(shift_key, (count, 2), minval=-1, maxval=1)

    def scaled(boxes: jax.Array) -> jax.Array:
        middle = jnp.tile(sides / 2, 2)
        return _beside(scale, boxes) * (boxes - middle) + middle

    if "boxes" in samples:
        # Where the centre of the largest box would leave, the picture moves less.
        largest = _centres(scaled(_largest(samples)))[:, ::-1] + shift
        shift += jnp.clip(largest, _ROOM, sides - _ROOM) - largest

    def move(boxes: jax.Array) -> jax.Array:
        return scaled(boxes) + _beside(jnp.tile(shift, 2), boxes)

    return _moved(samples, _resampled(images, jnp.zeros(count), scale, shift), move)


def _rotation(angle: jax.Array) -> jax.Array:
    """Matrices (n, 2, 2) that turn (x, y) by an angle, clockwise on the screen."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cosine, -sine, sine, cosine], axis=-1).reshape(-1, 2, 2)


def _resampled(
    images: jax.Array, angle: jax.Array, scale: jax.Array, shift: jax.Array
) -> jax.Array:
    """Pictures turned and scaled about their centre, then moved, bilinearly.

    Args:
        images: (n, h, w, c).
        angle: (n,), in radians.
        scale: (n,).
        shift: (n, 2), right and down, in pixels.
    """
    count, height, width, channels = images.shape
    x, y = jnp.meshgrid(jnp.arange(width), jnp.arange(height))
    places = jnp.stack([x.ravel(), y.ravel()], axis=-1)
    middle = (jnp.array([width, height]) - 1) / 2
    # Where each pixel comes from: the inverse of a rotation is its transpose.
    moved = places - middle - shift[:, None]
    back = moved @ _rotation(angle) / scale[:, None, None] + middle
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
    angle, scale = _beside(angle, boxes), _beside(scale, boxes)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    x, y = jnp.split((boxes[..., :2] + boxes[..., 2:]) / 2 - middle, 2, axis=-1)
    centre = jnp.concatenate([cosine * x - sine * y, sine * x + cosine * y], axis=-1)
    centre = scale * centre + middle
    sides = (boxes[..., 2:] - boxes[..., :2]) / 2
    half = scale * jnp.hypot(cosine * sides, sine * sides[..., ::-1])
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def _stretched(
    key: jax.Array,
    samples: Samples,
    *,
    strength: float,
    half: float,
    axes: tuple[int, ...] = (),
) -> Samples:
    """Multiply differences from the mean over `axes` (else from 0) by 1 ± half."""
    images = samples["images"]
    factor = _around_one(key, len(images), half * strength)[:, None, None, None]
    mean = jnp.mean(images, axes, jnp.float32, keepdims=True) if axes else 0
    changed = mean + factor * (images - mean)
    return {**samples, "images": _as_type(changed, images.dtype)}


def _around_one(key: jax.Array, count: int, half: float) -> jax.Array:
    return jax.random.uniform(key, (count,), minval=1 - half, maxval=1 + half)


def _as_type(images: jax.Array, dtype: jnp.dtype) -> jax.Array:
    if jnp.issubdtype(dtype, jnp.integer):
        images = jnp.clip(jnp.round(images), 0, jnp.iinfo(dtype).max)
    return images.astype(dtype)


def _cutout(key: jax.Array, samples: Samples, *, strength: float) -> Samples:
    images = samples["images"]
    count, height, width, _ = images.shape
    sides = jnp.array(
        [max(1, int(_HOLE * strength * side)) for side in (height, width)]
    )
    centre = jax.random.randint(key, (count, 2), 0, jnp.array([height, width]))
    start = centre - sides // 2

    def within(axis: int) -> jax.Array:
        place = jnp.arange(images.shape[1 + axis]) - start[:, axis, None]
        return (place >= 0) & (place < sides[axis])

    hole = within(0)[:, :, None, None] & within(1)[:, None, :, None]
    return {**samples, "images": jnp.where(hole, jnp.zeros((), images.dtype), images)}


# With the largest strength, at which scales and factors stay positive and a picture is
# not all hole; 1 where there is nothing to strengthen.
_AUGMENTATIONS: dict[str, tuple[Callable[..., Samples], float]] = {
    "crop": (_crop, 4.0),
    "shift": (functools.partial(_crop, share=_SHIFT / 2, border="reflect"), 8.0),
    "flip": (_flip, 1.0),
    _ALTERNATES: (_flip, 1.0),
    "affine": (_affine, 5.0),
    "zoom": (_zoom, 3.0),
    "brightness": (functools.partial(_stretched, half=0.3), 3.0),
    "contrast": (functools.partial(_stretched, half=0.3, axes=(1, 2, 3)), 3.0),
    "saturation": (functools.partial(_stretched, half=0.5, axes=(3,)), 2.0),
    "cutout": (_cutout, 3.0),
}


def _check(samples: Samples) -> None:
    shape = samples["images"].shape
    if len(shape) != 4:
        raise ValueError(f"images must have shape (n, h, w, c), got {shape}")
    boxes = samples.get("boxes")
    if boxes is not None and boxes.ndim == 3 and "box_labels" not in samples:
        raise ValueError(f"boxes of shape {boxes.shape} need box_labels in the batch")


def _real(samples: Samples) -> jax.Array:
    """Which boxes are there: (n,) or (n, m).

    A task that uses no boxes does not check them: what is no box may stand for none.
    """
    boxes = samples["boxes"]
    there = jnp.isfinite(boxes).all(axis=-1) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return there & (samples["box_labels"] >= 0) if "box_labels" in samples else there


def _centres(boxes: jax.Array) -> jax.Array:
    """Centres as (y, x)."""
    return (boxes[..., 1::-1] + boxes[..., :1:-1]) / 2


def _is_inside(
    boxes: jax.Array, height: int, width: int, *, by: float = 0.0
) -> jax.Array:
    """Whether the centres of boxes lie in the picture, `by` pixels from its border."""
    centre = _centres(boxes)
    far = jnp.array([height, width]) - by
    return jnp.all((centre >= by) & (centre <= far), axis=-1)


def _largest(samples: Samples) -> jax.Array:
    """The largest box (n, 4) of each picture; its middle, where it has none."""
    boxes, there = samples["boxes"], _real(samples)
    if boxes.ndim == 2:
        boxes, there = boxes[:, None], there[:, None]
    height, width = samples["images"].shape[1:3]
    middle = jnp.array([width, height, width, height], boxes.dtype) / 2
    sides = boxes[..., 2:] - boxes[..., :2]
    area = jnp.where(there, sides[..., 0] * sides[..., 1], -1.0)
    index = jnp.argmax(area, axis=1)
    largest = jnp.take_along_axis(boxes, index[:, None, None], axis=1)[:, 0]
    return jnp.where(there.any(axis=1)[:, None], largest, middle)


def _bounded(shift: jax.Array, samples: Samples, height: int, width: int) -> jax.Array:
    """The shift made smaller where the centre of the largest box would leave.

    The label of a picture is that of its largest box, so that one must stay.
    """
    centre = _centres(_largest(samples))
    low = -jnp.floor(centre)
    high = jnp.floor(jnp.array([height, width]) - centre)
    return jnp.clip(shift, jnp.minimum(low, 0), jnp.maximum(high, 0)).astype(jnp.int32)


def _moved(
    samples: Samples, images: jax.Array, move: Callable[[jax.Array], jax.Array]
) -> Samples:
    """Changed pictures with their boxes moved and clipped.

    Of several boxes, those whose centre left become none.
    """
    samples = {**samples, "images": images}
    if "boxes" not in samples:
        return samples
    _, height, width, _ = images.shape
    moved = move(samples["boxes"]).astype(samples["boxes"].dtype)
    clipped = jnp.clip(moved, 0, jnp.array([width, height] * 2, moved.dtype))
    if moved.ndim == 2:
        return {**samples, "boxes": clipped}
    stays = _is_inside(moved, height, width) & _real(samples)
    labels = jnp.where(stays, samples["box_labels"], -1)
    clipped = jnp.where(stays[..., None], clipped, -1)
    return {**samples, "boxes": clipped, "box_labels": labels}


def _beside(values: jax.Array, boxes: jax.Array) -> jax.Array:
    """Values (n,) or (n, k) of each picture, in a shape that goes with its boxes."""
    ones = [1] * (boxes.ndim - 2)
    return values.reshape(len(values), *ones, *(values.shape[1:] or (1,)))
