"""Real modules have the published number of parameters; shapes only, nothing is computed."""

import jax
import pytest

from tests.models.test_flops import HEADLESS, MEAN, SIGLIP, TOKEN, model
from tests.models.test_functional import EVERYTHING
from tests.tiny import tiny
from vit_jax import trees
from vit_jax.models.flops import parameter_count
from vit_jax.models.names.resolve import resolve
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.mae.options import MaeOptions
from vit_jax.objectives.registry import build_objective


def count(config):
    return trees.count(model_functions(config).abstract)


@pytest.mark.parametrize("name", TOKEN)
def test_named_models(name):
    assert count(model(name)) == TOKEN[name]


@pytest.mark.parametrize("name", HEADLESS)
def test_without_head(name):
    assert count(model(name, num_classes=0)) == HEADLESS[name]


@pytest.mark.parametrize("name", MEAN)
def test_mean_pooling(name):
    assert count(model(name, class_token=False, pool="mean")) == MEAN[name]


@pytest.mark.parametrize(
    ("name", "changes", "published"),
    [
        ("vit_base_patch16_224", dict(num_classes=21843, representation_size=768), 103_186_515),
        ("vit_small_patch14_518", {}, 22_056_192),
        ("vit_small_patch14_518", dict(register_tokens=4, class_position=False), 22_057_344),
        ("vit_base_patch14_518", {}, 86_579_712),
        ("vit_large_patch14_518", {}, 304_367_616),
        ("vit_giantopt_patch14_518", dict(heads=24, mlp="swiglu", mlp_dim=4096), 1_136_479_232),
    ],
)
def test_original_and_dinov2(name, changes, published):
    dinov2 = dict(num_classes=0, layer_scale=1e-5) if "518" in name else {}
    assert count(model(name, **dinov2, **changes)) == published


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("vit_base_patch16_224", 92_884_224),
        ("vit_large_patch16_256", 315_956_224),
        ("vit_so400m_patch14_378", 428_225_600),
        ("vit_giantopt_patch16_256", 1_163_168_256),
    ],
)
def test_siglip_towers(name, published):
    assert count(model(name, **SIGLIP)) == published


# Published totals include the two fixed tables of positions, encoder's and decoder's.
@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("vit_base_patch16_224", 111_907_840),
        ("vit_large_patch16_224", 329_541_888),
        ("vit_huge_patch14_224", 657_074_508),
    ],
)
def test_masked_autoencoders(name, total):
    config = model(name)
    objective = build_objective(MaeOptions(), config, DataInfo(1000))
    params, _ = jax.eval_shape(objective.init, jax.random.key(0))
    assert trees.count(params) == total - (config.num_patches + 1) * (config.width + 512)
    if name == "vit_base_patch16_224":
        assert trees.count(params) == 111_655_680


@pytest.mark.parametrize(
    "name",
    [
        "facebook/vit-mae-base",
        "facebook/dinov2-with-registers-base-imagenet1k-1-layer",
        "microsoft/beit-base-patch16-224-pt22k",
        "openai/clip-vit-base-patch32",
        "google/siglip-base-patch16-224",
        "gs://vit_models/imagenet21k/R50+ViT-B_16.npz",
    ],
)
def test_checkpoints_are_counted_as_they_are(name):
    config = resolve(name)[1]
    assert count(config) == parameter_count(config)


@pytest.mark.parametrize(
    "changes",
    [
        dict(mlp="swiglu", pool="none", qkv_bias=False, patch_bias=False),
        dict(position="sincos2d_mae", pool="mean", class_token=False, register_tokens=3, in_channels=1),
        dict(position="none", class_position=False, image_size=(8, 16), patch_size=(4, 2), num_classes=0),
    ],
)
def test_options_are_counted_as_they_are(changes):
    assert count(tiny(**changes)) == parameter_count(tiny(**changes))


def test_every_option_at_once_is_counted_as_it_is():
    assert count(EVERYTHING) == parameter_count(EVERYTHING)
