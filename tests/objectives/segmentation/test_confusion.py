"""Metrics of segmentation against closed forms, and that counts can be added up."""

import jax
import numpy as np
import pytest

from tests.reference.cases import load_case
from vit_jax.evaluation.metrics.segmentation import class_ious, counts, summary
from vit_jax.objectives.segmentation.confusion import confusion


def test_metrics_are_those_of_the_reference():
    about, arrays, _ = load_case("metric_segmentation")
    classes, ignored = about["config"]["classes"], about["config"]["ignore"]
    labels = np.where(arrays["in.labels"] == ignored, -1, arrays["in.labels"]).astype(np.int32)
    found = jax.jit(confusion, static_argnums=2)(labels, arrays["in.pred"].astype(np.int32), classes)
    matrix = counts(np.asarray(found))
    np.testing.assert_array_equal(matrix, arrays["out.confusion"])
    np.testing.assert_array_equal(class_ious(matrix).astype(np.float32), arrays["out.iou"])
    summed = summary(matrix)
    assert summed.keys() == {"miou", "pixel_accuracy", "mean_accuracy"}
    for name, value in summed.items():
        assert np.float32(value) == arrays[f"out.{name}"]
    assert abs(summed["miou"] - float(arrays["out.miou_per_image_mean_WRONG"])) > 0.01


def test_counts_of_more_pixels_than_int32_holds_add_up():
    one = np.array(confusion(np.zeros((1, 512, 512), np.int32), np.zeros((1, 512, 512), np.int32), 2))
    assert counts(one)[0, 0] == 2**18
    total = sum(one.copy() for _ in range(2**14))
    assert total.dtype == np.int32
    assert counts(total)[0, 0] == 2**32


def test_absent_classes_are_left_out_and_nothing_known_is_no_number():
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(class_ious(matrix), [3 / 4, 4 / 5, np.nan])
    assert summary(matrix)["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert summary(matrix)["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert all(np.isnan(value) for value in summary(np.zeros((3, 3), int)).values())
