"""Records of any fields: checked by kind, carried through every index map, in batches with and without a label."""

import numpy as np
import pytest

from tests.data.records import SEVERAL, Records, pixels
from vit_jax.data.base import Selection, balanced
from vit_jax.data.cache import Cached
from vit_jax.data.classes import Relabelled
from vit_jax.data.fields.table import KINDS, read_fields
from vit_jax.data.mixture import Mixture
from vit_jax.data.pipeline import eval_batches, train_batches
from vit_jax.data.split import Sum
from vit_jax.errors import ConfigError, DataError


def batch_of(source, rows=2):
    batches = eval_batches(source, [], rows, num_threads=0)
    return next(batches)


def test_a_batch_has_every_field_in_the_type_of_its_kind():
    batch = batch_of(Records([SEVERAL] * 3))
    expected = {name: KINDS[name].dtype for name in SEVERAL if name != "image"}
    assert {name: str(batch[name].dtype) for name in expected} == expected
    assert batch.keys() - SEVERAL.keys() == {"id", "size", "geometry", "mask"}
    assert batch["id"].tolist() == [0, 1]
    assert batch["size"].tolist() == [[4, 6]] * 2
    assert batch["geometry"].tolist() == [[[1, 0, 0], [0, 1, 0]]] * 2
    assert (str(batch["geometry"].dtype), str(batch["id"].dtype)) == ("float32", "int32")
    assert np.array_equal(batch["segmentation"][0], SEVERAL["segmentation"])
    assert batch["boxes"].shape == (2, 2, 4)
    assert np.array_equal(np.isnan(batch["labels"][1]), [False, False, True])


def test_records_may_be_images_alone():
    source = Records([{"image": pixels(number)} for number in range(5)], classes=())
    batches = train_batches(source, [], 4, seed=0, num_threads=0)
    assert set(next(batches)) == {"image"}
    (first, second) = eval_batches(source, [], 4, num_threads=0)
    assert set(first) == {"image", "mask"}
    assert second["mask"].tolist() == [True, False, False, False]
    assert source.fingerprint() != Records([{"image": pixels(7)}] * 5, classes=()).fingerprint()


