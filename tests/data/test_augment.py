import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.data.augment import augment, check_mirrored

pytestmark = pytest.mark.once


@functools.cache
def compiled(spec):
    """The augmentation as one program for each shape; NumPy's arrays come out.

    Every index into an array of JAX's would be one more program.
    """
    run = jax.jit(augment(spec))
    return lambda *arguments: jax.tree.map(np.asarray, run(*arguments))


def as_given(batch):
    """NumPy's arrays of the types that JAX takes them for."""
    return {name: np.asarray(jnp.asarray(array)) for name, array in batch.items()}


def batch_of(count=512, height=16, width=24, channels=3, dtype=jnp.uint8, **extra):
    """Noise without zeros."""
    random = np.random.default_rng(5)
    images = random.integers(1, 256, (count, height, width, channels))
    batch = {"images": images.astype(dtype), "labels": np.arange(count) % 4}
    return as_given(batch | extra)


def with_rectangles(count=256, height=16, width=24, *, several=False):
    """Black pictures with a white rectangle, and its box."""
    random = np.random.default_rng(0)
    x1, y1 = random.integers(0, width - 3, count), random.integers(0, height - 3, count)
    x2 = x1 + random.integers(2, width - x1 + 1)
    y2 = y1 + random.integers(2, height - y1 + 1)
    images = np.zeros((count, height, width, 1), np.uint8)
    for row in range(count):
        images[row, y1[row] : y2[row], x1[row] : x2[row]] = 255
    boxes = np.stack([x1, y1, x2, y2], -1).astype(np.float32)
    batch = {"images": images, "labels": np.zeros(count, np.int32), "boxes": boxes}
    if several:
        none = np.full_like(boxes, -1)
        batch["boxes"] = np.stack([none, boxes], 1)
        batch["box_labels"] = np.tile(np.int32([-1, 2]), (count, 1))
    return as_given(batch)


def boxes_of_white(images):
    boxes = []
    for picture in np.asarray(images)[..., 0] > 0:
        ys, xs = np.nonzero(picture)
        boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    return np.array(boxes, np.float32)


ALL = [
    "crop",
    "shift",
    "flip",
    "affine",
    "zoom",
    "brightness",
    "contrast",
    "saturation",
    "cutout",
    "crop,flip,affine,cutout",
]


def test_no_name_changes_nothing():
    batch = batch_of()
    for spec in ("", "  "):
        assert augment(spec)(jax.random.key(0), batch) is batch


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32, jnp.bfloat16])
def test_shapes_dtypes_and_other_entries_stay(dtype):
    spec = "crop,flip,affine,brightness,contrast,saturation,cutout"
    batch = batch_of(dtype=dtype)
    result = compiled(spec)(jax.random.key(0), batch)
    assert result.keys() == batch.keys()
    assert result["images"].shape == batch["images"].shape
    assert result["images"].dtype == dtype
    np.testing.assert_array_equal(result["labels"], batch["labels"])
    assert not np.array_equal(result["images"], batch["images"])


