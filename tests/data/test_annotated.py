import json

import numpy as np
import pytest
from PIL import Image

from dib_jax import data
from dib_jax.data.annotated import write_annotated

VOC = """<annotation><filename>{stem}.png</filename>
<size><width>{width}</width><height>{height}</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = """<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>
<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""
SIGNS = ("stop", "crosswalk", "speedlimit")


def picture(path, width, height, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def voc(folder, stem, objects, *, width=64, height=32, seed=None):
    seed = sum(map(ord, stem)) if seed is None else seed
    pixels = picture(folder / "images" / f"{stem}.png", width, height, seed)
    text = "".join(OBJECT.format(*entry) for entry in objects)
    path = folder / "annotations" / f"{stem}.xml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(VOC.format(stem=stem, objects=text, width=width, height=height))
    return pixels


@pytest.fixture
def signs(tmp_path):
    """Twelve pictures, four of each class, as the Road Sign Detection set has them."""
    folder = tmp_path / "signs"
    for number in range(12):
        objects = [(SIGNS[number % 3], 8, 4, 40, 20), ("stop", 0, 0, 6, 6)]
        voc(folder, f"road{number}", objects[: 1 + number % 2])
    return folder


def written(source, **options):
    root = source.parent / "data"
    said = []
    write_annotated(source, root / "mine", report=said.append, **options)
    return data.load("mine", data_dir=str(root), val_fraction=0, boxes=True), said


def test_voc_pictures_become_a_set_with_boxes(signs):
    dataset, said = written(signs, size=32, test_fraction=0.25)
    assert dataset.class_names == ("crosswalk", "speedlimit", "stop")
    assert [len(split["labels"]) for split in (dataset.train, dataset.test)] == [9, 3]
    assert sorted(dataset.test["labels"]) == [0, 1, 2]
    for split in (dataset.train, dataset.test):
        assert split["images"].shape[1:] == (32, 32, 3)
        assert not split["images"][:, 16:].any()  # 64x32 becomes 32x16, padded below
        assert split["images"][:, :16].any(axis=(1, 2, 3)).all()
        np.testing.assert_array_equal(
            split["boxes"][:, 0], [[4, 2, 20, 10]] * len(split["labels"])
        )
        # The largest box gives the class; where there is one box, the other is none.
        np.testing.assert_array_equal(split["labels"], split["box_labels"][:, 0])
        second = split["box_labels"][:, 1]
        assert set(second) <= {2, -1}
        np.testing.assert_array_equal(
            split["boxes"][second == 2, 1], [[0, 0, 3, 3]] * (second == 2).sum()
        )
        assert (split["boxes"][second == -1, 1] == -1).all()
    assert (
        dataset.description == "pictures of signs, longer side 32, padded to a square"
    )
    assert said == [
        f"{signs.parent / 'data' / 'mine'}: train 9, test 3; classes crosswalk, "
        "speedlimit, stop",
        "12 pictures read as Pascal VOC; no splits in it; the class names are those "
        "found",
        "no test split in it: 0.25 of train is held out",
    ]


def test_pixels_stay_where_the_size_does(tmp_path):
    folder = tmp_path / "signs"
    pixels = [
        voc(folder, stem, [(name, 0, 0, 9, 9)], width=16, height=16)
        for stem, name in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"))
    ]
    dataset, _ = written(folder, size=16, test_fraction=0.5)
    found = np.concatenate([dataset.train["images"], dataset.test["images"]])
    assert {image.tobytes() for image in found} == {x.tobytes() for x in pixels}


def test_the_largest_box_gives_the_label_wherever_it_stands(tmp_path):
    folder = tmp_path / "signs"
    for stem, names in (("a", "xy"), ("b", "yx"), ("c", "xy"), ("d", "yx")):
        voc(folder, stem, [(names[0], 0, 0, 9, 4), (names[1], 20, 10, 60, 31)])
    dataset, _ = written(folder, size=32, test_fraction=0.5)
    for split in (dataset.train, dataset.test):
        np.testing.assert_array_equal(split["labels"], split["box_labels"][:, 1])


def test_identical_pictures_stay_on_one_side(tmp_path):
    folder = tmp_path / "signs"
    for number in range(24):
        objects = [(SIGNS[number % 2], 0, 0, 9, 9)]
        voc(folder, f"road{number}", objects, seed=number // 2 % 2 + number // 8 * 4)
    dataset, _ = written(folder, size=16, test_fraction=0.4)
    sides = [
        {image.tobytes() for image in split["images"]}
        for split in (dataset.train, dataset.test)
    ]
    assert all(sides)
    assert sides[0].isdisjoint(sides[1])


def yolo(folder, stem, lines, **size):
    picture(folder / "images" / f"{stem}.jpg", **{"width": 40, "height": 20} | size)
    path = folder / "labels" / f"{stem}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def test_yolo_folders_with_splits_of_their_own(tmp_path):
    folder = tmp_path / "signs"
    for stem in "abcd":
        number = "ab".find(stem) % 2
        yolo(folder / "train", stem, [f"{number} 0.5 0.5 0.25 0.5"])
    yolo(folder / "train", "empty", [])
    yolo(folder / "valid", "e", ["1 0.5 0.5 1.0 1.0"], width=10, height=40)
    yolo(folder / "test", "f", ["0 0.1 0.1 0.2 0.2", "1 0.5 0.5 0.5 0.5"])
    (folder / "classes.txt").write_text("left turn\nright turn\n")
    dataset, said = written(folder, size=80)
    root = str(tmp_path / "data")
    validation = data.load("mine", data_dir=root, val_fraction=0.1).validation
    assert dataset.class_names == ("left turn", "right turn")
    np.testing.assert_allclose(dataset.train["boxes"][:, 0], [[30, 10, 50, 30]] * 4)
    assert sorted(dataset.train["labels"]) == [0, 1, 1, 1]
    np.testing.assert_allclose(validation["boxes"], [[[0, 0, 20, 80], [-1] * 4]])
    np.testing.assert_allclose(
        dataset.test["boxes"], [[[0, 0, 16, 8], [20, 10, 60, 30]]]
    )
    np.testing.assert_array_equal(dataset.test["box_labels"], [[0, 1]])
    assert "left out: 1 picture(s) without boxes, 0 with a bad box" in said


def refused(source, match, **options):
    root = source.parent / "data"
    with pytest.raises(ValueError, match=match) as error:
        write_annotated(source, root / "mine", report=print, **options)
    assert "\n" not in str(error.value)
    assert not [path for path in root.rglob("*")]
    return str(error.value)


@pytest.mark.parametrize(
    "box",
    [(8, 4, 65, 20), (8, 4, 8, 20), (9, 4, 8, 20), (-1, 4, 9, 9), (0, 0, "nan", 9)],
)
def test_a_box_outside_its_picture_or_without_area_is_refused(signs, box):
    voc(signs, "wrong", [("stop", 0, 0, 9, 9), ("stop", *box)])
    message = refused(signs, "box 1 has no area or leaves the picture of 64x32 pixels")
    assert message.startswith(str(signs / "annotations" / "wrong.xml"))
    assert "--skip_bad_boxes=True leaves such pictures out" in message
    dataset, said = written(signs, skip_bad_boxes=True)
    assert len(dataset.train["labels"]) + len(dataset.test["labels"]) == 12
    assert "left out: 0 picture(s) without boxes, 1 with a bad box" in said


def test_an_unknown_class_is_refused(signs, tmp_path):
    message = refused(
        signs, "unknown class 'speedlimit'", classes=("stop", "crosswalk")
    )
    assert message.endswith("the classes are 'stop', 'crosswalk'")
    folder = tmp_path / "yolo"
    yolo(folder, "a", ["2 0.5 0.5 0.2 0.2"])
    assert "unknown class 2; " in refused(folder, "a.txt", classes=("x", "y"))
    refused(folder, "there is no classes.txt with a name a line and no data.yaml")
    yolo(folder, "a", ["-1 0.5 0.5 0.2 0.2"])
    assert "unknown class -1; " in refused(folder, "a.txt", classes=("x", "y"))


@pytest.mark.parametrize(
    "text",
    ["nc: 2\nnames: [left turn, 30]\n", "names:\n  1: 30\n  0: left turn\n"],
)
def test_yolo_class_names_stand_in_data_yaml(tmp_path, text):
    folder = tmp_path / "signs"
    for seed, stem in enumerate("abcdef"):
        yolo(folder, stem, [f"{seed % 2} 0.5 0.5 0.25 0.5"], seed=seed)
    (folder / "data.yaml").write_text(text)
    assert written(folder)[0].class_names == ("left turn", "30")


def test_keypoints_behind_a_yolo_box_are_no_outline(tmp_path):
    def people(place, shape):
        folder = tmp_path / place / "people"
        for seed, stem in enumerate("abcdef"):
            row = f"{seed % 2} 0.5 0.5 0.25 0.5 0.1 0.1 0.9 0.9"
            yolo(folder, stem, [row], seed=seed)
        (folder / "data.yaml").write_text(f"names: [a, b]\nkpt_shape: {shape}\n")
        return folder

    dataset = written(people("first", [2, 2]), size=80)[0]
    assert (dataset.train["boxes"] == [30, 10, 50, 30]).all()
    refused(people("second", "many"), "data.yaml: kpt_shape must be the number of key")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b", "not a YAML file, or damaged"),
        ("train: images\n", "names must be a list of class names"),
        (
            "names: {1: a, 2: b}",
            "0, 1, … to them, got {'1': 'a', '2': 'b'}",
        ),
        ("names: [a, [b]]", "names must be a list of class names"),
        ("names: []", "names must be a list of class names"),
    ],
)
def test_a_data_yaml_without_class_names_is_refused(tmp_path, text, message):
    folder = tmp_path / "yolo"
    yolo(folder, "a", ["1 0.5 0.5 0.2 0.2"])
    (folder / "data.yaml").write_text(text)
    assert "data.yaml: " in refused(folder, message)


