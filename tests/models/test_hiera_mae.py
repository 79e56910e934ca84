"""Masked autoencoding with Hiera: whole mask units are hidden, and nothing of them is seen."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.models.test_hiera import TINY, configuration, products
from tests.tiny import functions, parameters, pixels
from tests.weights.checks import refused
from tests.weights.models import assert_same, flat, opened, write
from tests.weights.test_layouts import arrays_of, pth
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.families import family_of
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.hiera.mae_config import HieraMaeConfig
from vit_jax.models.hiera.names import AUTHORS, TRANSFORMERS
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.names.resolve import resolve
from vit_jax.objectives.mae.objective import Mae, autoencoder_of, build
from vit_jax.objectives.mae.options import MaeOptions
from vit_jax.weights.layouts.meta.hiera import mae_rules
from vit_jax.weights.load import open_pretrained

# 2x2 mask units of 4x4 tokens, each of which ends as one token that predicts 16x16 pixels.
ENCODER = replace(TINY, num_classes=0, depths=(1, 1, 2))
WHOLE = HieraMaeConfig(ENCODER, 32, 1, 1, 64)
NOISE = jnp.asarray([[0.3, 0.1, 0.9, 0.5], [0.8, 0.7, 0.2, 0.6]])
VARIANTS = {
    "whole": WHOLE,
    "less pooling": replace(WHOLE, encoder=replace(ENCODER, pooled_stages=1)),
    "small units": replace(WHOLE, encoder=replace(ENCODER, pooled_stages=1, mask_unit=2, windowed_stages=1)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_counted_and_goes_through_json(name):
    config = VARIANTS[name]
    assert parameter_count(config) == trees.count(functions(config).abstract)
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config
    noise = jnp.zeros((1, config.units))
    assert forward_macs(config, 0.5) == products(config, noise, 0.5)
    paths = trees.flatten(functions(config).abstract)
    layers = {path: family_of(config).layer_of(config, path, "timm") for path in paths}
    assert {layer for path, layer in layers.items() if not path.startswith("encoder/")} == {5}


def test_published_ones_have_the_size_of_their_parts():
    name, config = resolve("facebook/hiera-base-plus-224-mae-hf")
    assert (name, config.units, config.grid, config.patch_size) == (name, 49, (14, 14), (16, 16))
    assert parameter_count(config) == trees.count(functions(config).abstract)


@pytest.mark.parametrize("name", ["whole", "less pooling"])
def test_hidden_pixels_are_not_seen_and_predictions_stand_in_place(name):
    config, images = VARIANTS[name], pixels(2, 32, 32)
    apply = jax.jit(lambda params, images: functions(config).apply(params, images, NOISE, 0.5))
    params = parameters(config)
    predicted, mask = apply(params, images)
    n = config.grid[0] * config.grid[1]
    assert (predicted.shape, mask.shape) == ((2, n, config.patch_size[0] ** 2 * 3), (2, n))
    units = np.asarray([[0, 0, 1, 1], [1, 1, 0, 0]]).reshape(2, 2, 2)  # with the smallest noise stay
    side = config.grid[0] // 2
    np.testing.assert_array_equal(mask.reshape(2, *config.grid), np.kron(units, np.ones((1, side, side))))
    hidden = np.kron(units, np.ones((1, 16, 16)))[..., None] > 0
    np.testing.assert_array_equal(apply(params, jnp.where(hidden, 7.0, images))[0], predicted)
    assert np.abs(apply(params, jnp.where(hidden, images, 7.0))[0] - predicted).max() > 0.1
    # Hidden tokens differ by their positions alone: without these, they are all alike.
    without = {"decoder/pos_embed": jnp.zeros_like(params["decoder"]["pos_embed"])}
    params = trees.unflatten(trees.flatten(params) | without)
    alike = np.asarray(apply(params, images)[0])[np.asarray(mask) > 0].reshape(2, -1, predicted.shape[-1])
    np.testing.assert_allclose(alike, alike[:, :1].repeat(alike.shape[1], 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(encoder=TINY), "the encoder of a masked autoencoder has num_classes 5; it must be 0"),
        (dict(encoder=replace(ENCODER, pool_norm=False)), "has pool_norm False; it must be True"),
        (
            dict(encoder=replace(ENCODER, mask_unit=2, windowed_stages=1)),
            "but 2 pooled_stages pool tokens of several",
        ),
        (dict(decoder_heads=3), "heads is 3, which does not divide width 32"),
        (dict(encoder={}), r"encoder is \{\}; it must be a HieraConfig"),
    ],
)
def test_those_that_cannot_be_are_one_line(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        replace(WHOLE, **fields)
    assert "\n" not in str(caught.value)


def test_the_objective_asks_the_family():
    options = MaeOptions(
        mask_ratio=0.5, decoder_width=32, decoder_depth=1, decoder_heads=1, decoder_mlp_dim=64
    )
    objective = build(TINY, options, None)
    assert (objective.network, objective.encoder) == (
        replace(WHOLE, encoder=replace(TINY, num_classes=0)),
        "encoder",
    )
    prepared = objective.prepare({"image": jnp.zeros((3, 32, 32, 3), jnp.uint8)}, jax.random.key(0))
    assert prepared["noise"].shape == (3, 4)
    with pytest.raises(
        ConfigError, match="'hiera_mae' cannot be trained as a masked autoencoder; choose one of"
    ):
        autoencoder_of(WHOLE)
    with pytest.raises(ConfigError, match=r"mask_ratio is 0\.0, which hides none of the 4"):
        Mae(ENCODER, MaeOptions(mask_ratio=0.0))


def test_it_learns_from_digits(compile_cache, tmp_path):
    config = configuration()
    config.duration = "24 steps"
    config.objective = {
        "name": "mae", "mask_ratio": 0.5, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2,
    }  # fmt: skip
    config.model.update(depths=(1, 1, 1), num_classes=0)
    config.optimizer.layer_decay = 1.0
    result = vit_jax.train(config, tmp_path / "mae")
    assert result.metrics["loss"] < 1.0  # normalised pixels have a variance of 1
    tuned = open_pretrained(tmp_path / "mae", num_classes=10)
    assert sorted(tuned.report.new) == ["head/bias", "head/kernel"]


# ---- files


@pytest.mark.parametrize("name", VARIANTS)
def test_transformers_files_are_read_again(name, tmp_path):
    config = replace(VARIANTS[name], encoder=replace(VARIANTS[name].encoder, preprocessing=TRANSFORMERS))
    write(config, tmp_path / "model", "hf")
    read, params = opened(tmp_path / "model")
    assert replace(read, encoder=replace(read.encoder, preprocessing=TRANSFORMERS)) == config
    assert_same(flat(config), params)
    encoder = open_pretrained(
        tmp_path / "model", num_classes=5, pooled_stages=2, mask_unit=4, windowed_stages=2
    )
    assert encoder.config == replace(TINY, depths=(1, 1, 2), preprocessing=encoder.config.preprocessing)
    assert sorted(encoder.report.new) == ["head/bias", "head/kernel"]


def test_the_authors_file(tmp_path):
    arrays = {name: make() for rule in mae_rules(WHOLE) for name, make in rule.write(numpy(WHOLE))}
    arrays["encoder_norm.weight"] = arrays.pop("head.norm.weight")
    arrays["encoder_norm.bias"] = arrays.pop("head.norm.bias")
    path = pth(tmp_path / "mae_hiera_tiny_224.pth", lambda tensors: {"model_state": tensors}, arrays)
    read, params = opened(path)
    assert read == replace(WHOLE, encoder=replace(ENCODER, preprocessing=AUTHORS))
    assert_same(flat(WHOLE), params)
    del arrays["decoder_embed.weight"]
    path = pth(tmp_path / "broken.pth", lambda tensors: {"model_state": tensors}, arrays)
    refused(lambda: open_pretrained(path), "lacks arrays of a decoder")


def test_a_decoder_that_does_not_fit_is_one_line(tmp_path):
    arrays, documents = arrays_of(
        replace(WHOLE, encoder=replace(ENCODER, preprocessing=TRANSFORMERS)), tmp_path, "hf"
    )
    assert arrays["decoder.decoder_pred.weight"].shape == (768, 32)
    (tmp_path / "made" / "config.json").write_text(
        json.dumps({**documents["config.json"], "decoder_num_heads": 3})
    )
    refused(lambda: open_pretrained(tmp_path / "made"), "heads is 3, which does not divide width 32")


def numpy(config):
    return {path: np.asarray(leaf) for path, leaf in flat(config).items()}