@pytest.mark.parametrize("spec", ALL)
def test_the_key_decides_and_each_picture_draws_its_own(spec):
    batch = batch_of()
    batch["images"] = np.repeat(batch["images"][:1], len(batch["images"]), axis=0)
    results = [
        compiled(spec)(jax.random.key(key), batch)["images"] for key in (0, 0, 1)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert len({picture.tobytes() for picture in np.asarray(results[0])}) > 1


def test_scan_changes_no_bit():
    spec, batch = "crop,flip,cutout", with_rectangles()
    keys = jax.random.split(jax.random.key(0), 3)
    scan = jax.jit(
        lambda: jax.lax.scan(lambda c, k: (c, augment(spec)(k, batch)), 0, keys)
    )
    scanned = jax.tree.map(np.asarray, scan()[1])
    for index, key in enumerate(keys):
        for name, value in compiled(spec)(key, batch).items():
            np.testing.assert_array_equal(scanned[name][index], value)


@pytest.mark.parametrize(
    ("spec", "border"), [("crop", "constant"), ("shift:2", "reflect")]
)
def test_crop_and_shift_are_windows_of_the_padded_picture_and_find_them_all(
    spec, border
):
    batch = batch_of(dtype=jnp.float32)
    cropped = compiled(spec)(jax.random.key(0), batch)["images"]
    padded = np.pad(batch["images"], ((0, 0), (2, 2), (3, 3), (0, 0)), mode=border)
    found = set()
    for row, picture in enumerate(np.asarray(cropped)):
        places = [
            (y, x)
            for y in range(5)
            for x in range(7)
            if np.array_equal(padded[row, y : y + 16, x : x + 24], picture)
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) == 35


def test_a_picture_of_32_pixels_moves_by_up_to_four():
    batch = {"images": np.ones((2000, 32, 32, 1), np.uint8)}
    cropped = np.asarray(compiled("crop")(jax.random.key(0), batch)["images"])[..., 0]
    missing = 32 - cropped.max(axis=2).sum(axis=1)
    np.testing.assert_array_equal(np.unique(missing), range(5))
    # 0 comes from one shift of nine, 1 to 4 from two each.
    np.testing.assert_allclose(
        np.bincount(missing.astype(int))[1:] / 2000, 2 / 9, atol=0.04
    )


def test_flip_mirrors_about_half_of_the_pictures():
    batch = batch_of()
    flipped = np.asarray(compiled("flip")(jax.random.key(0), batch)["images"])
    images = np.asarray(batch["images"])
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 0.09  # four standard deviations


def test_cutout_sets_one_rectangle_to_zero():
    batch = batch_of()
    cut = np.asarray(compiled("cutout")(jax.random.key(0), batch)["images"])
    images = np.asarray(batch["images"])  # without zeros
    hole = (cut == 0).all(axis=-1)
    np.testing.assert_array_equal(cut[~hole], images[~hole])
    sizes = hole.any(axis=2).sum(axis=1), hole.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(hole.sum(axis=(1, 2)), sizes[0] * sizes[1])
    assert (sizes[0].max(), sizes[1].max()) == (4, 6)
    assert hole.any(axis=0).all()  # each pixel is hit by some
    assert sizes[0].min() >= 2


def test_a_flip_is_refused_where_it_makes_one_class_of_another():
    signs = ("Stop", "Keep right", "Double curve", "Keep left")
    with pytest.raises(ValueError, match="class 1, 'Keep right', .* class 3, 'Keep le"):
        check_mirrored("crop, flip", signs)
    with pytest.raises(ValueError, match="flip makes class"):
        check_mirrored("alternate_flip", signs)
    check_mirrored("crop,affine", signs)
    # Nothing is the mirror image of a right-of-way.
    check_mirrored("flip", ("Stop", "Right-of-way", "Bright light", "Left-handed"))


def test_a_flip_that_alternates_shows_both_sides_in_two_times_whatever_else_moves():
    batch = batch_of(boxes=np.tile(np.float32([1, 2, 5, 8]), (512, 1)))
    images = batch["images"]
    plain = compiled("alternate_flip")
    first, second, third = (
        plain(jax.random.key(time), {**batch}, np.int32(time)) for time in range(3)
    )
    mirrored = [(x["images"] != images).any(axis=(1, 2, 3)) for x in (first, second)]
    np.testing.assert_array_equal(mirrored[0], ~mirrored[1])
    assert 200 < mirrored[0].sum() < 312
    np.testing.assert_array_equal(third["images"], first["images"])
    boxes = np.where(mirrored[0][:, None], [19, 2, 23, 8], [1, 2, 5, 8])
    np.testing.assert_array_equal(first["boxes"], boxes)
    # A picture's side does not depend on where it stands, nor on what moves it before.
    backwards = {name: array[::-1] for name, array in batch.items()}
    again = plain(jax.random.key(9), backwards, np.int32(0))
    np.testing.assert_array_equal(again["images"][::-1], first["images"])
    moved = compiled("shift:4,alternate_flip")(jax.random.key(3), batch, np.int32(0))
    turned = compiled("shift:4")(jax.random.key(3), batch)["images"]
    turned = np.where(mirrored[0][:, None, None, None], turned[:, :, ::-1], turned)
    np.testing.assert_array_equal(moved["images"], turned)


@pytest.mark.parametrize("spec", ["crop", "flip,crop"])
@pytest.mark.parametrize("several", [False, True])
def test_boxes_move_with_the_picture(spec, several):
    batch = with_rectangles(several=several)
    result = compiled(spec)(jax.random.key(1), batch)
    boxes = result["boxes"][:, 1] if several else result["boxes"]
    np.testing.assert_array_equal(boxes, boxes_of_white(result["images"]))
    assert not np.array_equal(result["boxes"], batch["boxes"])
    assert result["boxes"].dtype == jnp.float32
    if several:
        np.testing.assert_array_equal(result["boxes"][:, 0], -1)
        np.testing.assert_array_equal(result["box_labels"], batch["box_labels"])


@pytest.mark.parametrize("several", [False, True])
def test_boxes_hold_the_ellipse_that_was_turned_and_scaled(several):
    """The moved box is that of the moved picture's white pixels, no larger."""
    count, random = 24, np.random.default_rng(0)
    low = random.integers([12, 10], [25, 18], (count, 2))
    high = low + random.integers(8, [22, 16], (count, 2))
    y, x = np.mgrid[:40, :60] + 0.5
    images = np.zeros((count, 40, 60, 1), np.uint8)
    for image, centre, sides in zip(images, (low + high) / 2, high - low, strict=True):
        inside = np.hypot(*(((x, y) - centre[:, None, None]) / sides[:, None, None]))
        image[inside <= 0.5] = 255
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    batch = {"images": images, "boxes": boxes}
    if several:
        batch["boxes"] = batch["boxes"][:, None]
        batch["box_labels"] = np.full((count, 1), 2)
    result = compiled("affine")(jax.random.key(1), batch)
    boxes = result["boxes"][:, 0] if several else result["boxes"]
    # Of the pixels, which the box cuts through, those that are white for the most part.
    white = boxes_of_white(255 * (result["images"] > 127))
    np.testing.assert_allclose(boxes, white, atol=1.5)
    assert np.abs(boxes - white).mean() < 0.5
    # Neither larger nor smaller on the average than as pictures were scaled.
    before, after = (b.reshape(-1, 4) for b in (batch["boxes"], boxes))
    ratio = (after[:, 2:] - after[:, :2]) / (before[:, 2:] - before[:, :2])
    assert abs(float(ratio.mean()) - 1) < 0.03
    angles = np.abs(np.asarray(ratio) - 1).max(axis=1)
    assert len(np.unique(angles.round(4))) == count


def test_a_picture_keeps_its_mass_and_its_centre_when_it_is_turned():
    y, x = np.mgrid[:33, :33] - 16.0
    blob = 200 * np.exp(-((x / 6) ** 2 + (y / 3) ** 2))
    batch = {"images": np.tile(np.array(blob, np.float32)[..., None], (64, 1, 1, 1))}
    turned = np.asarray(compiled("affine")(jax.random.key(0), batch)["images"])[..., 0]
    mass = turned.sum(axis=(1, 2))
    scale = np.sqrt(mass / blob.sum())
    assert (scale > 0.89).all()
    assert (scale < 1.11).all()
    assert np.ptp(scale) > 0.15
    for axis in (x, y):
        np.testing.assert_allclose(
            (turned * axis).sum(axis=(1, 2)) / mass, 0, atol=0.01
        )
    moments = [(turned * a * b).sum(axis=(1, 2)) for a, b in ((x, y), (x, x), (y, y))]
    angle = np.degrees(np.arctan2(2 * moments[0], moments[1] - moments[2])) / 2
    assert (np.abs(angle) < 10.2).all()
    assert angle.min() < -7
    assert angle.max() > 7


def test_a_box_whose_centre_would_leave_keeps_its_picture_as_it_is():
    corner = np.array([0, 0, 1, 1], np.float32)
    batch = batch_of(200, 32, 32, boxes=np.tile(corner, (200, 1)))
    result = compiled("affine")(jax.random.key(0), batch)
    boxes = np.asarray(result["boxes"])
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 0.9).all()  # the centre is not at 0
    same = (np.asarray(result["images"]) == np.asarray(batch["images"])).all((1, 2, 3))
    np.testing.assert_array_equal(boxes[same], np.tile(corner, (same.sum(), 1)))
    assert 0.2 < same.mean() < 0.95


