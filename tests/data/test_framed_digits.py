"""Digits in frames of any aspect ratio: the same for an index, and nothing to test on is trained on."""

import numpy as np
import pytest

from vit_jax.data.section import Part
from vit_jax.data.sources.composed_digits import FramedDigits
from vit_jax.data.sources.digits import open_digits
from vit_jax.data.sources.opening import open_source
from vit_jax.errors import ConfigError


def test_images_have_all_aspect_ratios_and_depend_on_their_index_alone():
    few, many = FramedDigits("train", 20), FramedDigits("train", 400)
    assert few.fingerprint() != many.fingerprint()
    assert open_source(Part(source="framed_digits", size=20), "train").fingerprint() == few.fingerprint()
    records = [many[i] for i in range(400)]
    for one, other in zip((few[i] for i in range(20)), records):
        assert one["label"] == other["label"]
        np.testing.assert_array_equal(one["image"], other["image"])
    assert [record["label"] for record in records] == many.labels.tolist()
    sides = np.array([record["image"].shape[:2] for record in records])
    assert sides.min() == 16
    assert 80 < sides.max() <= 96
    ratios = np.log(sides[:, 1] / sides[:, 0]) / np.log(4)
    assert abs(np.mean(ratios)) < 0.1
    assert abs(np.std(ratios) - 1 / np.sqrt(3)) < 0.05  # uniform from -1 to 1
    assert np.bincount(many.labels).min() > 20
    assert set(few[3]) == {"image", "label", "record"}


def test_what_is_tested_on_is_not_trained_on():
    train, test = FramedDigits("train", 8), FramedDigits("test", 8)
    assert len(train._digits) == len(open_digits("train"))
    assert len(test._digits) == len(open_digits("test"))
    assert not {image.tobytes() for image in train._digits} & {image.tobytes() for image in test._digits}
    assert [photograph.shape[1] for photograph in test._photographs] == [192, 192]
    with pytest.raises(ConfigError, match=r"data.size is 0; it must be at least 1"):
        FramedDigits("train", 0)
    with pytest.raises(ConfigError, match="the split of the framed digits is 'val'"):
        FramedDigits("val", 1)
