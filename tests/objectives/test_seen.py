"""What an encoder makes of images, as pictures: attention, and principal components of all images together."""

import numpy as np
import pytest

from tests.tiny import parameters, run, tiny
from vit_jax.models.cvt.config import CvtConfig
from vit_jax.models.vit.family import explanation
from vit_jax.objectives.images import normalise
from vit_jax.objectives.outputs.components import colours
from vit_jax.objectives.outputs.seen import seen
from vit_jax.objectives.pictures import attention_overlay

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (18, 16, 16, 3), dtype=np.uint8)  # more than are computed at once
NAMES = [f"image {number}" for number in range(18)]


def test_images_attention_and_components_are_those_of_the_features():
    model = tiny(num_classes=0, register_tokens=1)
    params = parameters(model)
    shown = seen(model, {**params, "projector": {}}, {"target": {}}, {"image": IMAGES}, NAMES)
    assert shown.columns == ("image", "attention, last block", "principal components")
    _, values = run(
        model, normalise(IMAGES, model.preprocessing), params=params, capture=("attention/-1", "encoded")
    )
    wanted, foreground = colours(np.asarray(values["encoded"][:, 2:]).reshape(18, 4, 4, -1))
    for row, example in enumerate(shown.examples):
        image, attention, components = example.images
        np.testing.assert_array_equal(image, IMAGES[row])
        expected = attention_overlay(image, np.asarray(values["attention/-1"][row]), explanation(model))
        assert np.abs(attention.astype(int) - expected).max() <= 1
        blocks = components.reshape(4, 4, 4, 4, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
        assert np.abs(blocks[:, 0, :, 0].astype(int) - wanted[row]).max() <= 1
        assert (example.record, example.caption) == (NAMES[row], f"{foreground[row].mean():.0%} foreground")


def test_features_that_are_everywhere_the_same_have_no_components_and_it_is_said():
    model = tiny(num_classes=0)
    params = {**parameters(model)}
    params["norm"] = {"scale": params["norm"]["scale"] * 0, "bias": params["norm"]["bias"]}
    shown = seen(model, params, {}, {"image": IMAGES}, NAMES)
    assert shown.columns == ("image", "attention, last block")
    assert shown.title.endswith(
        "the features of all places are alike; there is nothing that colours could tell."
    )
    assert {len(example.images) for example in shown.examples} == {2}


@pytest.mark.parametrize("kind", ["stages", "sequences"])
def test_other_kinds_of_models(kind):
    batch = {"image": IMAGES[:4]}
    if kind == "stages":
        sizes = dict(widths=(8, 16), depths=(1, 1), head_dim=8, kernels=(7, 3), strides=(4, 2), pads=(2, 1))
        model, columns = CvtConfig(image_size=16, num_classes=0, **sizes), 3
    else:
        model, columns = tiny(num_classes=0, max_patches=16, class_token=False, pool="mean"), 2
        patches = RNG.integers(0, 256, (4, 16, 48), dtype=np.uint8)
        batch = {"image": patches, "grid": np.asarray([[4, 4], [2, 3], [1, 5], [4, 2]], np.int32)}
    shown = seen(model, parameters(model), {}, batch, NAMES[:4])
    assert len(shown.columns) == columns
    assert all(len(example.images) == columns for example in shown.examples)
    assert [example.images[0].shape[:2] for example in shown.examples][1] == (
        (16, 16) if kind == "stages" else (8, 12)
    )
