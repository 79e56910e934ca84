"""Label maps in an image's own size, their files, and how much each class covers."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.images.label_maps import decode_labels
from vit_jax.data.images.overlays import colours
from vit_jax.objectives.outputs.base import NOT_FINITE, output_from_json
from vit_jax.objectives.outputs.segmentation import Segmentation, painted

OUTPUT = Segmentation(("sky", "road", "tree"), (8, 12))


def logits_of(labels):
    return 4 * np.eye(3, dtype=np.float32)[labels]


HALVES = np.repeat([[0, 0, 1, 1]], 2, axis=0)  # of 2 by 4 places


def test_logits_are_interpolated_to_the_size_of_the_image():
    labels = OUTPUT.label_map({"logits": logits_of(HALVES)}, (16, 24), None)
    assert labels.shape == (16, 24)
    np.testing.assert_array_equal(labels, np.repeat([[0] * 12 + [1] * 12], 16, axis=0))
    # An edge lies between the two centres where the logits are equal, and not where a place ends.
    tilted = logits_of(HALVES)
    tilted[:, 2, 1] = 13
    edge = (OUTPUT.label_map({"logits": tilted}, (16, 24), None)[0] == 0).sum()
    assert edge == 10  # centres at 9 and 15: 4 (1 - t) = 13 t, so at 10.4


def test_geometry_is_inverted_and_what_was_not_seen_has_no_class():
    # The model saw the 8 by 12 pixels in the middle of 16 by 24.
    geometry = np.float32([[1, 0, -6], [0, 1, -4]])
    labels = OUTPUT.label_map({"logits": logits_of(HALVES)}, (16, 24), geometry)
    seen = labels >= 0
    assert seen[4:12, 6:18].all()
    assert seen.sum() == 8 * 12
    np.testing.assert_array_equal(labels[4:12, 6:18], np.repeat([[0] * 6 + [1] * 6], 8, axis=0))
    flipped = np.float32([[-0.5, 0, 12], [0, 0.5, 0]])
    labels = OUTPUT.label_map({"logits": logits_of(HALVES)}, (16, 24), flipped)
    np.testing.assert_array_equal(labels, np.repeat([[1] * 12 + [0] * 12], 16, axis=0))
    record = OUTPUT.record({"logits": logits_of(HALVES)}, (16, 24), geometry)
    assert record == {"classes": ["sky", "road"], "shares": [0.125, 0.125]}


def test_records_are_plain_values_and_come_back():
    found = OUTPUT.predicted("a.png", {"logits": logits_of(np.int64([[1, 1, 1, 2]]))})
    assert found.record == {"classes": ["road", "tree"], "shares": [0.75, 0.25]}
    assert found.record.keys() == OUTPUT.columns.keys()
    assert OUTPUT.text(found.record) == "road 75.0%   tree 25.0%"
    assert json.loads(json.dumps(OUTPUT.line(found.record))) == {"segmentation": {"road": 0.75, "tree": 0.25}}
    assert output_from_json(json.loads(json.dumps(OUTPUT.to_json()))) == OUTPUT
    broken = OUTPUT.predicted("a.png", {"logits": np.full((2, 4, 3), np.nan, np.float32)})
    assert (broken.record, broken.error) == ({}, NOT_FINITE)


def test_evaluated_images():
    row = {"labelled": np.int32([6, 2, 0]), "predicted": np.int32([5, 3, 0]), "hits": np.int32([5, 2, 0])}
    found = OUTPUT.evaluated(row)
    assert found.keys() == OUTPUT.evaluated_columns.keys()
    assert found["pixel_accuracy"] == 7 / 8
    assert found["miou"] == pytest.approx((5 / 6 + 2 / 3) / 2)
    assert found["shares"] == [5 / 8, 3 / 8]
    empty = OUTPUT.evaluated({name: np.zeros(3, np.int32) for name in row})
    assert (empty["pixel_accuracy"], empty["miou"], empty["classes"]) == (None, None, [])


def test_files_are_an_indexed_png_and_an_overlay():
    image = np.full((16, 24, 3), 100, np.uint8)
    geometry = np.float32([[1, 0, -6], [0, 1, -4]])
    files = OUTPUT.files({"logits": logits_of(HALVES)}, "street", image, geometry)
    assert files.keys() == {"street.png", "street_overlay.png"}
    picture = Image.open(io.BytesIO(files["street.png"]))
    assert (picture.mode, picture.size) == ("P", (24, 16))
    indices = np.asarray(picture)
    assert [*np.unique(indices)] == [0, 1, 255]
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB"))[5, 7], colours(3)[0])
    laid = np.asarray(Image.open(io.BytesIO(files["street_overlay.png"])))
    np.testing.assert_array_equal(laid[0, 0], [100, 100, 100])
    assert (laid[5, 7] != laid[5, 17]).any()
    np.testing.assert_array_equal(
        OUTPUT.draw(image[:8, :12], {"logits": logits_of(HALVES)})[0, 0], laid[5, 7]
    )


def test_more_classes_than_a_palette_has():
    output = Segmentation(tuple(map(str, range(300))), (8, 12))
    logits = np.zeros((1, 2, 300), np.float32)
    logits[0, 0, 256] = logits[0, 1, 3] = 1
    geometry = np.float32([[1, 0, 0], [0, 1, 0]])
    files = output.files({"logits": logits}, "a", np.zeros((8, 13, 3), np.uint8), geometry)
    assert [*np.unique(decode_labels(files["a.png"]))] == [3, 256, 65535]
    np.testing.assert_array_equal(painted(np.int32([[1, -1]]))[0], [colours(2)[1], [0, 0, 0]])
