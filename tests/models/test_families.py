"""What the families say of themselves, and that nothing written before they had a tag is lost."""

import jax
import numpy as np
import pytest

from tests.tiny import TINY, parameters, pixels, tiny
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.families import family_of, image_config, is_image_encoder, part_config
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.heads.dino.config import DinoHeadConfig
from vit_jax.models.heads.upernet.config import UperNetConfig
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.registry import model_functions
from vit_jax.models.text.config import ImageTextConfig, TextConfig

TEXT = TextConfig(
    width=32, depth=2, heads=2, mlp_dim=64, vocab_size=50, context_length=8, num_classes=5, eos_token=49
)
BACKBONE = tiny(num_classes=0, pool="none", pool_norm="none")
CONFIGS = {
    "vit": TINY,
    "mae": MaeConfig(tiny(num_classes=0, pool="none"), tiny(num_classes=48, pool="patches")),
    "text": TEXT,
    "image_text": ImageTextConfig(TINY, TEXT, True),
    "dino_head": DinoHeadConfig(8, 16, 4, 10),
    "upernet": UperNetConfig(BACKBONE, 3, taps=(0, 1, 2, 2), auxiliary_channels=4, auxiliary_concat=True),
}


def untagged(document):
    """A document as it was written before configurations said their family."""
    if not isinstance(document, dict):
        return document
    return {name: untagged(value) for name, value in document.items() if name != "family"}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_says_its_family_and_is_read_without_it_too(name):
    config = CONFIGS[name]
    document = config_to_json(config)
    assert (document["family"], family_of(config).name) == (name, name)
    assert config_from_json(document) == config_from_json(untagged(document)) == config


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"family": "swin2000"}, "family 'swin2000' is not known; known are vit, "),
        ({"family": "vit", "widht": 8}, "'widht' is not a model option. Did you mean 'width'"),
        ({"family": "mae", "encoder": config_to_json(TINY)}, "family 'mae' is incomplete"),
        ({"encoder": 3, "decoder": {}}, "a model's configuration is 3"),
    ],
)
def test_documents_of_no_model_are_errors(document, message):
    with pytest.raises(ConfigError, match=message):
        config_from_json(document)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_counted_right(name):
    assert parameter_count(CONFIGS[name]) == trees.count(model_functions(CONFIGS[name]).abstract)
    assert forward_macs(CONFIGS[name]) > 0


def test_the_encoder_of_images_and_of_texts_is_found():
    encoders = {name: part_config(config, "image") for name, config in CONFIGS.items()}
    assert encoders["vit"] == encoders["image_text"] == TINY
    assert (encoders["upernet"], encoders["text"], encoders["dino_head"]) == (BACKBONE, None, None)
    assert [name for name, config in CONFIGS.items() if is_image_encoder(config)] == ["vit"]
    assert part_config(CONFIGS["image_text"], "text") == TEXT
    with pytest.raises(ConfigError, match="a model of family 'text' does not take images"):
        image_config(TEXT)
    with pytest.raises(ConfigError, match="str is not the configuration of a known family"):
        family_of("vit")


def test_maps_of_a_vision_transformer_are_its_patches_in_place():
    config = tiny(class_token=True, register_tokens=2)
    functions, images = model_functions(config), pixels()
    encoded, third = functions.features(parameters(config), {}, images, levels=["encoded", "blocks/0"])
    _, captured = jax.jit(functions.apply, static_argnames="capture")(
        parameters(config), images, capture=("encoded", "blocks/0")
    )
    assert encoded.shape == third.shape == (2, 4, 4, 32)
    np.testing.assert_allclose(encoded[:, 1, 2], captured["encoded"][:, 3 + 6], atol=1e-5)
    np.testing.assert_allclose(third[:, 3, 3], captured["blocks/0"][:, -1], atol=1e-5)
