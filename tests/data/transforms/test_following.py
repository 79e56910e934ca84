"""What lies in the plane of an image follows it: boxes, label maps, points, under every chain of transforms."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.records import Records
from vit_jax.data.fields.kind import IGNORE
from vit_jax.data.geometry import IDENTITY, inverse, moved_back, moved_points
from vit_jax.data.pipeline import eval_batches
from vit_jax.data.reader import BatchReader
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError

H, W = 60, 84
BOX = (22, 14, 61, 43)  # left, top, right, bottom
SPECS = (
    "flip_lr(1.0)",
    "flip_ud(1.0)",
    "resize((90, 70))",
    "resize((37, 53), 'bicubic')",
    "resize_short(41)",
    "resize_short((50, 90))",
    "resize_long(97)",
    "center_crop(48)",
    "center_crop(51, 'down')",
    "center_crop((101, 48), fill=0)",
    "random_resized_crop(64)",
    "random_resized_crop((45, 33), scale=(0.4, 0.9), antialias='pillow')",
    "random_resized_crop(50, antialias='none')",
    "inception_crop(56, 20)",
    "random_crop(40)",
    "random_crop((70, 50), fill=0)",
    "simple_random_crop(52)",
    "pad_crop((64, 88), 6)",
    "pad((77, 90))",
    "scale_jitter(60, (0.7, 1.6))",
)
POLICIES = (
    "rand_augment('rand-m6-n3-p1', 'bilinear', 0)",
    "randaug(3, 8)",
    "auto_augment('cifar10', 'nearest', 0)",
    "trivial_augment('bilinear')",
)


def record(number=0):
    """A white box on black, and the same as a box, a mask, classes of pixels and the point in its middle."""
    left, top, right, bottom = BOX
    inside = np.zeros((H, W), np.uint8)
    inside[top:bottom, left:right] = 1
    return {
        "image": np.repeat(255 * inside[..., None], 3, -1),
        "segmentation": inside.astype(np.int32),
        "masks": inside[None],
        "boxes": np.array([BOX], np.float32),
        "classes": np.array([1]),
        "points": np.array([[(left + right) / 2, (top + bottom) / 2]], np.float32),
        "geometry": IDENTITY,
        "record": f"box {number}",
    }


def through(spec, example, seed=0):
    rng = np.random.default_rng(seed)
    for transform in parse(spec):
        example = transform(example, rng)
    return example


def edges(profile):
    """Where a profile from 0 to 1 rises above and falls below a half, between the centres of pixels."""
    (above,) = np.nonzero(profile > 0.5)
    low, high = above[0], above[-1]
    before = profile[low - 1] if low else None
    after = profile[high + 1] if high + 1 < len(profile) else None
    start = low + 0.5 - (profile[low] - 0.5) / (profile[low] - before) if before is not None else 0.0
    end = high + 0.5 + (profile[high] - 0.5) / (profile[high] - after) if after is not None else len(profile)
    return start, end


@pytest.mark.parametrize("seed", range(60))
def test_a_box_drawn_and_a_box_carried_stay_together(seed):
    random = np.random.default_rng(seed)
    spec = "|".join(random.choice(SPECS, 1 + seed % 3))
    try:
        result = through(spec, record(), seed)
    except DataError:  # an image that a crop is larger than
        return
    image, size = result["image"][..., 0] / 255, result["image"].shape[:2]
    # What mirrors beyond the edge is not of the image.
    image = np.where(result["segmentation"] == IGNORE, 0, image)
    assert result["segmentation"].shape == size == result["masks"].shape[1:] or not len(result["boxes"])
    if not len(result["boxes"]):
        assert image.sum(0).max() <= 1.6 or image.sum(1).max() <= 1.6
        return
    (box,) = result["boxes"]
    rows, columns = image.max(1), image.max(0)
    for (start, end), low, high, length in (
        (edges(columns), box[0], box[2], size[1]),
        (edges(rows), box[1], box[3], size[0]),
    ):
        assert abs(start - low) < 0.5 or low < 1, spec
        assert abs(end - high) < 0.5 or high > length - 1, spec


@pytest.mark.parametrize("spec", SPECS)
def test_a_label_map_has_at_each_centre_what_lies_there(spec):
    for seed in range(3):
        result = through(spec, record(), seed)
        segmentation = result["segmentation"]
        h, w = result["image"].shape[:2]
        assert segmentation.shape == (h, w)
        y, x = np.mgrid[:h, :w] + 0.5
        there = moved_points(np.stack([x, y], -1), inverse(result["geometry"]))
        clear = (np.abs(there - np.round(there)) > 1e-3).all(-1)  # of the borders of pixels
        within = ((there > 0) & (there < (W, H))).all(-1)
        in_box = ((there > BOX[:2]) & (there < BOX[2:])).all(-1)
        expected = np.where(within, in_box, IGNORE)
        np.testing.assert_array_equal(segmentation[clear], expected[clear])
        for mask in result["masks"]:
            np.testing.assert_array_equal(mask[clear], (expected == 1)[clear])


@pytest.mark.parametrize("seed", range(20))
def test_a_label_map_never_gains_an_id(seed):
    random = np.random.default_rng(seed)
    ids = random.choice([3, 7, 100, 254], (H, W)).astype(np.int32)
    spec = "|".join(random.choice((*SPECS, *POLICIES), 3))
    try:
        result = through(spec, {**record(), "segmentation": ids}, seed)
    except DataError:
        return
    assert set(np.unique(result["segmentation"])) <= {3, 7, 100, 254, IGNORE}


@pytest.mark.parametrize("spec", POLICIES)
def test_points_and_masks_follow_what_policies_move(spec):
    for seed in range(12):
        result = through(spec, record(), seed)
        if not len(result["masks"]) or result["masks"][0].sum() < 39 * 29:  # it has left the image, in part
            continue
        y, x = np.nonzero(result["masks"][0])
        (point,) = result["points"]
        assert np.abs(point - (x.mean() + 0.5, y.mean() + 0.5)).max() < 0.5
        left, top, right, bottom = result["boxes"][0]
        around = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert np.abs(around - (left, top, right, bottom)).max() < 1.01


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_a_mask_is_where_operations_move_the_pixels(name):
    from vit_jax.data.transforms.policies.auto_augment import _PAPER
    from vit_jax.data.transforms.policies.operations import PolicyTransform

    class One(PolicyTransform):
        interpolation, fill = "nearest", 0

        def chosen(self, image, rng):
            yield _PAPER[name], 7

    for seed in range(4):
        result = One()(record(), np.random.default_rng(seed))
        drawn = result["image"][..., 0] > 127
        # Pillow rounds where they come from to 2**-16 pixels.
        assert (drawn != (result["segmentation"] == 1)).mean() < 0.002
        np.testing.assert_array_equal(result["masks"][0], result["segmentation"] == 1)


@pytest.mark.parametrize("flip", ["flip_lr", "flip_ud"])
def test_flipping_twice_is_the_identity(flip):
    before = record()
    after = through(f"{flip}(1.0)|{flip}(1.0)", before)
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, name)


@pytest.mark.parametrize("spec", [*SPECS, *POLICIES, "color_jitter(0.4, 0.4, 0.4)", "random_erasing(1.0)"])
def test_an_image_alone_is_changed_in_the_same_way(spec):
    for seed in range(2):
        alone = {name: record()[name] for name in ("image", "record")}
        np.testing.assert_array_equal(
            through(spec, alone, seed)["image"], through(spec, record(), seed)["image"]
        )


@pytest.mark.parametrize(
    "spec", ["random_resized_crop(24, (0.1, 0.6))", "random_crop(30)", "inception_crop(16)"]
)
def test_partial_decoding_changes_nothing(spec):
    pixels = np.random.default_rng(3).integers(0, 256, (H, W, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((4 * W, 4 * H)).save(buffer, "JPEG")
    targets = {
        "segmentation": np.random.default_rng(4).integers(0, 3, (4 * H, 4 * W)),
        "boxes": [[10, 20, 300, 200], [0, 0, 336, 240]],
        "classes": [0, 1],
    }
    source = Records([{"image": buffer.getvalue(), **targets}] * 8)
    steps = parse(f"decode|{spec}|pad_objects(3)")
    reader = BatchReader(source, steps, 8, seed=5, shuffle=True)
    assert len(reader.transforms) == 2
    whole = BatchReader(source, steps, 8, seed=5, shuffle=True)
    object.__setattr__(whole, "transforms", tuple(steps))
    for name, rows in whole(0).items():
        np.testing.assert_array_equal(reader(0)[name], rows, name)
    assert reader(0)["size"].tolist() == [[4 * H, 4 * W]] * 8


def test_predictions_come_back_to_the_image_as_it_was():
    example = {
        name: value for name, value in record().items() if name not in ("geometry", "record", "points")
    }
    source = Records([example], "ab")
    (batch,) = eval_batches(source, parse("resize_long(150)|pad(160)"), 1, num_threads=0)
    matrix, size = batch["geometry"][0], batch["size"][0]
    assert size.tolist() == [H, W]
    back = moved_back(batch["segmentation"][0], matrix, size, IGNORE)
    np.testing.assert_array_equal(back, example["segmentation"])
    corners = moved_points(batch["boxes"][0].reshape(-1, 2), inverse(matrix))
    np.testing.assert_allclose(corners.reshape(-1), BOX, atol=1e-3)
    cut = moved_back(np.ones((20, 20), int), inverse(np.array([[1, 0, 5.0], [0, 1, 5]])), (H, W), IGNORE)
    assert (cut == 1).sum() == 400
    assert (cut[5:25, 5:25] == 1).all()


@pytest.mark.parametrize("seed", range(20))
def test_objects_are_cut_off_at_a_crop_and_gone_where_nothing_of_them_is_left(seed):
    """Of each object of two corners of its box, by hand: what is left of box and mask, and in which rows."""
    random = np.random.default_rng(seed)
    low = np.stack([random.integers(0, W - 8, 6), random.integers(0, H - 8, 6)], -1)
    high = low + random.integers(4, 40, (6, 2))
    high = np.minimum(high, (W, H))
    masks = np.zeros((6, H, W), np.uint8)
    for mask, (left, top), (right, bottom) in zip(masks, low, high):
        mask[top : top + 2, left : left + 2] = mask[bottom - 2 : bottom, right - 2 : right] = 1
    masks[5] = 0  # of this one there is only a box
    example = {
        **record(),
        "boxes": np.concatenate([low, high], 1).astype(np.float32),
        "masks": masks,
        "classes": np.arange(6),
        "crowd": np.arange(6) % 2 == 1,
        "points": np.repeat(low[:, None], 2, 1).astype(np.float32),
    }
    result = through("random_crop(24)", example, seed)
    left, top = (-result["geometry"][:, 2]).astype(int)
    np.testing.assert_array_equal(result["geometry"][:, :2], np.eye(2))
    cut = np.clip(example["boxes"] - [left, top, left, top], 0, 24)
    seen = masks[:, top : top + 24, left : left + 24]
    kept = (cut[:, 2:] - cut[:, :2] >= 1).all(1) & (seen.any((1, 2)) | (np.arange(6) == 5))
    for name, expected in (
        ("boxes", cut),
        ("masks", seen),
        ("classes", example["classes"]),
        ("crowd", example["crowd"]),
        ("points", example["points"] - np.float32([left, top])),
    ):
        np.testing.assert_array_equal(result[name], expected[kept], name)


def test_objects_below_a_pixel_are_gone_from_every_field():
    boxes = np.array([[0, 0, 10, 10], [50, 20, 60.4, 30], [70, 40, 80, 50]], np.float32)
    masks = np.zeros((3, H, W), np.uint8)
    masks[1, 20:30, 50:60] = 1
    example = {
        **record(),
        "boxes": boxes,
        "masks": masks,
        "classes": np.array([4, 5, 6]),
        "crowd": np.array([False, True, False]),
        "points": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
    }
    result = through("center_crop(40)", example)  # from (10, 22)
    assert result["boxes"].tolist() == [[28, 10, 38, 20]] or len(result["boxes"]) == 1
    assert result["classes"].tolist() == [5]
    assert result["crowd"].tolist() == [True]
    assert (result["masks"].shape, result["points"].shape) == ((1, 40, 40), (1, 2, 2))
    without = {name: value for name, value in example.items() if name != "boxes"}
    assert through("center_crop(40)", without)["classes"].tolist() == [5]


def test_objects_are_padded_and_of_too_many_the_largest_are_kept():
    example = {**record(), "classes": np.array([7])}
    padded = through("pad_objects(3)", example)
    assert padded["boxes"].tolist() == [list(BOX), [0] * 4, [0] * 4]
    assert padded["classes"].tolist() == [7, IGNORE, IGNORE]
    assert padded["masks"].shape == (3, H, W)
    assert padded["points"].shape == (1, 2)  # of the image, not of objects
    many = {"boxes": np.array([[0, 0, s, s] for s in (3, 9, 1, 5)], np.float32), "classes": np.arange(4)}
    assert through("pad_objects(2)", many)["classes"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("aug_mix", "aug_mix mixes copies of an image that are moved differently, which boxes cannot follow"),
        ("multi_crop(8, 8)", "multi_crop makes several images of one, which boxes cannot follow"),
    ],
)
def test_what_cannot_carry_a_field_is_refused_before_anything_is_read(spec, said):
    source = Records([{"image": None, "boxes": None, "classes": None}])
    with pytest.raises(ConfigError, match=said):
        BatchReader(source, parse(spec), 1)
    with pytest.raises(
        ConfigError, match="pad_objects needs objects, but records have the fields image, value"
    ):
        BatchReader(Records([{"image": None, "value": 1}]), parse("pad_objects(2)"), 1)


def test_crops_of_one_image_have_their_geometry_where_it_is_kept():
    example = {name: record()[name] for name in ("image", "geometry", "record")}
    result = through("multi_crop(20, 10, 3)", example)
    assert result["global_geometry"].shape == (2, 2, 3)
    assert result["local_geometry"].shape == (3, 2, 3)
    assert "geometry" not in result
    corners = moved_points(np.array([[0.0, 0], [20, 20]]), inverse(result["global_geometry"][0]))
    assert (corners >= -1e-3).all()
    assert (corners <= np.array([W, H]) + 1e-3).all()


def test_a_file_whose_targets_do_not_fit_is_named():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(buffer, "JPEG")
    image = buffer.getvalue()
    for spec in ("decode", "decode|random_resized_crop(8)"):
        with pytest.raises(DataError, match="row 0 has segmentation of 60x80, but an image of 60x84"):
            BatchReader(Records([{"image": image, "segmentation": np.zeros((H, 80), int)}]), parse(spec), 1)(
                0
            )
        with pytest.raises(
            DataError, match=r"row 0 has box 0 \[0.0, 0.0, 90.0, 10.0\], which is outside its image"
        ):
            BatchReader(Records([{"image": image, "boxes": [[0, 0, 90, 10]]}]), parse(spec), 1)(0)
