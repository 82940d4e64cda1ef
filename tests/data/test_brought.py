"""Folders as people bring them: their splits, names, encodings and left-overs."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dib_jax import data
from dib_jax.data.annotated import write_annotated

VOC = (
    "<annotation>{}<object><name>{}</name><bndbox><xmin>2</xmin><ymin>3</ymin>"
    "<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
)
NAMES = ("stop", "yield")


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def yolo(pictures, labels, count=4, *, first=0, form="{}.txt", ending="png"):
    labels.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(pictures / f"p{number}.{ending}", number)
        text = f"{number % 2} 0.5 0.5 0.4 0.4\n"
        (labels / form.format(f"p{number}")).write_text(text)


def voc(pictures, annotations, count=4, *, first=0):
    annotations.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(pictures / f"p{number}.png", number)
        text = VOC.format("", NAMES[number % 2])
        (annotations / f"p{number}.xml").write_text(text)


def classes(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names or NAMES))


def written(source, **options):
    """The set, how many samples its splits have, and what was said."""
    root, said = source.parent / "data", []
    options = {"size": 16} | options
    write_annotated(source, root / "mine", report=said.append, **options)
    dataset = data.load("mine", data_dir=str(root), val_fraction=0)
    assert [path.name for path in root.iterdir()] == ["mine"]
    files = {path.stem: path for path in (root / "mine").glob("*.npz")}
    counts = {name: len(np.load(path)["labels"]) for name, path in files.items()}
    return dataset, counts, "\n".join(said)


def refused(source, match, **options):
    root = source.parent / "data"
    with pytest.raises(ValueError, match=match) as error:
        write_annotated(source, root / "mine", report=print, **{"size": 16} | options)
    assert "\n" not in str(error.value)
    assert not list(root.rglob("*"))


SPLITS = {"train": 4, "validation": 2, "test": 3}


def by_images_and_labels(folder):
    for split, first in (("train", 0), ("val", 10), ("test", 20)):
        count = SPLITS["validation" if split == "val" else split]
        yolo(folder / "images" / split, folder / "labels" / split, count, first=first)


def by_capitals(folder):
    for split, first in (("Train", 0), ("VALID", 10), ("Test", 20)):
        count = SPLITS["validation" if split == "VALID" else split.lower()]
        yolo(folder / split / "Images", folder / split / "Labels", count, first=first)


def by_years_and_annotations_beside(folder):
    for split, first in (("train2017", 0), ("val2017", 10), ("test2017", 20)):
        count = SPLITS["validation" if split[0] == "v" else split[:-4]]
        voc(folder / split, folder / "annotations", count, first=first)


def by_links(folder):
    by_images_and_labels(folder)
    for split in ("train", "val", "test"):
        away = folder.parent / f"away-{split}"
        (folder / "images" / split).rename(away)
        (folder / "images" / split).symlink_to(away)


def by_lists(folder):
    voc(folder / "JPEGImages", folder / "Annotations", 9)
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("p0\np1\np2\np3\n")
    (lists / "val.txt").write_text("p4\np5")
    (lists / "trainval.txt").write_text("p0\np1\np2\np3\np4\np5\n")
    (lists / "test.txt").write_text("p6\r\np7\r\np8\r\n")
    (lists / "stop_train.txt").write_text("p0 1\np8 -1\n")
    (folder / "ImageSets" / "Layout").mkdir()
    (folder / "ImageSets" / "Layout" / "train.txt").write_text("p6\np7\n")


def by_lists_of_two_years(folder):
    for year, train, val, test in (("VOC2007", 2, 1, 2), ("VOC2012", 2, 1, 1)):
        place = folder / "VOCdevkit" / year
        voc(place / "JPEGImages", place / "Annotations", train + val + test)
        names = [f"p{number}" for number in range(train + val + test)]
        (place / "ImageSets" / "Main").mkdir(parents=True)
        for name, some in (
            ("train", names[:train]),
            ("val", names[train : train + val]),
            ("test", names[train + val :]),
        ):
            path = place / "ImageSets" / "Main" / f"{name}.txt"
            path.write_text("\n".join(some))


def by_data_yaml(folder):
    for name, count, first in (("a", 4, 0), ("b", 2, 10), ("c", 3, 20)):
        yolo(folder / name / "images", folder / name / "labels", count, first=first)
    (folder / "data.yaml").write_text(
        "train: ../a/images\nval: ../b/images\ntest: ../c/images\nnames: [stop, yield]"
    )


def by_data_yaml_and_lists(folder):
    yolo(folder / "obj", folder / "obj", 9)
    (folder / "one.txt").write_text("".join(f"./obj/p{n}.png\n" for n in range(4)))
    (folder / "two.txt").write_text("/elsewhere/obj/p4.png\n/elsewhere/obj/p5.png\n")
    (folder / "test.txt").write_text("obj/p6.png\nobj/p7.png\nobj/p8.png\n")
    (folder / "data.yaml").write_text(
        "path: .\ntrain: [one.txt]\nval: two.txt\nnames: {0: stop, 1: yield}"
    )


@pytest.mark.parametrize(
    "make",
    [by_images_and_labels, by_capitals, by_years_and_annotations_beside, by_links,
     by_lists, by_lists_of_two_years, by_data_yaml, by_data_yaml_and_lists],
)  # fmt: skip
def test_a_split_that_comes_with_a_folder_is_used(tmp_path, make):
    folder = tmp_path / "signs"
    make(folder)
    classes(folder)
    _, counts, said = written(folder)
    assert counts == SPLITS
    assert "held out" not in said
    assert "left out" not in said
    origins = {
        by_lists: "ImageSets/Main/test.txt, ImageSets/Main/train.txt, ",
        by_lists_of_two_years: "VOCdevkit/VOC2007/ImageSets/Main/test.txt, ",
        by_data_yaml: "data.yaml;",
        by_data_yaml_and_lists: "one.txt, two.txt, test.txt;",
    }
    assert f"splits from {origins.get(make, 'names of folders')}" in said


def test_test_pictures_without_annotations_are_not_replaced_by_a_part_of_train(
    tmp_path,
):
    folder = tmp_path / "signs"
    by_images_and_labels(folder)
    classes(folder)
    for path in (folder / "labels" / "test").iterdir():
        path.unlink()
    refused(folder, r"3 pictures \(.*p20.png, …\) of test and no annotation for any")


def test_a_split_without_pictures_is_said(tmp_path):
    folder = tmp_path / "signs"
    yolo(folder / "train", folder / "train")
    (folder / "test").mkdir()
    (folder / "data.yaml").write_text(
        "train: train\nval: ../valid/images\ntest: test\nnames: [stop, yield]"
    )
    _, counts, said = written(folder)
    assert counts == {"train": 3, "test": 1}
    assert "data.yaml: its val, ../valid/images, is not in this folder" in said
    assert f"{folder / 'test'}: no picture of test in it" in said
    assert "no test split in it: 0.2 of train is held out" in said


def test_pictures_outside_the_splits_are_refused_or_counted(tmp_path):
    folder = tmp_path / "signs"
    yolo(folder / "train", folder / "train")
    yolo(folder / "more", folder / "more", 2, first=10)
    classes(folder)
    refused(folder, r"2 pictures \(.*\) in no split, while others are in train")
    (folder / "train.txt").write_text("p0.png\np1.png\np2.png\np9.png\n")
    _, counts, said = written(folder)
    assert counts == {"train": 3, "test": 1}  # p3 lies in train
    assert "left out: 2 pictures" in said
    assert "train.txt: 1 name (p9.png) of no picture" in said


def test_the_folder_may_be_where_one_stands(tmp_path, monkeypatch):
    folder = tmp_path / "signs"
    by_data_yaml(folder)
    by_data_yaml(tmp_path)  # what lies above has nothing to do with it
    monkeypatch.chdir(folder)
    write_annotated(Path(), tmp_path / "data" / "mine", size=16, report=len)
    dataset = data.load("mine", data_dir=str(tmp_path / "data"), val_fraction=0)
    assert len(dataset.test["labels"]) == SPLITS["test"]
    assert dataset.description.startswith("pictures of signs, ")


def test_splits_that_contradict_one_another_are_refused(tmp_path):
    folder = tmp_path / "signs"
    yolo(folder / "train", folder / "test" / "labels")
    classes(folder)
    refused(folder, "no annotated pictures in it")
    lists = tmp_path / "lists"
    yolo(lists / "images", lists / "labels")
    classes(lists)
    (lists / "train.txt").write_text("p0\np1\np2")
    (lists / "test.txt").write_text("p2\np3")
    refused(lists, "puts .*p2.png into t.*, but it is in t.* too")
    yolo(tmp_path / "both" / "val" / "test", tmp_path / "both" / "val" / "test")
    classes(tmp_path / "both")
    refused(tmp_path / "both", "p0.png: in folders of test and of validation")
    yolo(tmp_path / "only" / "test", tmp_path / "only" / "test")
    classes(tmp_path / "only")
    refused(tmp_path / "only", "has pictures of test and none of train")


def test_a_link_that_leads_nowhere_is_refused(tmp_path):
    folder = tmp_path / "signs"
    by_images_and_labels(folder)
    classes(folder)
    (folder / "images" / "extra").symlink_to(tmp_path / "nowhere")
    refused(folder, "extra: this link leads nowhere")
    (folder / "images" / "extra").unlink()
    (folder / "images" / "extra").symlink_to(folder)  # read once, not for ever
    assert written(folder)[1] == SPLITS


def test_equal_names_in_different_folders_are_different_pictures(tmp_path):
    folder = tmp_path / "signs"
    for number, place in enumerate(("north", "south")):
        (folder / "labels" / place).mkdir(parents=True)
        for name in "abcd":
            picture(folder / "images" / place / f"{name}.png", ord(name) + 9 * number)
            label = folder / "labels" / place / f"{name}.txt"
            label.write_text(f"{number} 0.5 0.5 0.4 0.4\n")
    classes(folder)
    dataset, counts, said = written(folder)
    assert sum(counts.values()) == 8
    assert "left out" not in said
    labels = np.concatenate([dataset.train["labels"], dataset.test["labels"]])
    assert np.bincount(labels).tolist() == [4, 4]


def test_a_picture_with_two_annotations_is_refused(tmp_path):
    folder = tmp_path / "signs"
    yolo(folder, folder)
    classes(folder)
    (folder / "p1.png.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    refused(folder, "p1.png: has two annotations, .*p1.png.txt and .*p1.txt")
    (folder / "p1.png.txt").unlink()
    voc(folder, folder)
    refused(folder, "several forms, 4 of YOLO, e.g. .*p0.txt and 4 of Pascal VOC")
    for number in range(4):
        (folder / f"p{number}.xml").write_text("<meta/>" if number else "broken")
    dataset, _, said = written(folder)
    assert len(dataset.train["labels"]) == 3
    assert "left out: 4 other files (" in said
    assert "p0.xml: not an XML file in UTF-8" in said
    captions = tmp_path / "voc" / "signs"
    voc(captions, captions)
    (captions / "p1.txt").write_text("a stop sign in the rain")
    assert "p1.txt: row 0 must be a class number" in written(captions)[2]


def test_names_go_together_whatever_program_has_written_them(tmp_path):
    folder = tmp_path / "signs"
    yolo(folder, folder, 4)
    (folder / "p0.png").rename(folder / "P0.PNG")
    (folder / "p1.txt").rename(folder / "p1.png.txt")
    (folder / "p2.png").rename(folder / f"{unicodedata.normalize('NFD', 'é')}.png")
    (folder / "p2.txt").rename(folder / f"{unicodedata.normalize('NFC', 'é')}.txt")
    yolo(folder, folder, 1, first=5, ending="gif")
    yolo(folder, folder, 1, first=6, ending="jfif")
    classes(folder)
    _, counts, said = written(folder)
    assert sum(counts.values()) == 6
    assert "left out" not in said


def test_what_is_left_out_is_counted(tmp_path):
    folder = tmp_path / "signs"
    yolo(folder, folder, 8)
    classes(folder)
    for name in ("p1.txt", "p2.txt", "p3.png"):
        (folder / name).unlink()
    (folder / "notes.txt").write_text("drawn by hand\n")
    _, counts, said = written(folder)
    assert sum(counts.values()) == 5
    assert f"left out: 2 pictures ({folder / 'p1.png'}, …) without annotation" in said
    assert f"left out: 1 label file ({folder / 'p3.txt'}) without a picture" in said
    assert "notes" not in said
    signs = tmp_path / "voc" / "signs"
    voc(signs, signs, 5)
    (signs / "p3.png").unlink()
    assert "left out: 1 XML file (" in written(signs)[2]


def test_texts_with_a_byte_order_mark_are_read(tmp_path):
    folder = tmp_path / "signs"
    yolo(folder, folder)
    (folder / "classes.txt").write_text("stop\r\nyield\r\n", encoding="utf-8-sig")
    (folder / "p1.txt").write_text("1 0.5 0.5 0.4 0.4\r\n", encoding="utf-8-sig")
    assert written(folder)[0].class_names == NAMES


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.txt", "stop\nhalt für".encode("latin-1"), "not UTF-8 .byte 0xfc at "),
        ("p1.txt", "0 .5 .5 .4 .4".encode("utf-16"), "p1.txt: not UTF-8 .byte 0xff"),
        ("p1.txt", "0 .5 .5 .4 .4".encode("utf-16-le"), "p1.txt: not UTF-8 .a zero at"),
        ("data.yaml", "names: [停车]".encode("gb2312"), "data.yaml: not UTF-8"),
        ("data.yaml", b"names: " + b"[" * 5000, "data.yaml: not a YAML file"),
        ("data.yaml", b"a: &a [stop]\nnames: *a", "data.yaml: .*it has aliases"),
        ("data.yaml", b"names: {0: a, 1: b, 0: c}", "the key '0' stands in it twice"),
        ("data.yaml", b"names: " + b" " * 2**20, "data.yaml: larger than 1048576"),
    ],
)
def test_a_text_that_cannot_be_read_is_one_line(tmp_path, name, content, message):
    folder = tmp_path / "signs"
    yolo(folder, folder)
    classes(folder)
    (folder / name).write_bytes(content)
    refused(folder, message)


@pytest.mark.parametrize("encoding", ["gb2312", "foo-bar", "utf-8-bom", "utf-16"])
def test_an_xml_file_in_another_encoding_is_one_line(tmp_path, encoding):
    folder = tmp_path / "signs"
    voc(folder, folder)
    path = folder / "p1.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?>{path.read_text()}')
    refused(folder, "p1.xml: not an XML file in UTF-8, or truncated")


def test_what_a_mac_or_a_notebook_leaves_is_no_part_of_the_set(tmp_path):
    folder = tmp_path / "signs"
    yolo(folder, folder)
    classes(folder)
    for place in ("__MACOSX", ".ipynb_checkpoints", "."):
        (folder / place).mkdir(exist_ok=True)
        for ending in ("txt", "png", "xml"):
            (folder / place / f"._p1.{ending}").write_bytes(b"\0\5Mac OS X \xb0\xff")
    (folder / "__MACOSX" / "test").mkdir()
    _, counts, said = written(folder)
    assert sum(counts.values()) == 4
    assert "left out" not in said
    assert "MACOSX" not in said


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[020, 050]", ("020", "050")),
        ("[yes, no]", ("yes", "no")),
        ("[on, OFF]", ("on", "OFF")),
        ("[12:30, 1e3]", ("12:30", "1e3")),
        ("[0x10, 1_000]", ("0x10", "1_000")),
        ("[null, ~]", ("null", "~")),
        ("[2024-01-01, .5]", ("2024-01-01", ".5")),
        ("{0: 007, 1: 010}", ("007", "010")),
    ],
)
def test_names_of_classes_stay_what_was_written(tmp_path, text, names):
    folder = tmp_path / "signs"
    yolo(folder, folder)
    (folder / "data.yaml").write_text(f"nc: 2\nnames: {text}")
    assert written(folder)[0].class_names == names


def test_names_are_given_with_commas_between(tmp_path):
    folder = tmp_path / "signs"
    voc(folder, folder)
    dataset, _, _ = written(folder, classes="yield , stop")
    assert dataset.class_names == ("yield", "stop")


def test_class_files_that_disagree_are_refused(tmp_path):
    folder = tmp_path / "signs"
    yolo(folder / "train", folder / "train")
    yolo(folder / "test", folder / "test", first=10)
    classes(folder / "train")
    classes(folder / "test", "yield", "stop")
    refused(folder, "names the classes .'yield', 'stop'., and .*train.classes.txt")
    classes(folder / "test")
    (folder / "signs.yaml").write_text("names: [dog, cat]")
    refused(folder, "signs.yaml .*'dog', 'cat'")
    assert written(folder, classes="a,b")[0].class_names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "stop\n\nyield", "the name of class 1 is empty"),
        ("classes.txt", "stop\nyield\nstop\n", "the name of class 2 is 'stop' again"),
        ("classes.txt", "\n", "the name of class 0 is empty|names no class"),
        ("data.yaml", "nc: 3\nnames: [stop, yield]", "2 names, and nc says 3 classes"),
        ("data.yaml", "names: [stop, '']", "the name of class 1 is empty"),
    ],
)
def test_a_list_of_classes_with_a_gap_is_refused(tmp_path, name, text, message):
    folder = tmp_path / "signs"
    yolo(folder, folder)
    (folder / name).write_text(text)
    refused(folder, message)


def test_the_size_that_an_annotation_states_must_be_the_pictures(tmp_path):
    folder = tmp_path / "signs"
    voc(folder, folder)
    stated = "<size><width>{}</width><height>{}</height></size>"
    for number, size in enumerate([(12, 10), (0, 0)]):
        text = VOC.format(stated.format(*size), "stop")
        (folder / f"p{number}.xml").write_text(text)
    written(folder)
    (folder / "p2.xml").write_text(VOC.format(stated.format(24, 20), "stop"))
    other = tmp_path / "x" / "signs"
    other.parent.mkdir()
    folder.rename(other)
    refused(other, "p2.xml: states a picture of 24x20 pixels, and .*p2.png has 12x10")


def test_shares_where_pixels_are_due_are_refused(tmp_path):
    folder = tmp_path / "signs"
    voc(folder, folder)
    text = VOC.format("", "stop")
    for number in "2389":
        text = text.replace(f">{number}<", f">0.{number}<")
    (folder / "p1.xml").write_text(text)
    refused(folder, "p1.xml: all boxes lie in 0..1, as shares of the sides do")


def turned(path):
    """A picture of 12x10 pixels that is shown as 10x12, its sign at the top right."""
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[:5, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("stated", [None, (10, 12), (12, 10)])
def test_a_picture_stands_as_its_annotator_saw_it(tmp_path, stated):
    folder = tmp_path / "signs"
    voc(folder, folder)
    turned(folder / "p0.png")
    x1, y1, x2, y2 = (0, 0, 4, 5) if stated == (12, 10) else (5, 0, 10, 4)
    size = "<size><width>{}</width><height>{}</height></size>".format(*stated or (0, 0))
    text = VOC.format(size, "stop")
    for old, new in ((2, x1), (3, y1), (9, x2), (8, y2)):
        text = text.replace(f">{old}<", f">#{new}<", 1)
    (folder / "p0.xml").write_text(text.replace("#", ""))
    dataset, _, said = written(folder, size=12)
    for split in (dataset.train, dataset.test):
        for image, boxes in zip(split["images"], split["boxes"], strict=True):
            if set(np.unique(image)) == {0, 255}:
                ys, xs = np.nonzero(image[..., 0])
                found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                assert boxes.tolist() == [found]
    assert found == [x1, y1, x2, y2]
    assert ("1 picture(s) turned upright" in said) == (stated != (12, 10))


def shades(folder, names=NAMES, count=4):
    for place, name in enumerate(names):
        for number in range(count):
            picture(folder / name / f"{number}.png", 10 * place + number)


def test_folders_are_classes(tmp_path):
    folder = tmp_path / "signs"
    shades(folder, ("10", "9", "stop ü"))
    picture(folder / "9" / "session" / "0.png", 77)
    picture(folder / "cover.png", 5)
    (folder / "empty").mkdir()
    (folder / "9" / "x.heic").write_text("no picture that is known")
    dataset, counts, said = written(folder)
    assert dataset.class_names == ("10", "9", "stop ü")
    assert sum(counts.values()) == 13
    assert set(dataset.train) == {"images", "labels", "groups"}
    assert dataset.train["images"][:, -1].any()  # to the edge: not padded
    assert "13 pictures read as classes by folder" in said
    assert "cover.png) without annotation or class" in said
    assert f"{folder / 'empty'}: no picture in it, so no class" in said
    assert "x.heic) of no known picture format" in said
    assert "1 pictures in folders within a class's are taken as of the class" in said


def test_classes_are_the_same_whoever_wrote_their_names(tmp_path):
    folder = tmp_path / "signs"
    shades(folder / "train", (unicodedata.normalize("NFD", "é"), "Stop"))
    shades(folder / "test", (unicodedata.normalize("NFC", "é"), "stop"))
    dataset, _, said = written(folder)
    assert dataset.class_names == ("Stop", "stop", "é")
    assert "classes that differ in capitals alone: Stop, stop" in said
    assert "train lacks 1 class (stop)" in said


def test_names_of_classes_stand_on_one_line(tmp_path):
    folder = tmp_path / "signs"
    shades(folder, ("a ", "stop\n sign"))
    assert written(folder)[0].class_names == ("a", "stop sign")


@pytest.mark.parametrize("void", ["255", "-1", "nan"])
@pytest.mark.parametrize("form", ["folders", "table"])
def test_a_class_that_often_means_none_is_refused_unless_it_is_given(
    tmp_path, form, void
):
    folder, labels = tmp_path / "signs", ["0", "1", void]
    rows = []
    for number in range(9):
        label = labels[number % 3]
        place = folder / label if form == "folders" else folder
        picture(place / f"p{number}.png", number)
        rows.append(f"p{number}.png,{label}")
    if form == "table":
        table(folder / "labels.csv", "name,label", rows)
    refused(folder, f"3 picture.s. of a class '{void}', which often means none; move")
    assert written(folder, classes=labels)[0].class_names == ("0", "1", void)


@pytest.mark.parametrize("around", ["", "set/images"])
def test_folders_of_splits_hold_folders_of_classes(tmp_path, around):
    folder = tmp_path / "signs"
    for split, names in (("train", ("2", "10")), ("val", ("2",)), ("test", ("10",))):
        shades(folder / around / split, names)
    picture(folder / around / "cover.png", 5)
    dataset, counts, said = written(folder, test_fraction=0.5)
    assert "--test_fraction is not used, for there is a test split" in said
    assert dataset.class_names == ("2", "10")
    assert counts == {"train": 8, "validation": 4, "test": 4}
    assert set(dataset.test["labels"]) == {1}


@pytest.mark.parametrize("fraction", [-1, 0, 0.001, 1, float("nan")])
def test_a_part_that_holds_nothing_out_is_refused_by_its_own_name(tmp_path, fraction):
    folder = tmp_path / "signs"
    shades(folder)
    refused(folder, "--test_fraction: got .* none of 8", test_fraction=fraction)


def test_small_pictures_are_not_enlarged_if_nothing_is_said(tmp_path):
    folder = tmp_path / "signs"
    shades(folder)
    assert written(folder, size=None)[0].train["images"].shape == (6, 12, 12, 3)


def test_folders_that_are_no_classes_are_refused(tmp_path):
    folder = tmp_path / "signs"
    shades(folder, ("images", "masks"))
    refused(folder, "the folder images does not look like a class")
    shades(tmp_path / "one", ("images",))
    refused(tmp_path / "one", "no annotated pictures in it")


def table(path, head, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *rows]), encoding="utf-8-sig")


def test_a_table_of_names_and_labels_is_read(tmp_path):
    folder = tmp_path / "signs"
    for number in range(8):
        picture(folder / "photos" / f"p{number}.png", number)
    rows = [f"p{n}.png;{(10, 9)[n % 2]}" for n in range(6)]
    table(folder / "labels.csv", "file;what", [*rows, "p99.png;3"])
    dataset, counts, said = written(folder)
    assert dataset.class_names == ("9", "10")
    assert sum(counts.values()) == 6
    assert "6 pictures read as a table" in said
    assert "left out: 2 pictures" in said
    assert "left out: 1 row (p99.png) without a picture" in said


def test_a_table_may_name_splits_and_boxes(tmp_path):
    folder = tmp_path / "signs"
    for number in range(6):
        picture(folder / f"p{number}.png", number)
    head = "filename,width,height,class,xmin,ymin,xmax,ymax,split"
    rows = [f"p{n}.png,12,10,{NAMES[n % 2]},1,2,8,9,{'train' if n < 4 else 'Test'}"
            for n in range(6)]  # fmt: skip
    table(
        folder / "train_and_test.csv", head, [*rows, "p0.png,12,10,yield,0,0,3,3,train"]
    )
    dataset, counts, _ = written(folder, size=12)
    assert counts == {"train": 4, "test": 2}
    assert dataset.train["boxes"][0].tolist() == [[1, 2, 8, 9], [0, 0, 3, 3]]
    assert dataset.train["box_labels"].tolist()[0] == [0, 1]


@pytest.mark.parametrize("heading", ["label,file", "", "set,label,file"])
def test_a_table_may_have_numbers_for_names_and_labels(tmp_path, heading):
    folder = tmp_path / "signs"
    for number in range(4):
        picture(folder / f"{number}.png", number)
    rows = [f"{n % 2},{n}.png" for n in range(4)]
    if heading.startswith("set"):
        rows = [f"train,{n % 2},{n}" for n in range(4)]
    table(folder / "labels.csv", heading or rows[0], rows if heading else rows[1:])
    dataset, counts, said = written(folder)
    assert counts == {"train": 3, "test": 1}
    assert dataset.class_names == ("0", "1")
    assert "left out" not in said


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ("name,label", ["p0.png,a", "p0.png,b"], "p0.png is 'b' here and 'a' above"),
        ("name,label", ["p0.png,a", "p1.png,"], "row 1: p1.png has no label"),
        ("name,label", ["p0.png,a", "p1.png"], "row 1: has 1 cells of 2"),
        ("name,a,b", ["p0.png,1,0"], "no annotated pictures .* no one column is named"),
        ("name,label,split", ["p0.png,a,7"], "row 0: split is '7', which is no split"),
        (
            "name,label,split",
            ["p0.png,a,train", "p0.png,a,test"],
            "row 1: the split of p0.png is 'test' here and 'train' above",
        ),
    ],
)
def test_a_table_that_is_not_clear_is_refused(tmp_path, head, rows, message):
    folder = tmp_path / "signs"
    for number in range(2):
        picture(folder / f"p{number}.png", number)
    table(folder / "labels.csv", head, rows)
    refused(folder, message)


def coco(path, numbers, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [
            {"id": n, "file_name": f"p{n}.png", "width": 12, "height": 10}
            for n in numbers
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 3 + n % 2, "bbox": [1, 2, 6, 7]}
            for n in numbers
        ],
        "categories": [{"id": 4, "name": "yield"}, {"id": 3, "name": "stop"}],
    }
    path.write_text(json.dumps(content | changes))


@pytest.mark.parametrize("beside", [True, False])
def test_coco_files_are_read(tmp_path, beside):
    folder = tmp_path / "signs"
    for split, numbers in (("train", range(4)), ("val", range(2)), ("test", range(3))):
        for number in numbers:  # the same names in every split
            picture(folder / split / f"p{number}.png", ord(split[1]) + number)
        path = folder / "annotations" / f"instances_{split}2017.json"
        kinds = [(4, "yield"), (3, "stop"), (0, "signs")]
        content = {"categories": [{"id": n, "name": name} for n, name in kinds]}
        path = folder / split / "_annotations.coco.json" if beside else path
        coco(path, numbers, **content)
    dataset, counts, said = written(folder, size=12)
    assert counts == SPLITS
    assert dataset.class_names == NAMES
    assert dataset.train["boxes"][0].tolist() == [[1, 2, 7, 9]]
    assert "9 pictures read as COCO" in said
    assert "categories without a box, which are no classes: signs" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 3, "name": "x"}]}, "not as .* of category 4, and the"),
        ({"categories": [{"id": 3, "name": "x"}, {"id": 4, "name": "x"}]}, "one name"),
        ({"images": [{"id": 0}]}, "not as COCO has it"),
        ({"annotations": [{"image_id": 0, "category_id": 3, "bbox": []}]}, "not as CO"),
        ({"images": [{"id": n, "file_name": "p0.png"} for n in (0, 1)]}, "two annot"),
        ({"images": [{"id": 0, "file_name": f"p{n}.png"} for n in (0, 1)]}, "have the"),
        ({"categories": [{"id": 3, "name": x} for x in NAMES]}, "2 categories have"),
        ({"images": 7}, "not as COCO has it"),
        ({"images": []}, "no annotation is of an id in images; the last: 1"),
    ],
)
def test_a_coco_file_that_is_not_one_is_refused(tmp_path, changes, message):
    folder = tmp_path / "signs"
    for number in range(2):
        picture(folder / f"p{number}.png", number)
    coco(folder / "signs.json", range(2), **changes)
    refused(folder, message)


def test_boxes_of_pictures_that_a_coco_file_does_not_list_are_counted(tmp_path):
    folder = tmp_path / "signs"
    for number in range(4):
        picture(folder / f"p{number}.png", number)
    box = {"category_id": 3, "bbox": [1, 2, 6, 7]}
    boxes = [{**box, "image_id": n, "category_id": 3 + n % 2} for n in (0, 1, 2, 3)]
    lost = [{**box, "image_id": "0"}, {**box, "image_id": 9}]
    coco(folder / "signs.json", range(4), annotations=boxes + lost)
    *_, said = written(folder, test_fraction=0.5)
    assert "left out: 2 box(es) of pictures that it does not list" in said
