"""Losses of self-distillation: what they do not depend on, where they are least, and edge cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import ConfigError
from vit_jax.objectives.dino import losses

RNG = np.random.default_rng(0)
STUDENT = jnp.asarray(RNG.standard_normal((3, 4, 6)), jnp.float32)
TARGETS = losses.teacher_targets(jnp.asarray(RNG.standard_normal((2, 4, 6))), jnp.zeros(6), 0.5)


def test_temperature_rises_and_stays():
    found = [float(losses.teacher_temperature(epoch, 0.04, 0.07, 4)) for epoch in range(7)]
    np.testing.assert_allclose(found, [0.04, 0.05, 0.06, 0.07, 0.07, 0.07, 0.07], rtol=1e-6)
    assert losses.teacher_temperature(0, 0.04, 0.07, 0) == jnp.float32(0.07)


def test_centring_takes_out_what_all_scores_share():
    scores, shift = STUDENT[:2], jnp.arange(6.0)
    center = losses.update_center(jnp.zeros(6), scores, momentum=0.0)
    moved = losses.update_center(jnp.zeros(6), scores + shift, momentum=0.0)
    np.testing.assert_allclose(
        losses.teacher_targets(scores, center, 0.1),
        losses.teacher_targets(scores + shift, moved, 0.1),
        atol=1e-5,
    )


def test_a_view_is_not_compared_with_itself():
    one = TARGETS[:1]
    loss = jax.grad(lambda student: losses.dino_loss(student, one))(STUDENT)
    np.testing.assert_array_equal(loss[0], 0)
    assert (jnp.abs(loss[1:]).max((1, 2)) > 0).all()
    with pytest.raises(ConfigError, match="make no pair of different views"):
        losses.dino_loss(STUDENT[:1], one)


def test_nothing_flows_back_to_the_teacher():
    def loss(scores, center):
        after = losses.update_center(center, scores)
        return losses.dino_loss(STUDENT, losses.teacher_targets(scores, after, 0.1))

    for gradient in jax.grad(loss, (0, 1))(STUDENT[:2], jnp.ones(6)):
        np.testing.assert_array_equal(gradient, 0)


def test_images_count_alike_and_padding_does_not():
    mask = jnp.asarray([[True, False, True, True], [False, True, False, False], [False] * 4])
    scores, targets = STUDENT.reshape(12, 6), jnp.tile(TARGETS.reshape(8, 6), (2, 1))[:12]
    each = -(targets * jax.nn.log_softmax(scores / 0.1)).sum(-1)
    expected = (each[:3].mean() + each[3]) / 3
    for rows in (4, 7):
        found = losses.ibot_loss(scores[:rows], targets[:rows], mask)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_koleo_spreads_directions():
    around = jnp.linspace(0, 2 * jnp.pi, 7)[:-1]
    even = jnp.stack([jnp.cos(around), jnp.sin(around)], -1)
    np.testing.assert_allclose(losses.koleo_loss(5 * even), 0, atol=1e-6)  # a hexagon's sides are 1
    uneven = even.at[0].set(even[1] + 0.1)
    assert losses.koleo_loss(uneven) > 0.1
    equal = jnp.ones((4, 2))
    assert jnp.isfinite(jax.grad(losses.koleo_loss)(equal)).all()


def test_sinkhorn_uses_prototypes_alike_whatever_fills_up():
    scores = 3 * STUDENT.reshape(12, 6) + jnp.arange(6.0)  # which all rows share
    many = losses.sinkhorn_targets(scores, 1.0, iterations=200)
    np.testing.assert_allclose(many.sum(0), 2, rtol=1e-3)
    few = losses.sinkhorn_targets(scores, 1.0)
    np.testing.assert_allclose(few.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(few, losses.sinkhorn_targets(scores - jnp.arange(6.0), 1.0), atol=1e-6)
    valid = jnp.arange(15) % 5 < 4
    padded = jnp.full((15, 6), 50.0).at[jnp.nonzero(valid)[0]].set(scores)
    found = losses.sinkhorn_targets(padded, 1.0, valid)
    np.testing.assert_allclose(found[valid], few, atol=1e-6)
    assert jnp.isfinite(losses.sinkhorn_targets(1e4 * scores, 0.04)).all()
    gradient = jax.grad(lambda x: losses.dino_loss(STUDENT, losses.sinkhorn_targets(x, 0.1).reshape(3, 4, 6)))
    np.testing.assert_array_equal(gradient(scores), 0)


def test_gram_compares_directions_of_patches():
    features = STUDENT.transpose(1, 0, 2)  # (b, n, d)
    turned = jnp.asarray(np.linalg.qr(RNG.standard_normal((6, 6)))[0], jnp.float32)
    np.testing.assert_allclose(losses.gram_loss(features, 7 * features @ turned), 0, atol=1e-10)
    opposite = jnp.asarray([[[1.0, 0.0], [-2.0, 0.0]]]), jnp.asarray([[[0.0, 3.0], [0.0, 1.0]]])
    np.testing.assert_allclose(losses.gram_loss(*opposite), (2**2 + 2**2) / 4)
    np.testing.assert_array_equal(jax.grad(losses.gram_loss, 1)(features, features + 1), 0)


def test_entropies():
    np.testing.assert_allclose(
        losses.entropies(jnp.asarray([[0.25] * 4, [1.0, 0, 0, 0]])), [np.log(4), 0], atol=1e-6
    )