@pytest.mark.parametrize("several", [False, True])
def test_boxes_follow_a_zoomed_picture_and_the_largest_never_leaves(several):
    batch = with_rectangles(height=40, width=60, several=several)
    result = compiled("zoom")(jax.random.key(2), batch)
    boxes = result["boxes"][:, 1] if several else result["boxes"]
    given = batch["boxes"][:, 1] if several else batch["boxes"]
    if several:
        np.testing.assert_array_equal(result["box_labels"], batch["box_labels"])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides > 0).all()
    seen = (sides > 2).all(axis=1)  # of less a pixel that is half white may be all
    white = boxes_of_white(255 * (result["images"][seen] > 127))
    np.testing.assert_allclose(boxes[seen], white, atol=1.01)
    assert np.abs(boxes[seen] - white).mean() < 0.3
    # Of rectangles that no border cuts both sides are scaled alike, by 1/1.5 to 1.5.
    whole = ((boxes > 0) & (boxes < [60, 40, 60, 40])).all(axis=1)
    ratio = (sides / (given[:, 2:] - given[:, :2]))[whole]
    np.testing.assert_allclose(ratio[:, 0], ratio[:, 1], rtol=1e-4)
    assert 1 / 1.5 - 1e-4 < ratio.min() < 0.72
    assert 1.4 < ratio.max() < 1.5 + 1e-4


