"""Tiny models of every family, and what the tests of reading and writing them share."""

import dataclasses

import numpy as np

from tests.tiny import TINY, parameters
from vit_jax import trees
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.preprocessing import CLIP, IMAGENET, INCEPTION, Preprocessing
from vit_jax.models.text.config import ImageTextConfig, TextConfig
from vit_jax.models.vit.resnet_config import ResNetConfig
from vit_jax.weights.load import open_pretrained
from vit_jax.weights.save import save_parameters

SQUASH = Preprocessing(interpolation="bilinear", crop=1.0, crop_mode="squash")
WHOLE = Preprocessing(CLIP.mean, CLIP.std, "bicubic", 1.0, "center", "down")
# Widths and heads are such that files without a description say them too: published heads are 64 wide, or 2 of 16.
PLAIN = replace(TINY, init="trunc_normal", preprocessing=IMAGENET)
GOOGLE = replace(TINY, activation="gelu_tanh", resample="zoom", preprocessing=SQUASH)
BEIT = replace(
    PLAIN, position="none", position_bias="blocks", k_bias=False, layer_scale=0.1, pool="mean", pool_norm="after",
    preprocessing=INCEPTION,
)  # fmt: skip
DINOV2 = replace(PLAIN, layer_scale=1.0, mask_token=True, pool="cls_mean", resample_antialias=False)
DINOV3 = replace(
    PLAIN, position="none", rope="dinov3", k_bias=False, layer_scale=1.0, register_tokens=2, num_classes=0,
    norm_epsilon=1e-5, dynamic_image_size=True, mask_token=True,
)  # fmt: skip
HYBRID = replace(
    GOOGLE, patch_size=1, image_size=32, backbone=ResNetConfig((1, 2), (128, 128), 32, "google"),
)  # fmt: skip
MAE = MaeConfig(
    replace(PLAIN, num_classes=0),
    replace(PLAIN, width=32, heads=2, depth=1, num_classes=48, pool="patches"),
)
_TEXT = TextConfig(
    width=32, depth=2, heads=2, mlp_dim=64, vocab_size=50, context_length=8, num_classes=16, eos_token=49,
    pool="eos", activation="quick_gelu", norm_epsilon=1e-5, init="trunc_normal",
)  # fmt: skip
CLIP_PAIR = ImageTextConfig(
    replace(
        PLAIN, num_classes=16, head_bias=False, patch_bias=False, pre_norm=True, activation="quick_gelu",
        norm_epsilon=1e-5, preprocessing=WHOLE,
    ),
    _TEXT,
)  # fmt: skip
SIGLIP_PAIR = ImageTextConfig(
    replace(
        GOOGLE, num_classes=0, class_token=False, pool="map",
        preprocessing=dataclasses.replace(SQUASH, interpolation="bicubic"),
    ),
    replace(
        _TEXT, num_classes=32, head_bias=True, causal=False, pool="last", eos_token=0, activation="gelu_tanh",
        norm_epsilon=1e-6, init="jax",
    ),
    True,
)  # fmt: skip


def flat(config, seed=0):
    return trees.flatten(parameters(config, seed))


def write(config, path, format, **options):
    return save_parameters(config, flat(config), path, format, **options)


def opened(source, **options):
    """The configuration and parameters of a checkpoint."""
    pretrained = open_pretrained(source, **options)
    return pretrained.config, trees.flatten(pretrained.params())


def assert_same(ours, other):
    """Parameters have the same names and bits."""
    assert sorted(ours) == sorted(other)
    for path, array in ours.items():
        assert np.array_equal(np.asarray(array), np.asarray(other[path])), path


def computing(config):
    """A configuration without what says how a model is trained."""
    if isinstance(config, MaeConfig | ImageTextConfig):
        parts = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        return type(config)(
            **{name: part if isinstance(part, bool) else computing(part) for name, part in parts.items()}
        )
    neutral = dict(init="jax", unroll=0, layer_scale=config.layer_scale and 1.0)
    own = ("dynamic_image_size", "resample", "resample_antialias", "resample_offset", "bias_resample")
    neutral |= {
        name: type(config).__dataclass_fields__[name].default for name in own if hasattr(config, name)
    }
    if hasattr(config, "preprocessing"):
        # What counts of a crop is the size that images are resized to.
        crop = config.image_size[0] / config.preprocessing.resized(config.image_size)[0]
        neutral["preprocessing"] = dataclasses.replace(config.preprocessing, crop=crop, crop_rounding="even")
    if getattr(config, "pool", "") == "last":
        neutral["eos_token"] = 0
    if config.mlp == "swiglu":  # gated by SiLU, whatever it says
        neutral["activation"] = "silu"
    return replace(config, **neutral)