def test_a_truncated_picture_is_refused(signs):
    path = signs / "images" / "road3.png"
    path.write_bytes(path.read_bytes()[:300])
    assert str(path) in refused(signs, "no picture, or truncated")
    assert "--skip_unreadable=True leaves such" in refused(signs, "no picture, or")


@pytest.mark.parametrize("form", ["folders", "table", "YOLO", "VOC", "COCO"])
def test_pictures_that_cannot_be_read_are_refused_or_counted_by_name(tmp_path, form):
    source, lines = tmp_path / "mine", []
    classes = {"a0": "x", "b0": "y", "a1": "x", "b1": "y"}
    for name, label in classes.items():
        if form == "VOC":
            voc(source, name, [(label, 1, 1, 5, 5)], width=8, height=8)
        else:
            folder = source / label if form == "folders" else source
            picture(folder / f"{name}.png", 8, 8, sum(map(ord, name)))
        if form == "YOLO":
            number = "xy".index(label)
            (source / f"{name}.txt").write_text(f"{number} .5 .5 .5 .5")
            (source / "classes.txt").write_text("x\ny")
    rows = "".join(f"{name}.png,{label}\n" for name, label in classes.items())
    if form == "table":
        (source / "all.csv").write_text(rows)
    if form == "COCO":
        boxed = [
            {"image_id": n, "category_id": n % 2, "bbox": [1, 1, 4, 4]}
            for n in range(4)
        ]
        images = [
            {"id": n, "file_name": f"{name}.png"} for n, name in enumerate(classes)
        ]
        kinds = [{"id": 0, "name": "x"}, {"id": 1, "name": "y"}]
        content = {"images": images, "annotations": boxed, "categories": kinds}
        (source / "all.json").write_text(json.dumps(content))
    (bad,) = source.rglob("b1.png")
    bad.write_bytes(bad.read_bytes()[:40])
    assert str(bad) in refused(
        source, "--skip_unreadable=True leaves such pictures out"
    )
    write_annotated(
        source,
        tmp_path / "set",
        skip_unreadable=True,
        test_fraction=0.5,
        size=8,
        report=lines.append,
    )
    assert f"left out: 1 picture(s) not to be read: {bad}" in lines


