"""Checkpoints of DINO: the head alone, and a backbone with its head beside it."""

import jax
import numpy as np
import pytest

from tests.models.test_dino_head import HEAD
from tests.tiny import parameters, tiny
from tests.weights.torch_writer import save_zip, state_dict
from vit_jax import trees
from vit_jax.errors import CheckpointError
from vit_jax.models.functional import parameters as parameters_of
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.meta import dino_head
from vit_jax.weights.layouts.timm import vit as timm
from vit_jax.weights.load import load, open_pretrained
from vit_jax.weights.save import save

BACKBONE = tiny(num_classes=0, width=192, heads=3)  # files without a description have heads of 64


def written(rules, params, prefix=""):
    flat = {path: np.asarray(leaf) for path, leaf in trees.flatten(params).items()}
    return {
        prefix + name: np.ascontiguousarray(make(), np.float32)
        for rule in rules
        for name, make in rule.write(flat)
    }


def saved(path, arrays):
    return save_zip(path, {"teacher": state_dict(arrays)[0]}, state_dict(arrays)[1])


def same(params, other):
    jax.tree.map(np.testing.assert_array_equal, params, other)


@pytest.mark.parametrize("prefix", ["mlp", "layers"])
def test_a_head_alone(tmp_path, prefix):
    params = parameters(HEAD)
    arrays = written(dino_head.rules(prefix), params)
    assert arrays["last_layer.weight_g"].shape == (10, 1)
    model = load(saved(tmp_path / "head.pth", arrays))
    assert model.config == HEAD
    same(parameters_of(model), params)
    save(model, tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again.config == HEAD
    same(parameters_of(again), params)


def test_a_backbone_with_its_head_loads_as_the_backbone(tmp_path):
    params = parameters(BACKBONE)
    arrays = written(timm.rules(BACKBONE), params, "backbone.")
    arrays |= written(dino_head.rules("mlp"), parameters(HEAD), "head.")
    path = saved(tmp_path / "full.pth", arrays)
    opened = open_pretrained(path)
    same(opened.params(), params)
    dropped = {name.removeprefix("head.") for name in arrays if name.startswith("head.")}
    assert opened.report.dropped == {f"projection_head.{name}": "not part of the model" for name in dropped}
    config = opened.config
    assert isinstance(config, ViTConfig)
    assert config.resample_offset == 0.1
    assert not config.resample_antialias


def test_what_is_no_head_is_refused(tmp_path):
    flat = {"mlp.0.weight": np.zeros(3, np.float32), "last_layer.weight_v": np.zeros((2, 2), np.float32)}
    with pytest.raises(CheckpointError, match="holds no projection head"):
        load(saved(tmp_path / "head.pth", flat))