def test_a_small_picture_of_a_zoom_lies_anywhere_among_zeros():
    batch = {"images": np.ones((500, 32, 32, 1), np.float32)}
    pictures = compiled("zoom:2")(jax.random.key(0), batch)["images"][..., 0] > 0.5
    sizes = pictures.any(axis=1).sum(axis=1)
    assert sizes.min() == 32 / 1.5**2 // 1
    small = sizes < 20
    first = pictures[small].any(axis=1).argmax(axis=1)
    assert first.min() == 0
    assert first.max() >= 12
    # Of a picture that grew, the frame is full.
    assert 0.4 < pictures.all(axis=(1, 2)).mean() < 0.6


def test_brightness_multiplies_each_picture_and_saturates():
    batch = batch_of(dtype=jnp.float32)
    brighter = np.asarray(compiled("brightness")(jax.random.key(0), batch)["images"])
    factor = brighter / np.asarray(batch["images"])
    np.testing.assert_allclose(
        factor, factor[:, :1, :1, :1] * np.ones_like(factor), rtol=1e-6
    )
    assert factor.min() < 0.72
    assert factor.max() > 1.28
    batch = batch_of()
    integers = np.asarray(compiled("brightness")(jax.random.key(0), batch)["images"])
    np.testing.assert_allclose(integers, np.minimum(np.round(brighter), 255), atol=1)
    assert integers.max() == 255


@pytest.mark.parametrize(
    ("name", "axes", "half"), [("contrast", (1, 2, 3), 0.3), ("saturation", (3,), 0.5)]
)
def test_contrast_and_saturation_scale_the_difference_from_a_mean(name, axes, half):
    """That of the whole picture, and that of the channels of each pixel."""
    batch = batch_of(dtype=jnp.float32)
    images = np.asarray(batch["images"])
    changed = np.asarray(compiled(name)(jax.random.key(0), batch)["images"])
    mean = images.mean(axis=axes, keepdims=True)
    ratio = (changed - mean).std(axis=(1, 2, 3)) / (images - mean).std(axis=(1, 2, 3))
    factor = ratio[:, None, None, None]
    np.testing.assert_allclose(changed, mean + factor * (images - mean), atol=0.05)
    assert 1 - half - 1e-3 < ratio.min() < 1 - 0.9 * half
    assert 1 + 0.9 * half < ratio.max() < 1 + half + 1e-3


