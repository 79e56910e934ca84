"""Losses of several labels: the published formulas, extremes of logits, damping and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from vit_jax.objectives.multi_label.losses import asymmetric_loss, binary_cross_entropy, smooth

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(0, 3, (16, 5))
TARGETS = (GENERATOR.random((16, 5)) < 0.3).astype(np.float64)


def published(logits, targets, gamma_neg, gamma_pos, clip, eps=1e-8):
    """The authors' code, github.com/Alibaba-MIIL/ASL, `AsymmetricLoss.forward`, without its sum."""
    positive = expit(logits)
    negative = np.minimum(1 - positive + clip, 1)
    loss = targets * np.log(np.maximum(positive, eps)) + (1 - targets) * np.log(np.maximum(negative, eps))
    pt = positive * targets + negative * (1 - targets)
    gamma = gamma_pos * targets + gamma_neg * (1 - targets)
    return -loss * (1 - pt) ** gamma


@pytest.mark.parametrize("gammas", [(4, 0, 0.05), (2, 1, 0.2), (0, 0, 0.05), (1, 1, 0)])
def test_asymmetric_loss_is_the_published_one(gammas):
    gamma_neg, gamma_pos, clip = gammas
    found = asymmetric_loss(
        jnp.asarray(LOGITS),
        jnp.asarray(TARGETS),
        gamma_negative=gamma_neg,
        gamma_positive=gamma_pos,
        clip=clip,
    )
    np.testing.assert_allclose(found, published(LOGITS, TARGETS, *gammas), rtol=2e-5, atol=1e-7)


def test_without_damping_it_is_cross_entropy():
    plain = asymmetric_loss(LOGITS, TARGETS, gamma_negative=0, gamma_positive=0, clip=0)
    np.testing.assert_array_equal(plain, binary_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(TARGETS)))


def test_cross_entropy_with_positive_weights():
    weights = np.array([1, 2, 5, 10, 0.5])
    chance = expit(LOGITS)
    expected = -(weights * TARGETS * np.log(chance) + (1 - TARGETS) * np.log1p(-chance))
    found = binary_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(TARGETS), jnp.asarray(weights))
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    asymmetric = asymmetric_loss(
        LOGITS, TARGETS, gamma_negative=0, clip=0, positive_weights=jnp.asarray(weights)
    )
    np.testing.assert_allclose(asymmetric, expected, rtol=2e-5)


@pytest.mark.parametrize("gammas", [(4.0, 0.0, 0.05), (1.0, 1.0, 0.0), (0.0, 2.0, 0.1)])
def test_losses_and_gradients_of_extreme_logits_are_finite(gammas):
    logits = jnp.asarray([-1e4, -90.0, -20.0, 0.0, 20.0, 90.0, 1e4])[:, None] * jnp.ones((1, 2))
    targets = jnp.asarray([[0.0, 1.0]] * 7)

    def total(logits):
        return asymmetric_loss(
            logits, targets, gamma_negative=gammas[0], gamma_positive=gammas[1], clip=gammas[2]
        ).sum()

    loss, gradient = jax.value_and_grad(total)(logits)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    # What is wrong is pulled, what is right is not.
    assert (np.asarray(gradient)[:2, 1] < 0).all()
    assert np.abs(np.asarray(gradient)[-2:, 1]).max() < 1e-6


def test_negatives_within_the_margin_say_nothing():
    logits = jnp.full((1, 1), -4.0)  # a probability of 0.018
    gradient = jax.grad(lambda x: asymmetric_loss(x, jnp.zeros((1, 1)), clip=0.05).sum())(logits)
    assert float(gradient[0, 0]) == 0


def test_smoothing_is_of_two_choices():
    np.testing.assert_allclose(smooth(jnp.asarray([0.0, 1.0]), 0.2), [0.1, 0.9], rtol=1e-6)