def wrong(name, value):
    record = {**SEVERAL, name: value}
    with pytest.raises(DataError) as caught:
        batch_of(Records([SEVERAL, record]))
    said = str(caught.value)
    assert said.startswith("row 1")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("labels", [1, 0], "labels is int64 of shape (2,); it must be numbers (3,), one for each class"),
        ("labels", [1, 2, 0], "labels has the value 2; it must be 0, 1, or NaN"),
        ("value", np.nan, "value is nan; give a number"),
        ("value", "high", "it must be numbers (k,)"),
        ("segmentation", np.full((4, 6), 3), "segmentation has class 3; classes must be from 0 to 2"),
        ("segmentation", np.full((4, 6), -2), "segmentation has class -2"),
        ("segmentation", np.zeros((4, 6)), "it must be whole numbers (h, w)"),
        ("segmentation", np.zeros((4, 5), int), "has segmentation of 4x5, but an image of 4x6"),
        ("segmentation", np.zeros((6, 4), int), "rotated by its EXIF orientation"),
        ("depth", np.zeros((2, 3)), "has depth of 2x3, but an image of 4x6; both must have the same size"),
        ("depth", np.full((4, 6), np.inf), "depth has a negative or non-finite value"),
        ("masks", np.full((2, 4, 6), 2), "they must be 0 or 1"),
        ("masks", np.zeros((1, 4, 6), int), "has 1 masks, 2 boxes, 2 classes, 2 crowd; each object needs"),
        ("boxes", [[0, 0, 2, 2], [1, 1, 1, 4]], "box 1 is [1.0, 1.0, 1.0, 4.0]"),
        ("boxes", [[0, 0, 2, 2], [1, 1, np.nan, 4]], "box 1 is"),
        ("boxes", [[0, 0, 2, 2], [1, 1, 7.5, 4]], "has box 1 [1.0, 1.0, 7.5, 4.0], which is outside its image of 4x6"),
        ("boxes", [[6, 0, 6.5, 2], [1, 1, 3, 4]], "has box 0 [6.0, 0.0, 6.5, 2.0], which is outside its image"),
        ("boxes", [[0, 0, 2], [1, 1, 2]], "(g, 4), left, top, right and bottom"),
        ("boxes", [[0, 0, 2, 2], [1, 1]], "boxes is not an array"),
        ("classes", [0, 3], "classes has class 3"),
        ("points", [1.0, 2.0], "x and y in pixels"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_field_is_told_with_the_record(name, value, said):
    assert said in wrong(name, value)


def test_a_field_that_is_promised_must_be_there():
    source = Records([SEVERAL, {name: value for name, value in SEVERAL.items() if name != "boxes"}])
    with pytest.raises(DataError, match=r"row 1 has no boxes, but its source has the fields image, labels"):
        batch_of(source)


def test_a_field_must_be_known():
    with pytest.raises(
        ConfigError, match=r"a source has the field 'bokses'; fields are .*Did you mean 'boxes'"
    ):
        eval_batches(Records([{"image": pixels(), "bokses": 1}]), [], 1)


def test_as_many_objects_must_be_in_every_record():
    fewer = {**SEVERAL, "masks": SEVERAL["masks"][:1], "boxes": [[0, 0, 2, 2]], "classes": [1], "crowd": [0]}
    with pytest.raises(DataError, match=r"row 1 has masks of shape \(1, 4, 6\).*pad_objects"):
        batch_of(Records([SEVERAL, fewer]))


def test_no_objects_are_objects_too():
    none = {"image": pixels(), "boxes": [], "classes": []}
    record = read_fields(Records([none])[0], Records([none]))
    assert (record["boxes"].shape, record["classes"].shape) == ((0, 4), (0,))


def test_index_maps_carry_every_field():
    source = Records([SEVERAL, {**SEVERAL, "value": 3.0}])
    for mapped in (
        Selection(source, [1]),
        Mixture([Selection(source, [1])], [1.0]),
        Sum([Selection(source, [1]), source], "train"),
        Cached(Selection(source, [1])),
        Relabelled(Selection(source, [1]), np.arange(3), source.class_names),
    ):
        assert mapped.fields == source.fields
        batch = batch_of(mapped, 1)
        assert batch["value"].tolist() == [[3.0]]
        assert np.array_equal(batch["segmentation"][0], SEVERAL["segmentation"])


def test_classes_of_other_numbers_are_so_in_every_field():
    source = Records([SEVERAL])
    batch = batch_of(Relabelled(source, np.array([3, 0, 1]), ("b", "c", "d", "a")), 1)
    assert batch["segmentation"][0, 0].tolist() == [3, 0, 1, -1, 3, 0]
    assert batch["classes"][0].tolist() == [1, 3]
    assert np.array_equal(batch["labels"][0], [0, np.nan, np.nan, 1], equal_nan=True)
    mixed = Mixture([Records([SEVERAL], "xyz"), source], [1.0, 1.0])
    assert batch_of(Selection(mixed, [1]), 1)["classes"][0].tolist() == [5, 3]


def test_sources_of_other_fields_do_not_mix():
    other = Records([{"image": pixels(), "label": 0}])
    with pytest.raises(
        DataError, match=r"source 1 of a mixture has the fields image, label but the first has"
    ):
        Mixture([Records([SEVERAL]), other], [1.0, 1.0])
    with pytest.raises(DataError, match="only some parts of split 'a' have the field"):
        Sum([Records([SEVERAL]), other], "a")


def test_classes_are_balanced_only_where_there_is_a_label():
    with pytest.raises(DataError, match=r"data.balanced needs records with a label, but these have image"):
        balanced(Records([SEVERAL]))


def test_a_cache_counts_the_bytes_of_every_field():
    kept = Cached(Records([SEVERAL]))
    record = kept[0]
    assert kept._bytes == sum(value.nbytes for name, value in record.items() if name != "record")
    assert kept._bytes > 2 * SEVERAL["image"].nbytes
