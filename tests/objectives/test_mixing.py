"""Mixup and cutmix: where every pixel comes from, and that targets say so."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax.objectives.mixing import cutmix, mix, mixup


def batch(size=8, height=12, width=20):
    """Images whose every pixel says which image it is of, and one-hot targets."""
    images = jnp.broadcast_to(jnp.arange(1.0, size + 1)[:, None, None, None], (size, height, width, 3))
    return images, jnp.eye(size)


run = jax.jit(mix, static_argnames=("mixup_alpha", "cutmix_alpha", "probability", "cutmix_probability"))


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_mixup_is_a_combination_with_the_image_before(strength):
    images, targets = batch()
    mixed, soft = mixup(images, targets, jnp.float32(strength))
    before = np.roll(np.asarray(images), 1, axis=0)
    np.testing.assert_allclose(mixed, strength * images + (1 - strength) * before, rtol=1e-6)
    np.testing.assert_allclose(
        soft, strength * np.eye(8) + (1 - strength) * np.roll(np.eye(8), 1, 0), atol=1e-6
    )


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_cutmix_pastes_one_box_and_targets_are_its_true_share(strength):
    images, targets = batch()
    mixed, soft = jax.jit(jax.vmap(partial(cutmix, images, targets, jnp.float32(strength))))(keys(50))
    for one, target in zip(np.asarray(mixed), np.asarray(soft)):
        pasted = one != np.asarray(images)
        # Every pixel is the image's own or its predecessor's, in all channels and images alike.
        np.testing.assert_array_equal(one, np.where(pasted, np.roll(images, 1, axis=0), images))
        np.testing.assert_array_equal(pasted, np.broadcast_to(pasted[:1, ..., :1], pasted.shape))
        box = pasted[0, ..., 0]
        rows, columns = box.any(axis=1), box.any(axis=0)
        np.testing.assert_array_equal(box, rows[:, None] & columns[None])
        for line in (rows, columns):  # contiguous
            assert np.count_nonzero(np.diff(np.concatenate([[0], line, [0]]).astype(int))) in (0, 2)
        np.testing.assert_allclose(np.diag(target), 1 - box.mean(), atol=1e-6)
        np.testing.assert_allclose(target.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(target[1, 0], box.mean(), atol=1e-6)
        side = np.sqrt(1 - strength)
        assert rows.sum() <= np.floor(12 * side)
        assert columns.sum() <= np.floor(20 * side)
    if strength == 1.0:
        assert (np.asarray(mixed) == np.asarray(images)).all()
    if 0 < strength < 0.99:
        # Boxes that the border does not clip have the size aimed at, and the place is random.
        sizes = (np.asarray(mixed)[:, 0, ..., 0] != 1).sum(axis=(1, 2))
        assert sizes.max() == np.floor(12 * side) * np.floor(20 * side)
        assert len(np.unique(np.asarray(mixed)[:, 0, ..., 0], axis=0)) > 20


def test_probability():
    images, targets = batch()
    call = partial(run, images, targets, mixup_alpha=0.8, cutmix_alpha=1.0)
    for key in keys(3):
        never = call(key, probability=0.0)
        np.testing.assert_array_equal(never[0], images)
        np.testing.assert_array_equal(never[1], targets)
        always = call(key)
        np.testing.assert_allclose(always[1].sum(axis=1), 1, atol=1e-6)
        for one, other in zip(always, call(key)):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(call(keys(2)[0])[1], call(keys(2)[1])[1])


def test_both_off_is_the_batch_itself():
    images, targets = batch()
    same = mix(images, targets, jax.random.key(0), mixup_alpha=0.0, cutmix_alpha=0.0)
    assert same[0] is images
    assert same[1] is targets


def kinds(count, **options):
    """For each key: was the batch mixed by mixup, by cutmix, or left alone; and the share kept."""
    images, targets = batch(4, 16, 16)
    sample = jax.jit(jax.vmap(lambda key: mix(images, targets, key, **options)))
    mixed, soft = map(np.asarray, sample(keys(count)))
    own = soft[:, 1, 1]
    between = np.any((mixed[:, 1] != 1) & (mixed[:, 1] != 2), axis=(1, 2, 3))
    return between, (own < 1) & ~between, own


def test_shares_of_mixup_and_cutmix():
    count = 2000
    mixups, cutmixes, _ = kinds(
        count, mixup_alpha=1.0, cutmix_alpha=1.0, probability=0.8, cutmix_probability=0.25
    )
    for found, share in ((mixups, 0.8 * 0.75), (cutmixes, 0.8 * 0.25)):
        # A box smaller than a pixel is no box: 1 - (15/16)**2 ... at most 1/256 of the strengths.
        assert abs(found.mean() - share) < 4 * np.sqrt(share * (1 - share) / count) + share / 256


def test_with_cutmix_alone_nothing_is_blended():
    mixups, cutmixes, _ = kinds(200, mixup_alpha=0.0, cutmix_alpha=1.0, cutmix_probability=0.0)
    assert not mixups.any()
    assert cutmixes.mean() > 0.95


def test_with_mixup_alone_nothing_is_pasted_and_strengths_have_the_moments_of_their_beta_distribution():
    alpha = 0.8
    mixups, cutmixes, own = kinds(4000, mixup_alpha=alpha, cutmix_alpha=0.0, cutmix_probability=1.0)
    assert mixups.mean() > 0.99
    assert cutmixes.mean() < 0.01  # a strength that rounds to 0 or 1
    deviation = np.sqrt(1 / (4 * (2 * alpha + 1)))
    assert abs(own.mean() - 0.5) < 4 * deviation / np.sqrt(4000)
    np.testing.assert_allclose(own.std(), deviation, rtol=0.05)


def test_the_result_does_not_depend_on_the_number_of_devices():
    rng = np.random.default_rng(0)
    images, targets = rng.standard_normal((16, 8, 8, 3), np.float32), np.eye(16, dtype=np.float32)
    mesh = Mesh(np.asarray(jax.devices()).reshape(8), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    options = dict(mixup_alpha=0.8, cutmix_alpha=1.0)
    blended = set()
    for key in keys(6):
        alone = run(jnp.asarray(images), jnp.asarray(targets), key, **options)
        spread = run(jax.device_put(images, sharding), jax.device_put(targets, sharding), key, **options)
        assert len(spread[0].sharding.device_set) == 8
        for one, other in zip(alone, spread):
            np.testing.assert_array_equal(one, other)
        blended.add(bool(np.isin(alone[0], images).all()))
    assert blended == {True, False}  # both kinds were drawn