def test_a_damaged_annotation_is_refused(signs, tmp_path):
    path = signs / "annotations" / "road3.xml"
    whole = path.read_text()
    path.write_text(whole[:60])
    refused(signs, "road3.xml: not an XML file in UTF-8, or truncated")
    path.write_text(whole.replace("<xmin>8</xmin>", ""))
    refused(signs, "road3.xml: object 0 has no bndbox of four numbers")
    path.write_text(whole.replace("<name>", "<nom>").replace("</name>", "</nom>"))
    refused(signs, "road3.xml: object 0 has no name")
    path.write_text(whole.replace("annotation>", "annotations>"))
    refused(signs, "with <annotations>, where Pascal VOC has <annotation>")
    yolo(tmp_path / "yolo", "a", ["0 0.5 0.5 0.2"])
    refused(tmp_path / "yolo", "a.txt: row 0 must be a class number and x, y, width")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "signs").mkdir()
    refused(tmp_path / "signs", "no annotated pictures in it; it must hold pictures")
    picture(tmp_path / "signs" / "a.png", 8, 8)
    refused(tmp_path / "signs", "no annotated pictures in it")
    voc(tmp_path / "signs", "a", [])
    (tmp_path / "signs" / "a.png").unlink()
    refused(tmp_path / "signs", "no picture that can be read, with a class and")
    with pytest.raises(FileNotFoundError, match="--source: there is no folder"):
        write_annotated(tmp_path / "nowhere", tmp_path / "data")


def test_what_is_there_is_not_written_over(signs, tmp_path):
    written(signs)
    before = (tmp_path / "data" / "mine" / "train.npz").read_bytes()
    with pytest.raises(FileExistsError, match="mine is there already; move it away"):
        written(signs, size=16)
    assert (tmp_path / "data" / "mine" / "train.npz").read_bytes() == before
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]


def test_a_disk_that_fills_up_leaves_nothing(signs, monkeypatch):
    def full(path, **arrays):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        written(signs)
    assert not list((signs.parent / "data").iterdir())


def test_masks_beside_the_pictures_do_no_harm(signs):
    picture(signs / "masks" / "road3.png", 64, 32)
    picture(signs / "images" / "road3.bmp", 64, 32)
    dataset, said = written(signs)
    masks = signs / "images" / "road3.bmp"
    assert f"left out: 2 pictures ({masks}, …) without annotation or class" in said
    assert len(dataset.train["labels"]) + len(dataset.test["labels"]) == 12
