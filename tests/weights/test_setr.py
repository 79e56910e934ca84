"""mmsegmentation's SETR: understood from the shapes of its arrays, and refused where they do not tell enough."""

import numpy as np
import pytest

from tests.weights import torch_writer
from tests.weights.checks import refused
from tests.weights.models import assert_same, flat, opened
from vit_jax.models.heads.setr.config import SetrConfig
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.formats.arrays import Arrays
from vit_jax.weights.layouts.mmseg import setr

ENCODER = ViTConfig(
    image_size=16, patch_size=8, width=64, depth=24, heads=1, mlp_dim=64, num_classes=0, pool="patches",
    pool_norm="none", resample="bilinear", resample_antialias=False, dynamic_image_size=True,
    preprocessing=setr.PREPROCESSING,
)  # fmt: skip
NAIVE = SetrConfig(ENCODER, 5, (10, 15, 20, 24), channels=8, auxiliary=(0, 1, 2))
PUP = replace(NAIVE, convs=4, kernel=3, scale=2)
MLA = SetrConfig(
    replace(ENCODER, class_token=False, patch_bias=False), 5, (6, 12, 18, 24), "mla", channels=8, branch_channels=4,
    auxiliary=(0, 1, 2, 3),
)  # fmt: skip


def file_of(path, config):
    """A file as mmsegmentation saves it, under `state_dict`."""
    arrays = Arrays(flat(config), setr.rules(config), np.dtype(np.float32), {})
    content = {}
    for name in arrays.names:
        backbone = not name.startswith(("decode_head", "auxiliary_head", "neck"))
        content[f"backbone.{name}" if backbone else name] = np.ascontiguousarray(arrays.read(name))
    if not config.encoder.class_token:
        content["backbone.cls_token"] = np.zeros((1, 1, 64), np.float32)
    return torch_writer.save_zip(path, *torch_writer.state_dict(content))


@pytest.mark.parametrize("config", [NAIVE, PUP, MLA])
def test_files_are_understood_from_their_shapes(config, tmp_path):
    read, params = opened(file_of(tmp_path / "setr.pth", config))
    assert read == config
    assert_same(params, flat(config))


@pytest.mark.parametrize(
    "changes",
    [dict(convs=2), dict(kernel=3), dict(encoder=replace(ENCODER, depth=12), taps=(12,), auxiliary=())],
)
def test_what_no_array_says_is_not_guessed(changes, tmp_path):
    config = replace(NAIVE, **changes)
    path = file_of(tmp_path / "setr.pth", config)
    refused(lambda: opened(path), "holds no SETR of a published kind")
    read, params = opened(path, model=config)
    assert read == config
    assert_same(params, flat(config))