def test_saturation_leaves_grey_pictures_alone():
    batch = batch_of(channels=1)
    changed = compiled("saturation")(jax.random.key(0), batch)["images"]
    np.testing.assert_array_equal(changed, batch["images"])


def test_a_strength_multiplies_the_numbers_of_an_augmentation():
    key, batch = jax.random.key(0), {"images": np.ones((500, 32, 32, 1))}

    def lost(spec, axes):
        """The most that is lost of the rows of a white picture."""
        images = np.asarray(compiled(spec)(key, batch)["images"])
        return (images == 0).all(axis=axes).sum(axis=1).max()

    assert lost("crop", (2, 3)) == lost("crop:1", (2, 3)) == 4
    assert lost("crop:1.5", (2, 3)) == 6
    holes = compiled("cutout:2")(key, batch)["images"] == 0
    assert holes.sum(axis=(1, 2, 3)).max() == 16 * 16
    for name in ("brightness", "contrast", "saturation"):
        noise = batch_of(dtype=jnp.float32)
        once, twice = (
            compiled(spec)(key, noise)["images"] - noise["images"]
            for spec in (name, f"{name}:2")
        )
        np.testing.assert_allclose(twice, 2 * once, atol=1e-3)
    boxed = batch_of(500, 40, 40, boxes=np.tile(np.array([12.0, 8, 28, 32]), (500, 1)))
    for strength in (1, 2):
        boxes = compiled(f"affine:{strength}")(key, boxed)["boxes"]
        area = np.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)) / (16 * 24)
        low, high = 1 - 0.1 * strength, 1 + 0.1 * strength
        assert low**2 < area.min() < 1.15 * low**2
        assert 0.9 * high**2 < area.max()


@pytest.mark.parametrize("spec", ["cutout", "brightness", "contrast", "saturation"])
def test_what_moves_nothing_leaves_boxes_alone(spec):
    batch = with_rectangles()
    result = compiled(spec)(jax.random.key(0), batch)
    np.testing.assert_array_equal(result["boxes"], batch["boxes"])


@pytest.mark.parametrize("corner", [(0, 0), (31.5, 0), (0, 31.5), (31.2, 31.4)])
def test_a_small_box_at_the_border_is_never_lost(corner):
    x, y = corner
    box = np.array([x, y, x + 0.4, y + 0.4], np.float32)
    batch = {"images": np.zeros((500, 32, 32, 1)), "boxes": np.tile(box, (500, 1))}
    boxes = np.asarray(compiled("crop")(jax.random.key(0), batch)["boxes"])
    assert (boxes[:, 2:] - boxes[:, :2] >= 0.19).all()
    assert (boxes >= 0).all()
    assert (boxes <= 32).all()
    assert len(np.unique(boxes, axis=0)) > 9  # it still moves inwards


def test_of_several_boxes_one_that_left_becomes_none_and_the_largest_stays():
    boxes = np.array([[0, 0, 1, 1], [0, 10, 4, 30], [-1] * 4], np.float32)
    labels = np.array([3, 5, -1])
    batch = {
        "images": np.zeros((300, 32, 32, 1)),
        "boxes": np.tile(boxes, (300, 1, 1)),
        "box_labels": np.tile(labels, (300, 1)),
    }
    result = compiled("crop")(jax.random.key(0), batch)
    gone = np.asarray(result["box_labels"][:, 0] == -1)
    assert 0.2 < gone.mean() < 0.8
    np.testing.assert_array_equal(result["boxes"][gone, 0], -1)
    assert set(np.asarray(result["box_labels"][~gone, 0])) == {3}
    np.testing.assert_array_equal(result["box_labels"][:, 1], 5)
    assert (result["boxes"][:, 1, 2] - result["boxes"][:, 1, 0] >= 2).all()


