"""MViTv2s of timm and of the authors: read, written back bit by bit, refused in one line."""

import json
import re

import numpy as np
import pytest

from tests.weights import torch_writer
from tests.weights.checks import refused
from tests.weights.models import assert_same, flat, opened, write
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.mvit.attention import resized
from vit_jax.models.mvit.config import MvitConfig
from vit_jax.models.names.resolve import resolve
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.formats.arrays import Arrays
from vit_jax.weights.layouts.meta import mvit as meta
from vit_jax.weights.layouts.timm import mvit as timm
from vit_jax.weights.load import load
from vit_jax.weights.save import save_parameters

TINY = MvitConfig(image_size=32, num_classes=5, width=8, head_dim=8, depths=(1, 2, 3, 1))
WIDE = replace(TINY, widen="mlp", depths=(2, 3, 2, 1), class_token=True, pool="cls", qkv_bias=False)


def timm_arrays(config):
    arrays = Arrays(flat(config), timm.rules(config), np.dtype(np.float32), {})
    return {name: arrays.read(name) for name in arrays.names}


def timm_file(path, config):
    arrays = timm_arrays(config)
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    safetensors_format.write(path, specs, arrays.__getitem__, {})
    return path


@pytest.mark.parametrize("config", [TINY, WIDE], ids=["attention", "mlp"])
def test_arrays_alone_say_what_they_are(tmp_path, config):
    read, params = opened(timm_file(tmp_path / "mvit.safetensors", config))
    assert read == config
    assert_same(params, flat(config))


@pytest.mark.parametrize("config", [TINY, WIDE], ids=["attention", "mlp"])
def test_the_authors_blocks_are_counted_over_the_stages(tmp_path, config):
    arrays, first = {}, [sum(config.depths[:stage]) for stage in range(4)]
    for name, array in timm_arrays(config).items():
        match = re.fullmatch(r"stages\.(\d)\.blocks\.(\d+)\.(.*)", name)
        if match:
            inner = re.sub(r"shortcut_proj_(attn|mlp)", "proj", match[3])
            name = f"blocks.{first[int(match[1])] + int(match[2])}.{inner}"
        arrays[name.replace("head.fc", "head.projection")] = np.ascontiguousarray(array)
    tensors, storages = torch_writer.state_dict(arrays)
    path = torch_writer.save_zip(tmp_path / "MViTv2_T_in1k.pyth", {"model_state": tensors}, storages)
    read, params = opened(path)
    assert read == replace(config, preprocessing=meta.PREPROCESSING)
    assert_same(params, flat(config))
    del arrays["blocks.1.proj.weight"]
    tensors, storages = torch_writer.state_dict(arrays)
    torch_writer.save_zip(path, {"model_state": tensors}, storages)
    refused(lambda: opened(path), "holds 2 layers that widen, but an MViTv2 has 3")


def test_timms_files_come_back_as_they_were(tmp_path):
    config = replace(resolve("mvitv2_tiny")[1], image_size=64, num_classes=3)
    write(config, tmp_path / "one", "timm", class_names=["a", "b", "c"])
    read, params = opened(tmp_path / "one")
    assert read == config
    assert_same(params, flat(config))
    save_parameters(read, params, tmp_path / "two", "timm", class_names=["a", "b", "c"])
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    path = tmp_path / "one" / "config.json"
    about = json.loads(path.read_text())
    assert about["architecture"] == "mvitv2_tiny"
    path.write_text(json.dumps(about | {"model_args": {"expand_attn": False}}))
    refused(lambda: opened(tmp_path / "one"), "config.json has model_args 'expand_attn'")
    path.write_text(json.dumps(about | {"model_args": {"global_pool": "max"}}))
    refused(lambda: opened(tmp_path / "one"), "global_pool is 'max'; it must be one of token, avg")


def test_what_changes_when_weights_are_loaded(tmp_path):
    path = timm_file(tmp_path / "mvit.safetensors", TINY)
    other = load(path, num_classes=3, in_channels=1, image_size=(48, 64), verbose=False)
    assert (other.config.num_classes, other.config.image_size) == (3, (48, 64))
    tables = other.stages[0].runs[0].blocks.attn.positions
    assert (tables.h.shape, tables.w.shape) == ((1, 23, 8), (1, 31, 8))
    before = flat(TINY)["stages/0/runs/0/blocks/attn/positions/w"]
    np.testing.assert_allclose(tables.w[...][0], resized(before[0], 31), rtol=1e-6)
    with pytest.raises(CheckpointError, match=r"patch_stride is 2, but 4 in the checkpoint"):
        load(path, patch_stride=2)
    with pytest.raises(CheckpointError, match=r"width is 16, but 8 in the checkpoint"):
        load(path, width=16)


def test_what_cannot_be_written_or_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"timm has no MViTv2 of width 8 and depths"):
        write(TINY, tmp_path / "one", "timm")
    with pytest.raises(ConfigError, match="transformers has no Mvit; choose 'timm' or 'pth' or 'orbax'"):
        write(TINY, tmp_path / "two", "hf")
    arrays = timm_arrays(TINY)
    del arrays["stages.0.blocks.0.mlp.fc1.weight"]
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    safetensors_format.write(tmp_path / "three.safetensors", specs, arrays.__getitem__, {})
    refused(lambda: opened(tmp_path / "three.safetensors"), "lacks arrays of an MViT; it is damaged")
