"""Fields of records in arrays and in Python sequences."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.records import SEVERAL, pixels
from vit_jax.data.pipeline import eval_batches
from vit_jax.data.sources.arrays import open_npz
from vit_jax.data.sources.sequence import as_source
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import DataError

IMAGES = np.stack([pixels(number) for number in range(3)])
BOXES = np.array([[[0, 0, 2, 2], [1, 1, 3, 3]], [[2, 0, 6, 3], [0, 0, 0, 0]], [[0, 0, 1, 1], [2, 2, 4, 4]]])
CLASSES = np.array([[0, 2], [1, -1], [2, 2]])
MAPS = np.random.default_rng(0).integers(0, 4, (3, 4, 6)).astype(np.uint8)


def first(source, rows=3, spec=""):
    return next(eval_batches(source, parse(spec), rows, num_threads=0))


def saved(folder, **arrays):
    np.savez(folder / "train.npz", images=IMAGES, **arrays)
    return open_npz(str(folder), "train")


def test_a_file_of_arrays_may_have_further_fields(tmp_path):
    source = saved(tmp_path, segmentation=MAPS, depth=np.ones((3, 4, 6)))
    assert (source.fields, source.class_names) == (("image", "segmentation", "depth"), ("0", "1", "2", "3"))
    batch = first(source)
    np.testing.assert_array_equal(batch["segmentation"], MAPS)
    before = source.fingerprint()
    assert saved(tmp_path, segmentation=MAPS, depth=np.full((3, 4, 6), 2)).fingerprint() != before


def test_labels_go_with_further_fields(tmp_path):
    source = saved(tmp_path, labels=[0, 1, 2], segmentation=MAPS, class_names=["a", "b", "c", "d"])
    assert first(source, spec="flip_lr(1.0)")["label"].tolist() == [0, 1, 2]
    assert source.class_names == ("a", "b", "c", "d")


def test_rows_of_no_class_are_no_objects(tmp_path):
    source = saved(tmp_path, boxes=BOXES, classes=CLASSES)
    assert [len(source[index]["boxes"]) for index in range(3)] == [2, 1, 2]
    batch = first(source, spec="pad_objects(2)")
    np.testing.assert_array_equal(batch["boxes"], BOXES)
    np.testing.assert_array_equal(batch["classes"], CLASSES)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (dict(segmentation=MAPS[:2]), "has 2 segmentation for 3 images; give one per image"),
        (dict(segmentation=MAPS[:, :3]), "record 0 of .*train.npz has segmentation of 3x6, but an image of 4x6"),
        (dict(boxes=BOXES), r"record 1 of .*train.npz: box 1 is \[0.0, 0.0, 0.0, 0.0\]"),
        (dict(depth=-np.ones((3, 4, 6))), "record 0 of .*train.npz: depth has a negative or non-finite value"),
    ],
)  # fmt: skip
def test_arrays_are_checked_when_they_are_opened(tmp_path, arrays, said):
    with pytest.raises(DataError, match=said):
        saved(tmp_path, **arrays)


def test_a_sequence_may_have_dicts_of_any_fields(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(MAPS[0]).save(buffer, "PNG")
    (tmp_path / "map.png").write_bytes(buffer.getvalue())
    ways = (MAPS[0], buffer.getvalue(), str(tmp_path / "map.png"), Image.fromarray(MAPS[0]))
    records = [{"image": IMAGES[0], "segmentation": way, "value": 0.5} for way in ways]
    source = as_source(records)
    assert source.fields == ("image", "value", "segmentation")
    assert source.class_names == ("0", "1", "2", "3")
    batch = first(source, 4)
    for ids in batch["segmentation"]:
        np.testing.assert_array_equal(ids, MAPS[0])
    assert as_source(records, class_names=[*"wxyz"]).class_names == ("w", "x", "y", "z")


def test_every_kind_of_field_may_be_given():
    record = {name: value for name, value in SEVERAL.items() if name != "id"}
    batch = first(as_source([record] * 2, class_names=[*"abc"]), 2)
    assert batch.keys() >= record.keys()


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"image": IMAGES[0], "segmentation": MAPS[0], "bokses": 1}], "has 'bokses', which is not a field;.*'boxes'"),
        ([{"image": IMAGES[0], "segmentation": MAPS[0]}, {"image": IMAGES[0]}], "record 1 .* has no 'segmentation'"),
        ([{"image": IMAGES[0], "segmentation": "none.png"}], "record 0 of the images: none.png cannot be read"),
        ([{"image": IMAGES[0], "segmentation": b"x"}], "record 0 of the images: not an image of a known format"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_sequence_is_told(records, said):
    with pytest.raises(DataError, match=said):
        as_source(records)
