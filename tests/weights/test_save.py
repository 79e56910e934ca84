"""What is written is read again, bit for bit, by whatever format; what a format cannot say is said."""

import ml_dtypes
import numpy as np
import pytest

from tests.tiny import functions, parameters, pixels
from tests.weights.models import (
    BEIT,
    CLIP_PAIR,
    DINOV2,
    DINOV3,
    GOOGLE,
    HYBRID,
    MAE,
    PLAIN,
    SIGLIP_PAIR,
    SQUASH,
    WHOLE,
    assert_same,
    computing,
    flat,
    opened,
    write,
)
from vit_jax.errors import ConfigError
from vit_jax.models.encoder_config import replace
from vit_jax.models.preprocessing import IMAGENET, INCEPTION, Preprocessing
from vit_jax.weights.load import load, open_pretrained
from vit_jax.weights.save import LIBRARIES, save

ROUND_TRIPS = {
    "timm": {
        "plain": PLAIN,
        "no head": replace(PLAIN, num_classes=0),
        "mean": replace(PLAIN, pool="mean", pool_norm="after"),
        "no class token": replace(PLAIN, class_token=False, pool="mean"),
        "map": replace(PLAIN, class_token=False, pool="map"),
        "registers": replace(PLAIN, register_tokens=2, class_position=False),
        "scaled": replace(PLAIN, layer_scale=0.1, qkv_bias=False, qk_norm=True),
        "pre_norm": replace(PLAIN, pre_norm=True, patch_bias=False, norm_epsilon=1e-5, activation="quick_gelu"),
        "distilled": replace(PLAIN, distillation_token=True),
        "swiglu": replace(PLAIN, mlp="swiglu", layer_scale=0.1, activation="silu", mlp_dim=48),
        "beit": BEIT,
        "beit shared": replace(BEIT, position_bias="shared"),
        "grey": replace(PLAIN, in_channels=1),
        "wide images": replace(PLAIN, image_size=(16, 24)),
        "dinov3": replace(DINOV3, mask_token=False),
    },
    "hf": {
        "plain": PLAIN,
        "no head": replace(PLAIN, num_classes=0),
        "pooler": replace(PLAIN, num_classes=0, representation_size=24),
        "pixels": replace(PLAIN, num_classes=48, pool="patches", mask_token=True),
        "distilled": replace(PLAIN, distillation_token=True),
        "no bias": replace(PLAIN, qkv_bias=False),
        "ijepa": replace(PLAIN, class_token=False, pool="mean"),
        "beit": BEIT,
        "beit codes": replace(BEIT, pool="patches", pool_norm="before", mask_token=True),
        "dinov2": DINOV2,
        "dinov2 registers": replace(DINOV2, register_tokens=2),
        "dinov2 swiglu": replace(DINOV2, mlp="swiglu", mlp_dim=88),
        "dinov3": DINOV3,
        "dinov3 gated": replace(DINOV3, mlp="swiglu", activation="silu"),
        "mae": MAE,
        "clip": CLIP_PAIR,
        "siglip": SIGLIP_PAIR,
    },
    "npz": {
        "google": GOOGLE,
        "pre_logits": replace(GOOGLE, representation_size=24),
        "no class token": replace(GOOGLE, class_token=False, pool="mean"),
        "class without position": replace(GOOGLE, class_position=False),
        "sincos": replace(
            GOOGLE, position="sincos2d_big_vision", class_token=False, pool="mean", image_size=224, patch_size=32
        ),
        "map": replace(GOOGLE, class_token=False, pool="map"),
        "hybrid": HYBRID,
        "siglip": replace(SIGLIP_PAIR, image=replace(SIGLIP_PAIR.image, preprocessing=SQUASH)),
    },
    "orbax": {"plain": PLAIN, "mae": MAE, "clip": CLIP_PAIR, "hybrid": HYBRID},
}  # fmt: skip


@pytest.mark.parametrize(
    ("format", "kind"), [(format, kind) for format, kinds in ROUND_TRIPS.items() for kind in kinds]
)
def test_a_model_is_read_as_it_was_written(format, kind, tmp_path):
    config = ROUND_TRIPS[format][kind]
    path = tmp_path / ("model.npz" if format == "npz" else "model")
    write(config, path, format)
    read, params = opened(path, native_size=True)
    assert computing(read) == computing(config)
    assert_same(flat(config), params)


@pytest.mark.parametrize(("format", "name"), [("timm", "model"), ("hf", "model"), ("npz", "model.npz")])
def test_arrays_of_fewer_bits(format, name, tmp_path):
    write(GOOGLE, tmp_path / name, format, dtype="bfloat16")
    ours, read = flat(GOOGLE), opened(tmp_path / name)[1]
    for path, array in read.items():
        assert array.dtype == np.float32
        rounded = np.asarray(ours[path]).astype(ml_dtypes.bfloat16).astype(np.float32)
        assert np.array_equal(array, rounded), path


