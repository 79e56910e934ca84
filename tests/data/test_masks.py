"""Folders of images and label maps: splits, tables of classes, and mistakes that name the record."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from vit_jax.data.fields.class_table import ClassTable, read_table, table_of
from vit_jax.data.sources.masks import MaskSource, mask_splits
from vit_jax.errors import DataError

MAP = np.array([[0, 1], [2, 255], [1, 1]], np.uint8)


def put(root, name, mask=MAP, image=".png", masks="masks", ending=".png", images="images"):
    """Write an image of 3 by 2 pixels and its mask."""
    for folder, file, content in (
        (images, name + image, np.zeros((3, 2, 3), np.uint8)),
        (masks, name + ending, mask),
    ):
        path = root / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg" if file.endswith(".jpg") else ".png", content)[1].tobytes())


@pytest.fixture
def root(tmp_path):
    for i in range(30):
        put(tmp_path, f"town/{i}")
    (tmp_path / "classes.txt").write_text("sky\nroad\ntree\n")
    return tmp_path


def test_pairs_by_stem_and_classes_by_table(root):
    source = MaskSource(root, "train")
    assert (source.class_names, source.fields) == (("sky", "road", "tree"), ("image", "segmentation"))
    record = source[0]
    assert isinstance(record["image"], bytes)
    np.testing.assert_array_equal(record["segmentation"], [[0, 1], [2, -1], [1, 1]])
    assert record["record"] == source.name_of(0) == str(root / "images" / "town" / "0.png")
    test = MaskSource(root, "test")
    assert {*source.files} | {*test.files} == {f"town/{i}.png" for i in range(30)}
    assert len(source) + len(test) == len(MaskSource(root, "all")) == 30
    assert len(test) >= 1
    prints = {
        MaskSource(root, split, table).fingerprint() for split in ("train", "test") for table in (None, "abc")
    }
    assert len(prints) == 4


@pytest.mark.parametrize("layout", ["inside", "around", "lists"])
def test_splits(tmp_path, layout):
    for split, names in (("training", "ab"), ("validation", "c")):
        for name in names:
            if layout == "around":
                put(tmp_path / split, name, masks="annotations")
            else:
                put(tmp_path, name if layout == "lists" else f"{split}/{name}", image=".jpg", masks="Labels")
        if layout == "lists":
            lists = tmp_path / "ImageSets" / "Segmentation"
            lists.mkdir(parents=True, exist_ok=True)
            short = {"training": "train", "validation": "val"}[split]
            (lists / f"{short}.txt").write_text(
                "\n".join(names if short == "val" else [f"{n}.jpg" for n in names]) + "\n"
            )
    counts = [len(MaskSource(tmp_path, split, ["x", "y", "z"])) for split in ("train", "val")]
    assert counts == [2, 1]
    with pytest.raises(DataError, match="test"):
        MaskSource(tmp_path, "test", ["x", "y", "z"]) if layout != "inside" else MaskSource(
            tmp_path / "x", "test"
        )


@pytest.mark.parametrize("layout", ["one", "inside", "around", "lists"])
def test_the_layout_is_recognised_with_its_splits(tmp_path, layout):
    names = {"inside": "{}/{}", "around": "{1}"}.get(layout, "{1}")
    for split in ("training", "Val"):
        for i in range(20):
            put(tmp_path / split if layout == "around" else tmp_path, names.format(split, f"{split}{i}"))
        if layout == "lists":
            (tmp_path / f"{split.lower()}.txt").write_text(f"{split}0\n")
    (tmp_path / "notes").mkdir()
    expected = {"one": ["train", "test"], "lists": ["training", "val"]}.get(layout, ["Val", "training"])
    assert mask_splits(tmp_path) == expected
    assert sum(len(MaskSource(tmp_path, split, "abc")) for split in expected) == (
        2 if layout == "lists" else 40
    )


def test_what_is_no_folder_of_masks_or_may_be_another_thing(tmp_path):
    classes = tmp_path / "classes"
    for name in ("train/labels", "train/masks", "images"):
        put(classes, "1", images=name, masks=name)
    assert mask_splits(classes) == []
    boxes = tmp_path / "boxes"  # as detectors have them
    put(boxes, "1", masks="other")
    (boxes / "labels").mkdir()
    (boxes / "labels" / "1.txt").write_text("0 0.5 0.5 1 1")
    assert mask_splits(boxes) == []
    both = tmp_path / "both"
    put(both / "train", "1")
    assert mask_splits(both) == ["train"]
    put(both / "train", "1", masks="cat")
    with pytest.raises(
        DataError, match=r"train has images and masks, and images in cat too, so .* --source masks"
    ):
        mask_splits(both)
    put(tmp_path / "apart", "1", image=".txt")
    put(tmp_path / "apart", "2", ending=".txt")
    with pytest.raises(
        DataError, match="has images and masks, but no image and mask of one name, so it may be"
    ):
        mask_splits(tmp_path / "apart")


def test_masks_without_an_image_are_counted(root):
    put(root, "town/99", image=".txt")
    assert MaskSource(root, "all").left_out == {"masks without an image": 1}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "town/a",
            dict(ending=".txt"),
            r"images/town/a\.png has no mask: .*masks/town/a\.png does not exist",
        ),
        (
            "town/1",
            dict(ending=".tif"),
            r"images/town/1\.png has two masks in .*masks, town/1\.png and town/1\.tif",
        ),
        (
            "town/1",
            dict(image=".jpg"),
            r"images has town/1\.jpg and town/1\.png, two images with the same name",
        ),
        (
            "town/a",
            dict(ending=".jpg"),
            r"masks/town/a\.jpg is a JPEG mask, and JPEG changes class ids",
        ),
    ],
)
def test_pairs_that_are_none(root, name, options, message):
    put(root, name, **options)
    with pytest.raises(DataError, match=message):
        MaskSource(root, "all")


def test_ids_outside_the_table_name_the_file_and_the_ids(root):
    put(root, "town/3", mask=np.full((3, 2), 3, np.uint8))
    source = MaskSource(root, "all")
    message = (
        r"masks/town/3\.png: ids 3 of the mask are not in .*classes\.txt, which has 0 to 2 and ignores 255; if 0 is "
        "not a class and ids run from 1 to 3, set reduce_zero"
    )
    with pytest.raises(DataError, match=message):
        source[source.files.index("town/3.png")]
    put(root, "town/3", mask=np.full((3, 2), 77, np.uint8))
    with pytest.raises(DataError, match=r"ids 77 .*; add them to its names, or to ignore"):
        source[source.files.index("town/3.png")]
    Image.fromarray(MAP).save(root / "masks" / "town" / "3.png", "JPEG")
    with pytest.raises(DataError, match=r"masks/town/3\.png: a label map cannot be JPEG"):
        source[source.files.index("town/3.png")]


@pytest.mark.parametrize(
    ("content", "names", "ids", "ignored"),
    [
        (["a", "b"], ("a", "b"), (0, 1), (255,)),
        ({"names": ["a", "b"], "reduce_zero": True}, ("a", "b"), (1, 2), (0, 255)),
        ({"names": {"7": "a", "26": "b"}, "ignore": [0, 255]}, ("a", "b"), (7, 26), (0, 255)),
        ({"names": ["a"], "ignore": None}, ("a",), (0,), ()),
        ({"names": {"255": "a"}}, ("a",), (255,), ()),
    ],
)
def test_tables(tmp_path, content, names, ids, ignored):
    (tmp_path / "classes.json").write_text(json.dumps(content))
    table = read_table(tmp_path / "classes.json")
    assert (table.names, table.ids, table.ignored) == (names, ids, ignored)
    every = np.array([[*ids, *ignored]], np.int32)
    np.testing.assert_array_equal(table.numbers(every)[0], [*range(len(ids)), *[-1] * len(ignored)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ('{"names": ["a"], "ignored": 0}', "has the key 'ignored'.* Did you mean 'ignore'"),
        ('{"names": ["a", "a"]}', "has the class 'a' twice"),
        ('{"names": {"0": "a", "1": "b"}, "ignore": 1}', "id 1 is both class 'b' and ignored"),
        ('{"names": {"0": "a"}, "reduce_zero": true}', "leave reduce_zero out"),
        ('{"names": {"-1": "a"}}', "names is"),
        ('{"names": ["a"], "ignore": 70000}', "has the id 70000"),
        ("[]", "has no class"),
    ],
)
def test_tables_that_say_nothing_or_too_much(tmp_path, content, message):
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "classes.json")


def test_what_is_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        MaskSource(tmp_path / "x", "train")
    put(tmp_path, "a")
    with pytest.raises(DataError, match=r"has no table of classes; write classes.txt"):
        MaskSource(tmp_path, "all")
    with pytest.raises(DataError, match="too few images to hold out any"):
        MaskSource(tmp_path, "test", ["x"])
    (tmp_path / "train.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: there is no image 'b'"):
        MaskSource(tmp_path, "train", ["x"])
    (tmp_path / "train.txt").write_text("a\na.png\n")
    with pytest.raises(DataError, match=r"lists 'a.png' in lines 1 and 2"):
        MaskSource(tmp_path, "train", ["x"])
    (tmp_path / "images" / "train").mkdir()
    with pytest.raises(DataError, match=r"has a folder of the split 'train', but .*masks has none"):
        MaskSource(tmp_path, "train", ["x"])
    (tmp_path / "masks").rename(tmp_path / "images" / "m")
    with pytest.raises(DataError, match="has images; it must have images and masks, or a folder 'train'"):
        MaskSource(tmp_path, "train", ["x"])
    assert ClassTable(("a",), (0,)) == table_of(["a"], "the classes")
