"""Mixup and cutmix: where every pixel comes from, that targets say so, and that draws are those of timm."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import stats

from vit_jax.objectives.classification.mixing import (
    Mixture,
    blend,
    box_of_area,
    box_of_sides,
    boxes_around,
    mix,
    symmetric_beta,
)
from vit_jax.objectives.losses import smooth_one_hot

# Made by timm 1.0.31: `Mixup` with label_smoothing 0.1 on six images of 7 x 10 pixels, with what it drew.
TIMM = dict(np.load(Path(__file__).parents[2] / "reference" / "mixing_timm.npz"))
CASES = sorted({name.split("/")[0] for name in TIMM if "/" in name})
BOTH = dict(mixup_alpha=0.8, cutmix_alpha=1.0)


def batch(size=8, height=12, width=20):
    """Images whose every pixel says which image it is of, and one-hot targets."""
    images = jnp.broadcast_to(jnp.arange(1.0, size + 1)[:, None, None, None], (size, height, width, 3))
    return images, jnp.eye(size)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def draws(count, images, targets, **options):
    """The batch mixed with `count` keys."""
    mixed = jax.jit(jax.vmap(lambda key: mix(images, targets, key, **options)))(keys(count))
    return [np.asarray(x) for x in mixed]


def other(x, partner):
    return np.roll(x, 1, axis=0) if partner == "roll" else np.flip(x, axis=0)


# ---- parity with timm


def rows_of(case, name):
    """What timm drew, for each image."""
    values = TIMM[f"{case}/{name}"]
    return np.concatenate([values, values[::-1]]) if case.startswith("pair") else values


@pytest.mark.parametrize("case", CASES)
def test_what_timm_draws_gives_what_timm_returns(case):
    share, box, cut = (rows_of(case, name) for name in ("share", "box", "cut"))
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]) / 70
    corrected = cut & (share < 1) & (not case.endswith("uncorrected"))
    target = np.where(corrected, 1 - area, share).astype(np.float32)
    mixture = Mixture(*map(jnp.asarray, (share, target, cut, box)))
    targets = smooth_one_hot(jnp.asarray(TIMM["labels"]), 5, 0.1)
    given = jnp.asarray(TIMM["images"])
    images, soft = blend((given, given[::-1]), (targets, targets[::-1]), mixture)
    np.testing.assert_allclose(images, TIMM[f"{case}/images"], atol=2e-7)
    np.testing.assert_allclose(soft, TIMM[f"{case}/targets"], atol=2e-7)
    pasted = corrected & (area > 0)
    for row in np.flatnonzero(pasted):  # what is pasted or kept is bitwise what it was
        assert np.isin(images[row], TIMM["images"]).all()


def test_boxes_around_a_pixel_are_those_of_timm():
    for case in CASES:
        centre, drawn = TIMM[f"{case}/centre"], TIMM[f"{case}/centre"][:, 0] >= 0
        ours = boxes_around(jnp.asarray(centre), jnp.asarray(1 - TIMM[f"{case}/share"]), (7, 10))
        np.testing.assert_array_equal(ours[drawn], TIMM[f"{case}/box"][drawn])


@pytest.mark.parametrize("size", [(1, 1), (7, 10), (224, 192)])
def test_boxes_of_every_strength_are_those_of_timms_formula(size):
    rng = np.random.default_rng(0)
    share = np.concatenate([rng.random(500, np.float32), np.float32([0, 0.5, 0.75, 1])])
    centre = np.stack([rng.integers(0, pixels, len(share)) for pixels in size], axis=1)
    side = (np.sqrt(1 - share)[:, None] * np.asarray(size, np.float32)).astype(int)
    start = np.clip(centre - side // 2, 0, size)
    stop = np.clip(centre + (side + 1) // 2, 0, size)
    expected = np.stack([start[:, 0], stop[:, 0], start[:, 1], stop[:, 1]], axis=1)
    ours = boxes_around(jnp.asarray(centre), 1 - jnp.asarray(share), size)
    np.testing.assert_array_equal(ours, expected)


# ---- what is drawn


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 3.0, 100.0])
def test_strengths_have_a_beta_distribution(alpha):
    sample = np.asarray(
        jax.jit(symmetric_beta)(jax.random.key(1), jnp.full(20000, jnp.float32(alpha))), np.float64
    )
    assert sample.min() >= 0
    assert sample.max() <= 1
    assert np.isfinite(sample).all()
    # Kolmogorov's statistic, away from the ends: there float32 rounds to 0 and 1.
    points = np.linspace(1e-5, 1 - 1e-5, 500)
    found = np.searchsorted(np.sort(sample), points) / len(sample)
    assert np.abs(found - stats.beta(alpha, alpha).cdf(points)).max() < 1.95 / np.sqrt(len(sample))


def test_extreme_strengths_are_finite():
    for alpha in (1e-4, 1000.0):
        sample = np.asarray(symmetric_beta(jax.random.key(0), jnp.full(10000, jnp.float32(alpha))))
        assert np.isfinite(sample).all()
        assert abs(sample.mean() - 0.5) < 0.02


def test_places_are_uniform():
    boxes = np.asarray(jax.jit(partial(box_of_area, size=(4, 5)))(jax.random.key(0), jnp.full(20000, 0.11)))
    assert (boxes[:, 1] - boxes[:, 0] == 1).all()  # 4 * sqrt(0.11) is 1.3: one pixel, and its place
    counts = np.bincount(boxes[:, 0] * 5 + boxes[:, 2], minlength=20)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_sides_of_boxes_between_two_shares():
    boxes = np.asarray(box_of_sides(jax.random.key(0), (0.2, 0.8), (20, 10), 20000))
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    for side, low, high in ((height, 4, 16), (width, 2, 8)):  # as timm, the upper end is excluded
        counts = np.bincount(side, minlength=high)
        assert not counts[:low].any()
        assert len(counts) == high
        assert stats.chisquare(counts[low:]).pvalue > 1e-3
    for start, stop, size in ((boxes[:, 0], boxes[:, 1], 20), (boxes[:, 2], boxes[:, 3], 10)):
        assert start.min() == 0
        assert stop.max() == size
    whole = np.asarray(box_of_sides(jax.random.key(0), (1.0, 1.0), (20, 10), 50))
    np.testing.assert_array_equal(whole, np.broadcast_to([0, 20, 0, 10], (50, 4)))


def kinds(count, **options):
    """For each draw and image: mixed by mixup, by cutmix, and the share of its own that is kept."""
    images, targets = batch(4, 16, 16)
    mixed, soft = draws(count, images, targets, **options)
    own = np.diagonal(soft, axis1=1, axis2=2)
    between = np.any(mixed != np.round(mixed), axis=(2, 3, 4))
    return between, (own < 1) & ~between, own


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_shares_of_mixup_and_cutmix(mode):
    count = 2000
    mixups, cutmixes, own = kinds(
        count,
        mixup_alpha=1.0,
        cutmix_alpha=1.0,
        probability=0.8,
        cutmix_probability=0.25,
        mode=mode,
        partner="flip",
    )
    for found, share in ((mixups, 0.8 * 0.75), (cutmixes, 0.8 * 0.25)):
        for image in range(4):
            # A box smaller than a pixel is no box: at most 1/256 of the strengths; and some blends look like pastes.
            assert (
                abs(found[:, image].mean() - share) < 4 * np.sqrt(share * (1 - share) / count) + share / 100
            )
    # Who shares a draw: all; the first with the last and the second with the third; nobody.
    alike = [np.mean(own[:, 0] == own[:, image]) for image in range(4)]
    expected = {"batch": (1, 1, 1, 1), "pair": (1, 0, 0, 1), "elem": (1, 0, 0, 0)}[mode]
    for found, same in zip(alike, expected):
        assert found == 1 if same else found < 0.1  # both left alone: 0.04
    if mode == "elem":
        both = np.mean(mixups[:, 0] & cutmixes[:, 1])
        assert abs(both - 0.6 * 0.2) < 4 * np.sqrt(0.12 * 0.88 / count)


def test_with_cutmix_alone_nothing_is_blended():
    for options in (dict(cutmix_alpha=1.0), dict(cutmix_minmax=(0.2, 0.8))):
        mixups, cutmixes, _ = kinds(200, cutmix_probability=0.0, **options)
        assert not mixups.any()
        assert cutmixes.mean() > 0.95


def test_with_mixup_alone_nothing_is_pasted_and_strengths_have_the_moments_of_their_distribution():
    alpha = 0.8
    mixups, cutmixes, own = kinds(4000, mixup_alpha=alpha, cutmix_probability=1.0)
    assert mixups.mean() > 0.99
    assert cutmixes.mean() < 0.01  # a strength that rounds to 0 or 1
    deviation = np.sqrt(1 / (4 * (2 * alpha + 1)))
    assert abs(own[:, 0].mean() - 0.5) < 4 * deviation / np.sqrt(4000)
    np.testing.assert_allclose(own[:, 0].std(), deviation, rtol=0.05)


def test_each_kind_has_its_own_alpha():
    images, targets = batch(2, 32, 32)
    _, soft = draws(1000, images, targets, mixup_alpha=0.01, cutmix_alpha=1000.0, corrected=False)
    own = soft[:, 0, 0]
    middle = np.abs(own - 0.5) < 0.1  # cutmix; mixup is nearly 0 or 1
    assert abs(middle.mean() - 0.5) < 0.07
    assert np.isclose(own[~middle] * (1 - own[~middle]), 0, atol=0.01).mean() > 0.9


@pytest.mark.parametrize("options", [BOTH, dict(mixup_alpha=0.2), dict(cutmix_alpha=1.0, corrected=False)])
def test_dominant_leaves_the_larger_share(options):
    """big_vision's mixup: max(a, 1 - a), shared by the batch."""
    images, targets = batch(4, 16, 16)
    _, soft = draws(500, images, targets, dominant=True, **options)
    own = np.diagonal(soft, axis1=1, axis2=2)
    assert own.min() >= 0.5
    np.testing.assert_array_equal(own, np.broadcast_to(own[:, :1], own.shape))
    assert own.std() > 0.05
    _, plain = draws(500, images, targets, **options)
    plain = plain[:, 0, 0]
    if "corrected" in options or "cutmix_alpha" not in options:
        np.testing.assert_allclose(own[:, 0], np.maximum(plain, 1 - plain), atol=1e-6)


