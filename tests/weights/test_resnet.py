"""ResNets of timm, torchvision and transformers: read, written back bit by bit, refused in one line."""

import json

import numpy as np
import pytest

from tests.weights.checks import line_of, refused
from tests.weights.models import assert_same, flat, opened, write
from vit_jax.errors import ConfigError
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.registry import model_config
from vit_jax.models.resnet.config import SIZES, ResNetConfig
from vit_jax.weights.load import load
from vit_jax.weights.save import save_parameters

TINY = ResNetConfig(num_classes=5, depths=(1, 2), widths=(8, 16), stem_width=8)
BASIC = replace(TINY, block="basic", depths=(2, 1))
GROUPS = replace(TINY, groups=4, width_factor=2)


@pytest.mark.parametrize("config", [TINY, replace(TINY, num_classes=0), BASIC, replace(TINY, in_channels=1)])
def test_transformers_files_come_back_as_they_were(tmp_path, config):
    write(config, tmp_path / "one", "hf")
    read, params = opened(tmp_path / "one")
    assert read == config
    assert_same(params, flat(config))
    save_parameters(read, params, tmp_path / "two", "hf")
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    about = json.loads((tmp_path / "one" / "config.json").read_text())
    kind = "ResNetForImageClassification" if config.num_classes else "ResNetModel"
    assert about["architectures"] == [kind]


@pytest.mark.parametrize("config", [TINY, replace(TINY, num_classes=0), BASIC, GROUPS])
def test_torchvisions_files_are_understood_from_their_shapes(tmp_path, config):
    write(config, tmp_path / "resnet.safetensors", "torchvision")
    read, params = opened(tmp_path / "resnet.safetensors")
    assert read == config
    assert_same(params, flat(config))


def test_timms_files_say_what_images_are(tmp_path):
    name = "resnet18"
    preprocessing = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.95)
    config = model_config(name, num_classes=3, image_size=(96, 64), preprocessing=preprocessing)
    write(config, tmp_path / "one", "timm")
    read, params = opened(tmp_path / "one")
    assert read == config
    assert_same(params, flat(config))
    path = tmp_path / "one" / "config.json"
    about = json.loads(path.read_text())
    assert about["architecture"] == name
    path.write_text(json.dumps(about | {"architecture": "resnetblur18"}))
    known = "has architecture 'resnetblur18'; this library's ResNets are resnet18, resnet34"
    refused(lambda: opened(tmp_path / "one"), known)
    path.write_text(json.dumps(about | {"model_args": {"output_stride": 8}}))
    unknown = "has model_args 'output_stride', which this library does not know"
    refused(lambda: opened(tmp_path / "one"), unknown)


@pytest.mark.parametrize(
    ("config", "format", "message"),
    [
        (TINY, "timm", "timm has no ResNet of bottleneck blocks (1, 2)"),
        (GROUPS, "hf", "transformers' ResNet has width_factor 1 always, and this model 2"),
        (replace(TINY, norm_epsilon=1e-3), "hf", "transformers' ResNet has norm_epsilon 1e-05 always"),
        (
            replace(TINY, norm_epsilon=1e-3),
            "torchvision",
            "norm_epsilon is 0.001, which torchvision has as 1e-05",
        ),
    ],
)
def test_what_a_library_does_not_have_is_not_written(tmp_path, config, format, message):
    name = "model.safetensors" if format == "torchvision" else "model"
    assert message in line_of(lambda: write(config, tmp_path / name, format))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"downsample_in_bottleneck": True},
            "says downsample_in_bottleneck True; this library knows False alone",
        ),
        ({"hidden_act": "gelu"}, "says hidden_act 'gelu'; this library knows 'relu' alone"),
        ({"hidden_sizes": "32"}, "says hidden_sizes '32'; it must be a whole number for each stage"),
        ({"hidden_sizes": [30, 64]}, "hidden_sizes is [30, 64]; they must be multiples of 4"),
        ({"depths": [1]}, "depths is (1,) and widths (8, 16); give one number of each for every stage"),
        ({"layer_type": "deep"}, "block is 'deep'; it must be one of basic, bottleneck"),
    ],
)
def test_descriptions_of_other_models_are_refused(tmp_path, changes, message):
    write(TINY, tmp_path / "one", "hf")
    path = tmp_path / "one" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refused(lambda: opened(tmp_path / "one"), message)


def test_what_changes_when_weights_are_loaded(tmp_path):
    write(TINY, tmp_path / "one", "hf")
    other = load(tmp_path / "one", num_classes=3, in_channels=1, image_size=(48, 40), verbose=False)
    assert (other.config.num_classes, other.config.image_size) == (3, (48, 40))
    kernel = flat(TINY)["stem/kernel"]
    np.testing.assert_allclose(other.stem.kernel[...][:, :, 0], np.sum(kernel, axis=2), rtol=1e-6)
    fixed = "groups is 2, but 1 in the checkpoint"
    refused(lambda: load(tmp_path / "one", groups=2, verbose=False), fixed)


def test_names():
    assert {name for name in SIZES if model_config(name) == model_config("ResNet-50")} == {"resnet50"}
    assert model_config("microsoft/resnet-50").preprocessing.interpolation == "bicubic"
    with pytest.raises(ConfigError, match="Did you mean"):
        model_config("resnet51")
