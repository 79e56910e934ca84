"""CvTs of transformers and of the authors: read, written back bit by bit, refused in one line."""

import json

import numpy as np
import pytest

from tests.weights import torch_writer
from tests.weights.checks import refused
from tests.weights.models import assert_same, flat, opened, write
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.cvt.config import CvtConfig
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.weights.formats.arrays import Arrays
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.layouts.microsoft import cvt as microsoft
from vit_jax.weights.load import load
from vit_jax.weights.preprocessing_formats import from_hf
from vit_jax.weights.save import save_parameters

TINY = CvtConfig(image_size=56, num_classes=5, widths=(16, 32, 64), depths=(1, 2, 3), head_dim=16)
AUTHORS = replace(TINY, activation="quick_gelu", head_dim=64, widths=(64, 64, 128), image_size=224)


def arrays_of(path):
    raw = open_checkpoint(path)
    return {name: tensor.read() for name, tensor in raw.tensors.items()}, dict(raw.documents)


@pytest.mark.parametrize(
    "changes",
    [dict(), dict(num_classes=0), dict(num_classes=0, final_norm=False), dict(qkv_bias=False, mlp_ratio=2.0)],
)
def test_transformers_files_come_back_as_they_were(tmp_path, changes):
    config = replace(TINY, **changes)
    write(config, tmp_path / "one", "hf")
    read, params = opened(tmp_path / "one")
    assert read == config
    assert_same(params, flat(config))
    save_parameters(read, params, tmp_path / "two", "hf")
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    arrays, documents = arrays_of(tmp_path / "one")
    named = "CvtModel" if changes.get("final_norm") is False else "CvtForImageClassification"
    assert documents["config.json"]["architectures"] == [named]
    assert any(name.endswith("num_batches_tracked") for name in arrays)


def authors_file(path, config):
    """A file as the authors' code saves it."""
    arrays = Arrays(flat(config), microsoft.rules(config), np.dtype(np.float32), {})
    content = {name: arrays.read(name) for name in arrays.names}
    content["stage0.blocks.0.attn.conv_proj_q.bn.num_batches_tracked"] = np.zeros((), np.int64)
    tensors, storages = torch_writer.state_dict(
        {name: np.ascontiguousarray(array) for name, array in content.items()}
    )
    return torch_writer.save_zip(path, tensors, storages)


@pytest.mark.parametrize("classes", [5, 0])
def test_the_authors_files_are_understood_from_their_shapes(tmp_path, classes):
    config = replace(AUTHORS, num_classes=classes)
    path = authors_file(tmp_path / "CvT-13-224x224-IN-1k.pth", config)
    read, params = opened(path)
    assert read == config
    assert_same(params, flat(config))
    assert opened(path, image_size=384)[0].grids((384, 384))[-1] == (24, 24)
    tiny, _ = opened(authors_file(tmp_path / "tiny.pth", replace(TINY, num_classes=5)), model=TINY)
    assert tiny == TINY


def test_what_changes_when_weights_are_loaded(tmp_path):
    write(TINY, tmp_path / "cvt", "hf")
    other = load(tmp_path / "cvt", num_classes=3, in_channels=1, image_size=(48, 64), verbose=False)
    assert (other.config.num_classes, other.config.image_size) == (3, (48, 64))
    kernel = flat(TINY)["stages/0/embed/kernel"]
    np.testing.assert_allclose(other.stages[0].embed.kernel[...][:, :, 0], np.sum(kernel, axis=2), rtol=1e-6)
    write(replace(TINY, num_classes=0, final_norm=False), tmp_path / "bare", "hf")
    assert load(tmp_path / "bare", num_classes=3, verbose=False).config.final_norm
    for changes in (dict(depths=(1, 2, 4)), dict(strides=(2, 2, 2)), dict(pads=(3, 1, 1)), dict(kv_stride=1)):
        (field,) = changes
        with pytest.raises(CheckpointError, match=rf"{field} is .*its weights do not fit any other value"):
            load(tmp_path / "cvt", **changes)


def test_two_stages_come_back_as_they_were(tmp_path):
    config = replace(TINY, depths=(1, 2), widths=(16, 32), kernels=(7, 3), strides=(2, 2), pads=(2, 1))
    write(config, tmp_path / "two", "hf")
    read, params = opened(tmp_path / "two")
    assert (read.depths, read.widths, read.strides) == ((1, 2), (16, 32), (2, 2))
    assert_same(params, flat(config))


def test_what_transformers_cannot_say_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot express activation quick_gelu, which becomes gelu"):
        write(AUTHORS, tmp_path / "one", "hf")
    with pytest.raises(ConfigError, match=r"depths is \(1, 1, 2\), and transformers makes no CvT"):
        write(replace(TINY, depths=(1, 1, 2)), tmp_path / "two", "hf")
    with pytest.raises(ConfigError, match="timm has no Cvt; choose 'hf' or 'pth' or 'orbax'"):
        write(TINY, tmp_path / "three", "timm")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (dict(stride_q=[1, 1, 2]), "config.json says stride_q [1, 1, 2]; this library knows [1, 1, 1] alone"),
        (dict(cls_token=[True, False, True]), "says cls_token"),
        (dict(qkv_projection_method=["avg"] * 3), "says qkv_projection_method"),
        (dict(depth=[1, 2]), "; it must be 2 values like "),
        (dict(depth=2), "says depth 2; it must be 3 values like 1"),
        (dict(num_heads=[1, 2, 2]), "heads of all stages must be as wide"),
        (dict(mlp_ratio=[4.0, 2.0, 4.0]), "all stages must have the same"),
        (dict(embed_dim="wide"), "says embed_dim 'wide'"),
        (dict(model_type="cvtt"), "Did you mean 'cvt'"),
        (dict(num_heads=[0, 1, 2]), "says num_heads [0, 1, 2]"),
    ],
)
def test_descriptions_of_no_model_are_refused(tmp_path, changes, why):
    write(TINY, tmp_path / "cvt", "hf")
    path = tmp_path / "cvt" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refused(lambda: opened(tmp_path / "cvt"), why)


def test_missing_statistics_are_named(tmp_path):
    path = tmp_path / "cvt.pth"
    arrays = Arrays(flat(AUTHORS), microsoft.rules(AUTHORS), np.dtype(np.float32), {})
    content = {name: arrays.read(name) for name in arrays.names if "running_var" not in name}
    tensors, storages = torch_writer.state_dict(
        {name: np.ascontiguousarray(array) for name, array in content.items()}
    )
    torch_writer.save_zip(path, tensors, storages)
    line = refused(lambda: opened(path), "running_var")
    assert "needed for stages/0/blocks/attn/key/norm/variance" in line


def test_processors_that_crop_a_share():
    natural = dict(image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD), resample=3)
    file = {"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, **natural}
    small = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.875, "center", "down")
    assert from_hf({**file, "size": 224}, (1, 1)) == (small, (224, 224))
    assert from_hf({**file, "size": {"shortest_edge": 224}}, (1, 1)) == (small, (224, 224))
    large = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 1.0, "squash")
    assert from_hf({**file, "size": 384}, (1, 1)) == (large, (384, 384))
