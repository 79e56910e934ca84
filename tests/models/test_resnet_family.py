"""ResNets with batch norms: published sizes, maps of any image, statistics, layers; hybrids' are in test_resnet."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import assert_trees_close, functions, pixels, randomised
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.families import family_of
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.layers.convolutional import convolve
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.names.resolve import list_models, resolve
from vit_jax.models.resnet.config import ResNetConfig

TINY = ResNetConfig(image_size=32, num_classes=5, depths=(1, 2), widths=(8, 16), stem_width=8)
KEY = jax.random.key(0)


def call(config, images, key=None, capture=()):
    model = functions(config)
    params, buffers = randomised(model.abstract), randomised(model.abstract_buffers)
    run = jax.jit(model.apply_state, static_argnames="capture")
    return run(params, buffers, images, key, capture=capture), buffers


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("resnet18", 11_689_512, 1.81),
        ("resnet34", 21_797_672, 3.66),
        ("ResNet-50", 25_557_032, 4.09),
        ("microsoft/resnet-101", 44_549_160, 7.80),
        ("resnet152", 60_192_808, 11.51),
        ("wide_resnet50_2", 68_883_240, 11.40),
        ("resnext101_32x8d", 88_791_336, 16.41),
        ("resnext101_64x4d", 83_455_272, 15.46),
    ],
)
def test_published_sizes(name, parameters, gmacs):
    config = resolve(name)[1]
    assert parameter_count(config) == trees.count(functions(config).abstract) == parameters
    assert forward_macs(config) / 1e9 == pytest.approx(gmacs, abs=0.006)


def test_names_and_options():
    sizes = (18, 26, 34, 50, 101, 152)
    assert list_models("resnet*")[: len(sizes)] == [f"resnet{size}" for size in sizes]
    assert resolve("ResNet-34") == resolve("resnet34")
    config = replace(TINY, block="basic", num_classes=0, in_channels=1)
    assert config_from_json(config_to_json(config)) == config
    assert parameter_count(config) == trees.count(functions(config).abstract)
    for changes, message in {
        ("block", "deep"): "block is 'deep'; it must be one of basic, bottleneck",
        ("depths", (1,)): "give one number of each for every stage",
        ("groups", 3): "groups is 3, which does not divide 8 channels",
        ("widths", (8, 0)): "widths is .*; it must be at least 1",
        ("norm_epsilon", 0.0): "norm_epsilon is 0.0; it must be above 0",
    }.items():
        with pytest.raises(ConfigError, match=message):
            replace(TINY, **dict([changes]))
    with pytest.raises(ConfigError, match="groups and width_factor are of bottlenecks"):
        replace(TINY, block="basic", width_factor=2)


def test_captures_are_maps_of_images_of_any_size():
    images, family = pixels(2, 37, 50), family_of(TINY)
    sized = replace(TINY, image_size=(37, 50))
    maps = (*family.levels(sized), *family.maps(sized))
    names = (*(level.name for level in maps), "pre_logits")
    ((out, values), _), _ = call(TINY, images, capture=names)
    assert [level.stride for level in family.levels(sized)] == [(4, 4), (8, 8)]
    for level in maps:
        assert values[level.name].shape == (2, *level.grid, level.channels)
    np.testing.assert_array_equal(values["blocks/2"], values["stages/1"])
    np.testing.assert_allclose(values["pre_logits"], values["stages/1"].mean(axis=(1, 2)), rtol=1e-5)
    assert out.shape == (2, 5)
    (features, _), _ = call(replace(TINY, num_classes=0), images)
    assert features.shape == (2, 64)


def test_statistics_change_in_training_alone_and_not_if_frozen():
    images = pixels(4, 32, 32)
    ((trained, new), buffers), ((plain, same), _) = call(TINY, images, KEY), call(TINY, images)
    assert len(trees.flatten(buffers)) == 2 * (1 + (3 + 1) + (3 + 1) + 3)
    for path, leaf in trees.flatten(new).items():
        assert (leaf != trees.flatten(buffers)[path]).any(), path
    assert_trees_close(same, buffers, rtol=0, atol=0)
    assert np.abs(trained - plain).max() > 0.1
    (frozen, kept), _ = call(replace(TINY, frozen_statistics=True), images, KEY)
    assert_trees_close(kept, buffers, rtol=0, atol=0)
    np.testing.assert_allclose(frozen, plain, rtol=1e-5, atol=1e-5)


def test_a_fresh_block_is_its_shortcut():
    model = functions(TINY)
    params, buffers = model.init_state(KEY)
    capture = ("blocks/1", "blocks/2")
    (_, values), _ = model.apply_state(params, buffers, pixels(), capture=capture)
    np.testing.assert_array_equal(values["blocks/2"], values["blocks/1"])  # which is not negative already


def test_layers_are_counted_from_the_stem_to_the_head():
    family = family_of(TINY)
    paths = ("stem/kernel", "stages/0/0/layers/2/norm/scale", "stages/1/1/layers/0/kernel", "head/bias")
    assert [family.layer_of(TINY, path, "timm") for path in paths] == [0, 1, 3, 4]


def test_one_program_takes_images_of_several_sizes():
    model, stride = functions(TINY), family_of(TINY).any_size(TINY)
    assert stride == (8, 8)
    params, buffers = randomised(model.abstract), randomised(model.abstract_buffers)
    shape = jax.export.symbolic_shape("b, 8*h, 8*w, 3")
    whole = jax.jit(lambda images: model.apply_state(params, buffers, images)[0])
    program = jax.export.export(whole)(jax.ShapeDtypeStruct(shape, jnp.float32))
    given = pixels(2, 16, 40)
    np.testing.assert_allclose(program.call(given), call(TINY, given)[0][0], rtol=1e-4, atol=1e-4)


def test_groups_are_convolutions_of_their_own():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((2, 5, 6, 8), (3, 3, 4, 6)))
    parts = [convolve(x[..., 4 * i : 4 * i + 4], kernel[..., 3 * i : 3 * i + 3], 2, 1) for i in range(2)]
    np.testing.assert_allclose(convolve(x, kernel, 2, 1, 2), jnp.concatenate(parts, -1), rtol=1e-5, atol=1e-5)
