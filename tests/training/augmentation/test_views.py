"""`data.augment_on="device"`: crops of whole images inside the step, the same over several devices."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.objectives.steps import configuration
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, VitError
from vit_jax.training.augmentation.views import device_views, on_host
from vit_jax.training.experiment import build

COLOURS = "color_jitter(0.4, 0.4, 0.2, 0.1, probability=0.8)|grayscale(0.2)|gaussian_blur(0.5)|solarize(0.2)"


def images(rows=4, height=20, width=24, channels=3):
    return np.random.default_rng(0).integers(0, 256, (rows, height, width, channels), np.uint8)


def test_each_crop_of_each_image_is_augmented_by_itself():
    colours = f"flip_lr|{COLOURS}"
    views = device_views(
        f"multi_crop(8, 4, local_count=3, global_transforms={colours!r}, local_transforms='flip_lr')"
    )
    same = np.broadcast_to(images(1), (4, 20, 24, 3))
    compute = jax.jit(views.__call__)
    made = compute({"image": same, "label": np.arange(4)}, jax.random.key(0))
    assert set(made) == {"global_crops", "local_crops", "label"}
    assert made["global_crops"].shape == (4, 2, 8, 8, 3)
    assert made["local_crops"].shape == (4, 3, 4, 4, 3)
    assert made["local_crops"].dtype == np.uint8
    for crops in (made["global_crops"], made["local_crops"]):
        flat = np.asarray(crops).reshape(-1, crops.shape[2] ** 2 * 3)
        assert len(np.unique(flat, axis=0)) == len(flat)
    again = compute({"image": same, "label": np.arange(4)}, jax.random.key(1))
    assert (np.asarray(made["local_crops"]) != np.asarray(again["local_crops"])).mean() > 0.5


def test_what_is_certain_is_done_in_order():
    """A crop of the whole, mirrored, grey and solarised, is what the CPU makes of it."""
    steps = "flip_lr(1.0)|grayscale(1.0)|solarize(1.0)"
    crops = f"local_count=0, global_scale=(1.0, 1.0), global_transforms={steps!r}, interpolation='bilinear'"
    spec = f"multi_crop((20, 24), {crops})"
    whole = images()
    made = jax.jit(device_views(spec).__call__)({"image": whole}, jax.random.key(0))["global_crops"]
    for image, own in zip(whole, np.asarray(made)):
        theirs = parse(spec)[0]({"image": image}, np.random.default_rng(0))["global_crops"]
        np.testing.assert_array_equal(own, theirs)


def on_device(**data):
    config = configuration(dict(name="lejepa", hidden_dim=16, output_dim=8, directions=5), pool="cls")
    config.model.in_channels = 3
    steps = f"local_count=2, global_transforms={COLOURS!r}, local_transforms='flip_lr'"
    config.data.train_transforms = f"resize(12)|multi_crop(8, 4, {steps})"
    config.data.augment_on = "device"
    config.data.update(data)
    return config


def test_over_eight_devices_each_augments_its_rows():
    views = device_views(f"multi_crop(8, local_count=0, global_transforms={COLOURS!r})")
    rows = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))
    whole, key = images(16, 12, 12), jax.random.key(0)
    alone = jax.jit(views.__call__)({"image": whole}, key)["global_crops"]
    spread = jax.jit(views.__call__, in_shardings=({"image": rows}, None), out_shardings=rows)
    program = spread.lower({"image": whole}, key).compile()
    assert not [word for word in ("all-gather", "all-to-all", "all-reduce") if word in program.as_text()]
    np.testing.assert_array_equal(spread({"image": whole}, key)["global_crops"], alone)


def test_a_step_ships_whole_images():
    experiment = build(on_device())
    assert {name: field.shape for name, field in experiment.data.fields.items()}["image"] == (12, 12, 3)
    assert experiment.data.made["local_crops"].shape == (2, 4, 4, 3)
    assert experiment.abstract_batch()["image"].dtype == np.uint8
    assert experiment.data.transforms[0] == "resize(12)"
    given = experiment.abstract_state, experiment.abstract_batch()
    state, metrics = jax.eval_shape(experiment.step, *given)
    assert jax.tree.structure(state) == jax.tree.structure(experiment.abstract_state)
    assert "sigreg" in metrics
    found = jax.eval_shape(experiment.inspection, *given, {})
    assert set(found["prepared"]) == {"global_crops", "local_crops"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "data.train_transforms are ''; end them with it"),
        ("decode|flip_lr", "data.train_transforms are 'decode|flip_lr'; end them with it"),
        ("multi_crop(8, global_transforms='three_augment')", "where ThreeAugment is not known"),
        (
            "multi_crop(8, interpolation='lanczos')",
            "'lanczos', but data.augment_on 'device' knows bilinear and",
        ),
    ],
)
def test_what_devices_cannot_do_is_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        device_views(spec)


def test_a_wrong_place_is_named():
    assert on_host("decode|resize(9)|multi_crop(8)") == "decode|resize(9)"
    config = on_device(augment_on="gpu")
    with pytest.raises(VitError, match=r"data\.augment_on is 'gpu'; it must be one of cpu, device"):
        build(config)
