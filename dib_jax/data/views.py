"""Changed copies of a picture over which a network's outputs are averaged.

Pure functions of samples, without random numbers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dib_jax.data.augment import Samples, check_mirrored, mirror
from dib_jax.data.kind import View, Views
from dib_jax.data.messages import did_you_mean

_NAMES = ("flip", "shift")
_SHIFT = 1 / 32  # of a side, at least a pixel


def views(spec: str, class_names: tuple[str, ...] = ()) -> Views:
    """The pictures that are seen in place of each one, and what each counts.

    Args:
        spec: names separated by commas, "" for none. `flip`: the picture and its mirror
            image. `shift`: the picture and two that are moved along the diagonal, by a
            pixel of 32, with pixels mirrored at the border; these two count as much
            together as the picture itself. Both: each of the three and its mirror.
        class_names: names of the labels, in their order.

    Returns:
        Views, whose weights add up to 1; () for none.

    Raises:
        ValueError: a name is unknown or given twice, or a mirrored picture belongs to
            another class.

    Source: Jordan, arXiv 2404.00498, section 3.5.
    """
    names = [name.strip() for name in spec.split(",")] if spec.strip() else []
    for name in names:
        if name not in _NAMES:
            raise ValueError(
                f"unknown view {name!r} in {spec!r}, allowed are {', '.join(_NAMES)}, "
                f"separated by commas{did_you_mean(name, _NAMES)}"
            )
        if names.count(name) > 1:
            raise ValueError(f"view {name!r} stands twice in {spec!r}")
    check_mirrored(spec, class_names)
    if not names:
        return ()
    moves = {0: 0.5, 1: 0.25, -1: 0.25} if "shift" in names else {0: 1.0}
    sides = (False, True) if "flip" in names else (False,)
    return tuple(
        View(weight / len(sides), _view(move, side))
        for move, weight in moves.items()
        for side in sides
    )


def _view(move: int, turned: bool) -> Callable[[Samples], Samples]:
    def change(samples: Samples) -> Samples:
        images = samples["images"]
        if move:
            images = _moved(images, move)
        samples = {**samples, "images": images}
        return mirror(samples, jnp.ones(len(images), bool)) if turned else samples

    return change


def _moved(images: jax.Array, sign: int) -> jax.Array:
    """Pictures (n, h, w, c) moved down and right by `sign` times the shift."""
    for axis in (1, 2):
        side = images.shape[axis]
        step = max(1, round(_SHIFT * side))
        width = [(0, 0)] * images.ndim
        width[axis] = (step, step)
        padded = jnp.pad(images, width, mode="reflect")
        start = step - sign * step
        images = jax.lax.slice_in_dim(padded, start, start + side, axis=axis)
    return images
