"""What is written is read again, bit for bit, by whatever format; what a format cannot express is said."""

import json

import ml_dtypes
import numpy as np
import pytest

from tests.tiny import functions, parameters, pixels
from tests.weights.checks import refused
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
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.preprocessing import IMAGENET, INCEPTION, Preprocessing
from vit_jax.models.text.config import ImageTextConfig
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
        "metaclip": replace(CLIP_PAIR, text=replace(CLIP_PAIR.text, eos_token=2)),
        "siglip": SIGLIP_PAIR,
        "clip image": replace(CLIP_PAIR.image, num_classes=0, head_bias=False),
        "clip image projected": CLIP_PAIR.image,
        "clip classifier": replace(CLIP_PAIR.image, pool="mean", pool_norm="none", num_classes=5, head_bias=True),
        "clip text": replace(CLIP_PAIR.text, num_classes=0),
        "clip text projected": CLIP_PAIR.text,
        "clip text, first": replace(CLIP_PAIR.text, pool="first", eos_token=0),
        "clip features": replace(
            CLIP_PAIR.image, pool="mean", pool_norm="none", num_classes=0, head_bias=True
        ),
        "clip text, highest": replace(CLIP_PAIR.text, pool="argmax", eos_token=2),
        "siglip image": SIGLIP_PAIR.image,
        "siglip classifier": replace(SIGLIP_PAIR.image, pool="mean", num_classes=5),
        "siglip features": replace(SIGLIP_PAIR.image, pool="mean"),
        "siglip2 image": replace(SIGLIP_PAIR.image, resample="bilinear", resample_antialias=True),
        "siglip text": SIGLIP_PAIR.text,
        "distilled, one head": replace(PLAIN, distillation_token=True, distillation_head=False),
        "distilled pooler": replace(
            PLAIN, distillation_token=True, distillation_head=False, num_classes=0, representation_size=24
        ),
        "data2vec": replace(BEIT, num_classes=0, pool_norm="none"),
        "pixels of another stride": replace(PLAIN, num_classes=192, pool="patches", mask_token=True),
        "dinov3 without registers": replace(DINOV3, register_tokens=0),
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
        (replace(PLAIN, norm_epsilon=1e-3), "timm", "norm_epsilon", "timm cannot express norm_epsilon 0.001"),
        (
            replace(PLAIN, pool="mean"),
            "hf",
            "pool",
            "transformers cannot express pool mean, which becomes cls",
        ),
        (PLAIN, "npz", "activation", "Google's npz cannot express activation gelu"),
        (
            replace(PLAIN, qk_norm=True),
            "hf",
            "blocks/attn",
            "transformers has no place for blocks/attn/k_norm/bias",
        ),
        (replace(PLAIN, in_channels=2), "npz", "", "Google's npz cannot express"),
        (MAE, "timm", "", "timm has no Mae"),
        (MAE, "npz", "", "Google's npz has no Mae; load one part of it"),
        (CLIP_PAIR, "npz", "", "has no place for"),
        (
            replace(CLIP_PAIR.image, head_bias=True),
            "hf",
            "",
            "transformers' CLIP classifies the mean of patches",
        ),
        (replace(SIGLIP_PAIR.image, num_classes=5), "hf", "", "transformers' SigLIP classifies the mean"),
        (
            ImageTextConfig(SIGLIP_PAIR.image, replace(CLIP_PAIR.text, num_classes=32)),
            "hf",
            "",
            "no pair of one CLIP tower and one SigLIP tower",
        ),
        (replace(PLAIN, distillation_token=True, distillation_head=False), "timm", "", "read both tokens"),
        (HYBRID, "hf", "", "transformers has no place for backbone"),
        (replace(PLAIN, head_batch_norm=True), "hf", "", "transformers .* head_norm"),
        (replace(PLAIN, head_batch_norm=True), "timm", "", "timm .* head_"),
        (replace(PLAIN, head_batch_norm=True), "npz", "", "npz .* head_"),
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
        assert f"not expressed by {LIBRARIES[format]}: {lost}" in said


@pytest.mark.parametrize(
    ("problem", "classes", "word"),
    [
        ("single_label", 5, "single_label_classification"),
        ("multi_label", 5, "multi_label_classification"),
        ("regression", 5, "regression"),
        ("regression", 1, "regression"),
        ("single_label", 1, "multi_label_classification"),
    ],
)
def test_what_outputs_mean_travels(problem, classes, word, tmp_path):
    config = replace(PLAIN, problem=problem, num_classes=classes)
    assert config.problem == (problem if classes > 1 or problem == "regression" else "multi_label")
    for format in ("timm", "hf", "orbax"):
        write(config, tmp_path / format, format)
        assert open_pretrained(tmp_path / format).config.problem == config.problem, format
        headless = open_pretrained(tmp_path / format, num_classes=0).config.problem
        assert (headless, open_pretrained(tmp_path / format, num_classes=3).config.problem) == (
            "single_label",
            "single_label",
        )
    about = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert about["problem_type"] == word
    said = write(replace(GOOGLE, problem=problem, num_classes=classes), tmp_path / "model.npz", "npz")
    lost = (classes > 1 and problem != "single_label") or (classes == 1 and problem == "regression")
    assert ("not expressed by Google's npz: problem" in said) == lost
    for format in ("timm", "hf"):
        path = tmp_path / format / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "problem_type": "multilabel"}))
        refused(
            lambda path=path: open_pretrained(path.parent), "problem_type 'multilabel'; it must be one of"
        )


def test_one_label_of_which_nothing_is_said_is_a_sigmoid(tmp_path):
    write(replace(PLAIN, num_classes=1), tmp_path, "hf")
    about = json.loads((tmp_path / "config.json").read_text())
    for said in (None, "single_label_classification"):
        (tmp_path / "config.json").write_text(json.dumps({**about, "problem_type": said}))
        assert open_pretrained(tmp_path).config.problem == "multi_label"


def test_a_trained_head_is_not_to_be_lost(tmp_path):
    with pytest.raises(ConfigError, match=r"no place for head_distillation/bias; choose another format\.$"):
        write(
            replace(GOOGLE, distillation_token=True),
            tmp_path / "m.npz",
            "npz",
            ignore=("distillation_token",),
        )


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
