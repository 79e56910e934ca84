"""Every parameter of every kind of model has a place on the mesh, and divided models are the whole ones."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from tests.models.test_dino_head import HEAD
from tests.models.test_text import SIGLIP, TEXT, TOKENS
from tests.models.test_tokens import MASK, TOGETHER
from tests.models.test_upernet import PIXELS
from tests.tiny import functions, parameters, pixels, tiny
from vit_jax import trees
from vit_jax.models.mae.config import MaeConfig, mae_encoder_config
from vit_jax.models.vit.config import replace
from vit_jax.training.devices import mesh as meshes
from vit_jax.training.devices.sharding import RULES, parameter_specs, placements, state_shardings

ENCODER = mae_encoder_config(tiny(register_tokens=1))
DISTILLED = tiny(distillation_token=True, layer_scale=0.1, stem=(8,), qk_norm=True, pre_norm=True)
KINDS = {
    "together": TOGETHER,
    "shared": tiny(position_bias="shared", pool="map", representation_size=12),
    "distilled": DISTILLED,
    "mae": MaeConfig(ENCODER, replace(ENCODER, position="learned")),
    "text": TEXT,
    "siglip": SIGLIP,
    "dino_head": HEAD,
    "upernet": PIXELS,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_place(kind):
    shapes = jax.eval_shape(functions(KINDS[kind]).init, jax.random.key(0))
    mesh = AbstractMesh((2, 2, 2), meshes.AXES)
    placed = placements(shapes, mesh, RULES, min_size=1)
    for path, leaf in trees.flatten(shapes).items():
        spec = placed[path].spec
        assert all(axis is None or size % 2 == 0 for axis, size in zip(spec, leaf.shape, strict=True))
        assert "blocks/" not in path or spec[0] is None
        if path.endswith("kernel"):
            assert "fsdp" in spec, path
        if path.endswith(("qkv/kernel", "blocks/attn/position_bias")):
            assert "tensor" in spec, path


@pytest.mark.parametrize("kind", ["together", "siglip"])
def test_eight_devices_compute_what_one_does(kind):
    config = KINDS[kind]
    params = parameters(config)
    inputs = (pixels(8), TOKENS) if kind == "siglip" else (pixels(8, 16, 32),)
    extra = {} if kind == "siglip" else {"mask": np.tile(MASK, (4, 1))}
    apply = functions(config).apply
    mesh = meshes.make_mesh(dict(data=2, fsdp=2, tensor=2))
    assert mesh.size == 8
    shardings = state_shardings(params, parameter_specs(params, mesh, RULES, 1), mesh)
    divided = jax.device_put(params, shardings)
    images = jax.device_put(inputs[0], meshes.batch_sharding(mesh))
    ours = jax.jit(apply)(divided, images, *inputs[1:], **extra)
    exact = jax.jit(apply)(params, *inputs, **extra)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