def test_names_of_classes_travel(tmp_path):
    names = ("ant", "bee", "cow", "dog", "eel")
    for format in ("timm", "hf", "orbax"):
        write(PLAIN, tmp_path / format, format, class_names=names)
        assert open_pretrained(tmp_path / format).class_names == names
        assert open_pretrained(tmp_path / format, num_classes=7).class_names == ()
    with pytest.raises(ConfigError, match="2 names; the model has 5"):
        write(PLAIN, tmp_path / "other", "hf", class_names=names[:2])


@pytest.mark.parametrize("format", ["timm", "hf"])
@pytest.mark.parametrize(
    "preprocessing",
    [
        IMAGENET,
        INCEPTION,
        SQUASH,
        WHOLE,
        replace(IMAGENET, interpolation="bilinear", crop=1.0),
        Preprocessing((0.25, 0.5, 0.75), (0.25, 0.5, 1.0), "lanczos", 0.5),
        Preprocessing((0.4,), (0.2,), "nearest", 1.0, "squash"),
    ],
)
def test_preprocessing_travels(format, preprocessing, tmp_path):
    config = replace(PLAIN, preprocessing=preprocessing)
    write(config, tmp_path, format)
    read = open_pretrained(tmp_path).config.preprocessing
    assert read.resized((16, 16)) == preprocessing.resized((16, 16))
    for field in ("interpolation", "crop_mode"):
        assert getattr(read, field) == getattr(preprocessing, field)
    assert np.allclose(np.broadcast_to(preprocessing.mean, 3), read.mean, rtol=1e-6)
    assert np.allclose(np.broadcast_to(preprocessing.std, 3), read.std, rtol=1e-6)
    crops = read.resized((16, 16)) != (16, 16)
    if format == "hf" and crops:
        assert read.crop_rounding == preprocessing.crop_rounding


@pytest.mark.parametrize(
    ("config", "format", "lost", "why"),
    [
        (replace(PLAIN, pool="cls_mean"), "timm", "", "timm has no pool 'cls_mean'"),
        (replace(PLAIN, norm_epsilon=1e-3), "timm", "norm_epsilon", "timm cannot say norm_epsilon 0.001"),
        (replace(PLAIN, pool="mean"), "hf", "pool", "transformers cannot say pool mean, which becomes cls"),
        (PLAIN, "npz", "activation", "Google's npz cannot say activation gelu"),
        (
            replace(PLAIN, qk_norm=True),
            "hf",
            "blocks/attn",
            "transformers has no place for blocks/attn/k_norm/bias",
        ),
        (replace(PLAIN, in_channels=2), "npz", "", "Google's npz cannot say"),
        (MAE, "timm", "", "timm has no Mae"),
        (MAE, "npz", "", "Google's npz holds image encoders"),
        (CLIP_PAIR, "npz", "", "has no place for"),
        (SIGLIP_PAIR.text, "hf", "", "transformers has no model of a text tower alone"),
        (HYBRID, "hf", "", "transformers has no place for backbone"),
    ],
)
def test_what_a_format_cannot_say_is_an_error(config, format, lost, why, tmp_path):
    target = tmp_path / "model"
    with pytest.raises(ConfigError, match=why) as raised:
        write(config, target, format)
    assert str(raised.value).isprintable()
    assert not target.exists()
    if lost:
        ignore = (lost, "preprocessing.mean", "preprocessing.std") if format == "npz" else (lost,)
        ignore += ("qk_norm",) if "qk" in why or "k_norm" in why else ()
        said = write(config, target, format, ignore=ignore)
        assert f"not said by {LIBRARIES[format]}: {lost}" in said


def test_an_entry_that_loses_nothing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="ignore has 'depth', but timm loses nothing"):
        write(PLAIN, tmp_path / "model", "timm", ignore=("depth",))


def test_wrong_words_are_errors(tmp_path):
    for options, why in (
        (dict(format="onnx"), "format is 'onnx'"),
        (dict(format="hf", dtype="int8"), "dtype is"),
    ):
        with pytest.raises(ConfigError, match=why):
            write(PLAIN, tmp_path, **options)
    write(PLAIN, tmp_path / "ours", "orbax")
    with pytest.raises(ConfigError, match="already holds a model"):
        write(PLAIN, tmp_path / "ours", "orbax")


@pytest.mark.parametrize("format", ["timm", "hf"])
def test_positions_have_the_slots_that_a_library_wants(format, tmp_path):
    registers = 2 if format == "timm" else 0
    layer_scale = 0.1 if format == "timm" else None
    config = replace(
        PLAIN, register_tokens=registers, layer_scale=layer_scale, class_position=format == "timm"
    )
    model = functions(config).bind(parameters(config))
    save(model, tmp_path, format)
    again = load(tmp_path, verbose=False)
    assert again.config.class_position != config.class_position
    images = pixels()
    assert np.allclose(model(images), again(images), atol=1e-5)


def test_our_own_format_refuses_what_it_would_not_do(tmp_path):
    for name, option in (("dtype", {"dtype": "bfloat16"}), ("ignore", {"ignore": ["norm_epsilon"]})):
        with pytest.raises(ConfigError, match=f"keeps everything, in float32; leave out {name}"):
            write(PLAIN, tmp_path / "ours", "orbax", **option)
    assert not (tmp_path / "ours").exists()
