"""Losses against timm's, their relations and their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.cases import load_case
from vit_jax.objectives.losses import (
    sigmoid_cross_entropy,
    smooth_one_hot,
    softmax_cross_entropy,
    thresholded_bce,
)


@pytest.fixture(scope="module")
def arrays():
    return {name: jnp.asarray(value) for name, value in load_case("aux_losses")[1].items()}


def close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours, np.float64), np.asarray(theirs, np.float64), rtol=5e-7)


def test_softmax_losses_are_timms(arrays):
    logits = arrays["in.logits"]
    smoothed = smooth_one_hot(arrays["in.labels"], 9, 0.1)
    close(softmax_cross_entropy(logits, smoothed).mean(), arrays["out.ls"])
    close(softmax_cross_entropy(logits, arrays["in.soft"]).mean(), arrays["out.soft"])


def test_binary_losses_are_timms(arrays):
    logits = arrays["in.logits"]
    # timm's smoothing of binary targets: off value s/c, on value 1 - s + s/c.
    smoothed = smooth_one_hot(arrays["in.labels"], 9, 0.1)
    close(thresholded_bce(logits, smoothed, None).mean(), arrays["out.bce"])
    close(thresholded_bce(logits, arrays["in.soft"], 0.2).mean(), arrays["out.bce_thresh"])


def test_gradients_are_probabilities_minus_targets(arrays):
    logits, soft = arrays["in.logits"], arrays["in.soft"]
    softmax = jax.grad(lambda x: softmax_cross_entropy(x, soft).sum())(logits)
    np.testing.assert_allclose(softmax, jax.nn.softmax(logits) - soft, atol=1e-6)
    sigmoid = jax.grad(lambda x: sigmoid_cross_entropy(x, soft).sum())(logits)
    np.testing.assert_allclose(sigmoid, jax.nn.sigmoid(logits) - soft, atol=1e-6)


def test_the_sigmoid_loss_is_classes_times_the_mean_binary_loss(arrays):
    logits, soft = arrays["in.logits"], arrays["in.soft"]
    losses = sigmoid_cross_entropy(logits, soft)
    assert losses.shape == (6,)
    np.testing.assert_allclose(losses, 9 * thresholded_bce(logits, soft, None), rtol=1e-6)


def test_threshold_counts_targets_strictly_above_it_as_one():
    logits = jnp.asarray([[1.0, -2.0, 0.5]])
    targets = jnp.asarray([[0.7, 0.3, 0.0]])
    for threshold, hard in ((0.0, [1.0, 1.0, 0.0]), (0.3, [1.0, 0.0, 0.0]), (0.7, [0.0, 0.0, 0.0])):
        expected = thresholded_bce(logits, jnp.asarray([hard]), None)
        np.testing.assert_array_equal(thresholded_bce(logits, targets, threshold), expected)


def test_known_values():
    zeros, targets = jnp.zeros((2, 10)), smooth_one_hot(jnp.asarray([3, 9]), 10, 0.1)
    np.testing.assert_allclose(softmax_cross_entropy(zeros, targets), np.log(10), rtol=1e-6)
    np.testing.assert_allclose(sigmoid_cross_entropy(zeros, targets), 10 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(thresholded_bce(zeros, targets, 0.5), np.log(2), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothing_spreads_over_all_classes(smoothing):
    targets = smooth_one_hot(jnp.asarray([0, 2]), 4, smoothing)
    assert (targets.shape, targets.dtype) == ((2, 4), jnp.float32)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[1, 2], 1 - smoothing + smoothing / 4, rtol=1e-6)
    np.testing.assert_allclose(targets[1, :2], smoothing / 4, rtol=1e-6)


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_extreme_logits_stay_finite(size):
    logits, targets = size * jnp.asarray([[1.0, -1.0]]), jnp.asarray([[1.0, 0.0]])
    for loss in (softmax_cross_entropy, sigmoid_cross_entropy, lambda *a: thresholded_bce(*a, None)):
        np.testing.assert_allclose(loss(logits, targets), 0, atol=1e-6)
        assert float(loss(logits, 1 - targets)[0]) >= size
        gradient = jax.grad(lambda x, loss=loss: loss(x, 1 - targets).sum())(logits)
        assert np.isfinite(gradient).all()