# ---- what becomes of it


@pytest.mark.parametrize(("mode", "partner"), [("batch", "roll"), ("batch", "flip"), ("elem", "flip")])
def test_mixup_is_a_combination_with_the_partner(mode, partner):
    images, targets = batch()
    for mixed, soft in zip(*draws(20, images, targets, mixup_alpha=0.8, mode=mode, partner=partner)):
        own = np.diagonal(soft)
        expected = own[:, None] * np.eye(8) + (1 - own[:, None]) * other(np.eye(8), partner)
        np.testing.assert_allclose(soft, expected, atol=1e-6)
        share = own[:, None, None, None]
        np.testing.assert_allclose(mixed, share * images + (1 - share) * other(images, partner), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "mode", "partner"),
    [
        (dict(cutmix_alpha=1.0), "batch", "roll"),
        (dict(cutmix_alpha=1.0), "elem", "flip"),
        (dict(cutmix_minmax=(0.25, 0.75)), "elem", "roll"),
    ],
)
def test_cutmix_pastes_one_box_and_targets_are_its_true_share(options, mode, partner):
    images, targets = batch()
    seen = set()
    for mixed, soft in zip(*draws(20, images, targets, mode=mode, partner=partner, **options)):
        pasted = mixed != np.asarray(images)
        np.testing.assert_array_equal(mixed, np.where(pasted, other(images, partner), images))
        for row, one in enumerate(pasted):
            box = one[..., 0]
            np.testing.assert_array_equal(one, np.broadcast_to(box[..., None], one.shape))
            rows, columns = box.any(axis=1), box.any(axis=0)
            np.testing.assert_array_equal(box, rows[:, None] & columns[None])
            for line in (rows, columns):  # contiguous
                assert np.count_nonzero(np.diff(np.concatenate([[0], line, [0]]).astype(int))) in (0, 2)
            np.testing.assert_allclose(soft[row, row], 1 - box.mean(), atol=1e-6)
            np.testing.assert_allclose(soft[row].sum(), 1, atol=1e-6)
            seen.add(box.tobytes())
    assert len(seen) > (15 if mode == "batch" else 120)


