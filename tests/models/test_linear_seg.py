"""A linear head on the maps of a backbone: shapes, what it sees, and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import functions, parameters, pixels, tiny
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.families import family_of
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.heads.linear.config import LinearSegConfig
from vit_jax.models.heads.parts import resized
from vit_jax.models.vit.config import replace

BARE = tiny(num_classes=0, pool="none", depth=1, width=16)
MODEL = LinearSegConfig(BARE, num_classes=3, cells=2, taps=(0, 1))


def test_logits_are_a_norm_and_one_product_of_each_place():
    params, model, images = parameters(MODEL), functions(MODEL), pixels()
    logits = jax.jit(model.apply)(params, images)
    assert logits.shape == (2, 8, 8, 3)
    encoder = functions(BARE).bind(params["encoder"])
    _, values = encoder(images, capture=("embedded", "blocks/0"))
    maps = np.concatenate([values["embedded"][:, 1:], values["blocks/0"][:, 1:]], -1).reshape(2, 4, 4, 32)
    norm, head = params["norm"], params["head"]
    maps = (maps - norm["mean"]) / np.sqrt(norm["variance"] + 1e-5) * norm["scale"] + norm["bias"]
    expected = np.einsum("bhwd,dijc->bhiwjc", maps, head["kernel"])
    expected += np.asarray(head["bias"])[:, None]
    np.testing.assert_allclose(logits, expected.reshape(2, 8, 8, 3), rtol=1e-4, atol=1e-4)


def test_dropout_takes_whole_channels_of_each_image_in_training_alone():
    params, model, images = parameters(MODEL), functions(replace(MODEL, dropout_rate=0.9)), pixels()
    plain = replace(MODEL, norm="layer", dropout_rate=0.0)
    assert trees.flatten(functions(plain).init_state(jax.random.key(0))[1]) == {}
    apply = jax.jit(model.apply)
    one, two = (apply(params, images, jax.random.key(seed)) for seed in (1, 2))
    assert float(jnp.abs(one - two).max()) > 1e-3
    np.testing.assert_array_equal(apply(params, images), jax.jit(functions(MODEL).apply)(params, images))


def test_counts_are_those_of_its_parameters():
    model = functions(MODEL)
    assert parameter_count(MODEL) == trees.count(model.abstract)
    layered = replace(MODEL, norm="layer", taps=())
    assert parameter_count(layered) == trees.count(functions(layered).abstract)
    assert forward_macs(MODEL) - forward_macs(BARE) == 16 * 32 * 4 * 3
    assert config_from_json(config_to_json(MODEL)) == MODEL
    family = family_of(MODEL)
    layers = [family.layer_of(MODEL, path, "beit") for path in ("encoder/patch_embed/kernel", "head/kernel")]
    assert layers == [0, 2]


def test_logits_of_pixels_are_added_from_the_convolutions_before_the_patches():
    backbone = replace(BARE, stem=(4,))
    config = LinearSegConfig(backbone, num_classes=3, norm="layer", detail=True)
    params, images = parameters(config), pixels()
    found = jax.jit(functions(config).apply)(params, images)
    assert found.shape == (2, 16, 16, 3)
    plain = replace(config, detail=False)
    rest = {name: part for name, part in params.items() if name != "detail"}
    coarse = jax.jit(functions(plain).apply)(rest, images)
    _, values = functions(backbone).bind(params["encoder"])(images, capture="stem")
    added = values["stem"] @ params["detail"]["kernel"]
    np.testing.assert_allclose(found, resized(coarse, (16, 16)) + added, rtol=1e-4, atol=1e-4)
    assert parameter_count(config) == trees.count(functions(config).abstract)
    assert forward_macs(config) - forward_macs(plain) == 16 * 16 * 4 * 3
    strided = replace(BARE, stem=(4, 6), stem_strides=(1, 2), patch_size=2)
    assert replace(config, encoder=strided).detail_level.name == "stem/0"
    for encoder in (BARE, replace(strided, stem_strides=(2, 1))):
        with pytest.raises(
            ConfigError,
            match="detail is True, but the backbone has no convolutions of single pixels before its",
        ):
            replace(config, encoder=encoder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(taps=(0, 2)), r"taps is \(0, 2\); it must be numbers of blocks, 0 to 1"),
        (dict(norm="group"), "norm is 'group'; it must be one of batch, layer"),
        (dict(cells=0), "cells"),
        (dict(dropout_rate=1.0), r"dropout_rate is 1\.0"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(MODEL, **changes)