@pytest.mark.parametrize("fill", [-1.0, np.nan])
@pytest.mark.parametrize("spec", ["crop", "affine", "zoom"])
def test_a_picture_without_boxes_moves_as_one_with_a_box_in_its_middle(spec, fill):
    real = batch_of(64)
    boxes = np.tile(np.float32([11, 7, 13, 9]), (64, 1))
    wanted = compiled(spec)(jax.random.key(1), real | {"boxes": boxes})
    none = np.full((64, 2, 4), fill, np.float32), np.full((64, 2), -1)
    batch = as_given(real | dict(zip(("boxes", "box_labels"), none, strict=True)))
    result = compiled(spec)(jax.random.key(1), batch)
    np.testing.assert_array_equal(result["images"], wanted["images"])
    np.testing.assert_array_equal(result["box_labels"], -1)


@pytest.mark.parametrize("fill", [-1.0, 0.0, np.nan])
@pytest.mark.parametrize("spec", ["crop", "affine", "zoom"])
def test_what_is_no_box_of_a_task_without_boxes_stands_for_none(spec, fill):
    real = batch_of(64)
    boxes = np.tile(np.float32([11, 7, 13, 9]), (64, 1))
    wanted = compiled(spec)(jax.random.key(1), real | {"boxes": boxes})["images"]
    boxes[::2] = fill
    found = compiled(spec)(jax.random.key(1), real | {"boxes": boxes})["images"]
    np.testing.assert_array_equal(found, wanted)


def test_a_small_picture_moves_by_a_pixel_at_least():
    batch = batch_of(64, height=8, width=8)
    for spec in ("shift", "crop:0.5"):
        found = compiled(spec)(jax.random.key(0), batch)["images"]
        assert (np.asarray(found) != batch["images"]).any()


def test_a_picture_without_boxes_passes():
    batch = batch_of(8, boxes=np.full((8, 2, 4), -1.0), box_labels=np.full((8, 2), -1))
    result = compiled("crop,flip")(jax.random.key(0), batch)
    np.testing.assert_array_equal(result["boxes"], -1)
    np.testing.assert_array_equal(result["box_labels"], -1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("corp", "unknown augmentation 'corp' .*; did you mean 'crop'?"),
        ("crop,Flip", "unknown augmentation 'Flip' .*; did you mean 'flip'?"),
        ("crop,", "unknown augmentation '' in 'crop,', allowed are crop, shift, flip"),
        ("crop flip", "unknown augmentation 'crop flip'"),
        ("flip,flip", "augmentation 'flip' stands twice"),
        ("flip,alternate_flip", "has flip and alternate_flip; keep one of them"),
        ("alternate_flip:2", "'alternate_flip' takes no strength"),
        ("crop,crop:2", "augmentation 'crop' stands twice"),
        ("crop:0", "'crop': the strength must be a number above 0, at most 4, got '0'"),
        ("affine:6", "'affine': the strength must be .* at most 5, got '6'"),
        ("cutout:nan", "'cutout': the strength must be .* got 'nan'"),
        ("cutout:", "'cutout': the strength must be .* got ''"),
        ("flip:2", "'flip' takes no strength, got 'flip:2'"),
    ],
)
def test_a_wrong_name_is_refused_at_once(spec, message):
    with pytest.raises(ValueError, match=message):
        augment(spec)


def test_blanks_around_names_do_not_matter():
    batch = batch_of()
    for one, other in (("flip", " flip "), ("crop:2", " crop : 2")):
        a, b = (compiled(spec)(jax.random.key(0), batch) for spec in (one, other))
        np.testing.assert_array_equal(a["images"], b["images"])


def test_wrong_batches_are_refused():
    apply = augment("crop")
    with pytest.raises(ValueError, match=r"images must have shape .* got \(4, 8, 8\)"):
        apply(jax.random.key(0), {"images": np.zeros((4, 8, 8))})
    with pytest.raises(ValueError, match="need box_labels"):
        apply(jax.random.key(0), batch_of(4, boxes=np.zeros((4, 2, 4))))


def test_tiny_pictures_pass():
    apply = functools.partial(compiled("crop,flip,affine,cutout"), jax.random.key(0))
    assert apply(batch_of(3, height=1, width=5))["images"].shape == (3, 1, 5, 3)
