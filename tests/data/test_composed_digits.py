"""Digits put together and turned: targets are what can be seen, and nothing to test on is trained on."""

import numpy as np
import pytest

from vit_jax.data.section import Part
from vit_jax.data.sources.composed_digits import MOST_TEST, digit_sets, turned_digits
from vit_jax.data.sources.digits import open_digits
from vit_jax.data.sources.opening import open_source
from vit_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "field", "side"), [(digit_sets, "labels", 16), (turned_digits, "value", 16)]
)
def test_records_depend_on_their_index_alone(make, field, side):
    few, many, test = make("train", 20), make("train", 40), make("test", 2000)
    assert few.fields == ("image", field)
    assert (len(few), len(test)) == (20, MOST_TEST)
    one, other = (source.take(np.arange(20)) for source in (few, many))
    assert one["image"].shape == (20, side, side, 1)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    assert few.fingerprint() != many.fingerprint()
    assert not np.array_equal(test.take(np.arange(20))["image"], one["image"])
    section = Part(source={"labels": "digit_sets", "value": "turned_digits"}[field], size=20)
    assert open_source(section, "train").fingerprint() == few.fingerprint()
    with pytest.raises(ConfigError, match=r"data.size is 0"):
        make("train", 0)


def test_a_set_has_the_digits_that_are_in_its_image():
    source, digits = digit_sets("test", 50), open_digits("test")
    known = digits.take(np.arange(len(digits)))
    number = {image.tobytes(): label for image, label in zip(known["image"], known["label"])}
    records = source.take(np.arange(50))
    for image, labels in zip(records["image"], records["labels"]):
        quarters = (image[top : top + 8, left : left + 8] for top in (0, 8) for left in (0, 8))
        found = {number[quarter.tobytes()] for quarter in quarters if quarter.any()}
        assert found == set(np.flatnonzero(labels))
        assert 1 <= len(found) <= 4


def test_digits_are_turned_by_their_value():
    source = turned_digits("train", 400)
    records = source.take(np.arange(400))
    angles = records["value"][:, 0]
    assert angles.min() >= -60
    assert angles.max() <= 60
    assert abs(angles.std() - 120 / np.sqrt(12)) < 2
    # Of what is long, ones and sevens for example, the axis turns with it: anticlockwise is positive.
    y, x = np.mgrid[:16, :16][:, None] - 7.5
    weights = records["image"][..., 0].astype(float)
    moment = [(weights * value).sum((1, 2)) for value in (x * x, y * y, -x * y)]
    axis = 0.5 * np.arctan2(2 * moment[2], moment[0] - moment[1])
    upright = np.degrees(np.where(axis < 0, axis + np.pi, axis)) - 90
    long = np.hypot(moment[0] - moment[1], 2 * moment[2]) > 0.5 * (moment[0] + moment[1])
    assert long.sum() > 50
    assert np.median(np.abs(upright - angles)[long]) < 20