def test_targets_that_are_not_corrected_follow_the_strength():
    images, targets = batch(2, 64, 64)
    mixed, soft = draws(200, images, targets, cutmix_alpha=1.0, corrected=False)
    pasted = (mixed[:, 0] != 1).mean(axis=(1, 2, 3))
    given = 1 - soft[:, 0, 0]
    assert (pasted <= given + 1e-6).all()  # clipped at the border
    assert (given - pasted).mean() > 0.05


@pytest.mark.parametrize("size", [7, 8])
def test_pairs_share_strength_kind_and_box(size):
    images, targets = batch(size)
    mixed, soft = draws(50, images, targets, mode="pair", partner="flip", **BOTH)
    own = np.diagonal(soft, axis1=1, axis2=2)
    np.testing.assert_array_equal(own, own[:, ::-1])
    untouched = mixed == np.asarray(images)
    np.testing.assert_array_equal(untouched, untouched[:, ::-1])
    # Together a pair keeps all of both images.
    np.testing.assert_allclose(mixed + mixed[:, ::-1], np.full_like(mixed, size + 1), rtol=1e-6)
    if size % 2:  # the one in the middle is its own partner
        np.testing.assert_allclose(mixed[:, size // 2], np.full_like(mixed[:, 0], size // 2 + 1), rtol=1e-6)


def test_probability_zero_and_both_off_change_nothing():
    images, targets = batch()
    for mode in ("batch", "elem"):
        mixed, soft = draws(3, images, targets, probability=0.0, mode=mode, **BOTH)
        for one, target in zip(mixed, soft):
            np.testing.assert_array_equal(one, images)
            np.testing.assert_array_equal(target, targets)
    same = mix(images, targets, jax.random.key(0))
    assert same[0] is images
    assert same[1] is targets


def test_the_key_decides():
    images, targets = batch()
    call = jax.jit(partial(mix, mode="elem", **BOTH))
    one, again, another = (call(images, targets, jax.random.key(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, another)


@pytest.mark.parametrize(("mode", "partner"), [("batch", "roll"), ("pair", "flip"), ("elem", "roll")])
def test_the_result_does_not_depend_on_the_number_of_devices(mode, partner):
    rng = np.random.default_rng(0)
    images, targets = rng.standard_normal((16, 8, 8, 3), np.float32), np.eye(16, dtype=np.float32)
    mesh = Mesh(np.asarray(jax.devices()).reshape(8), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    run = jax.jit(partial(mix, mode=mode, partner=partner, probability=0.9, **BOTH))
    blended = set()
    for key in keys(6):
        alone = run(jnp.asarray(images), jnp.asarray(targets), key)
        spread = run(jax.device_put(images, sharding), jax.device_put(targets, sharding), key)
        assert len(spread[0].sharding.device_set) == 8
        for one, many in zip(alone, spread):
            np.testing.assert_array_equal(one, many)
        blended |= {bool(np.isin(image, images).all()) for image in np.asarray(alone[0])}
    assert blended == {True, False}  # both kinds were drawn
