"""Sharding rules: as written down for large models, with rules of the user's, for state, equal to one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.registry import model_functions
from vit_jax.models.vit.config import SIZES, ViTConfig
from vit_jax.objectives.mae import Mae
from vit_jax.objectives.mae.options import MaeOptions
from vit_jax.training.devices import mesh as meshes
from vit_jax.training.devices import sharding

MIN_SIZE = 2**18


def _mesh(data, fsdp, tensor):
    return AbstractMesh((data, fsdp, tensor), meshes.AXES)


PLAIN = {name: ViTConfig(**size, patch_size=14 if name == "so400m" else 16) for name, size in SIZES.items()}
EVERYTHING = ViTConfig(
    **SIZES["small"],
    num_classes=21_843,
    stem=(64, 128),
    register_tokens=4,
    pool="map",
    representation_size=384,
    pre_norm=True,
    qk_norm=True,
    layer_scale=1e-5,
    mlp="swiglu",
)


@functools.cache
def shapes_of(model):
    """Abstract parameters: of a named size, of a model with every option, or of a masked autoencoder."""
    if model == "mae":
        return jax.eval_shape(Mae(PLAIN["base"], MaeOptions()).init, jax.random.key(0))[0]
    config = EVERYTHING if model == "everything" else PLAIN[model]
    return jax.eval_shape(model_functions(config).init, jax.random.key(0))


GOLDEN_L = {
    "blocks/attn/out/kernel": P(None, None, None, "fsdp"),
    "blocks/attn/qkv/kernel": P(None, "fsdp", None, None, None),
    "blocks/mlp/fc1/kernel": P(None, None, "fsdp"),
    "blocks/mlp/fc2/kernel": P(None, "fsdp", None),
    "head/kernel": P("fsdp", None),
    "patch_embed/kernel": P(None, None, None, "fsdp"),
}
GOLDEN_TENSOR = {
    "blocks/attn/out/kernel": P(None, "tensor", None, "fsdp"),
    "blocks/attn/qkv/bias": P(None, None, "tensor", None),
    "blocks/attn/qkv/kernel": P(None, "fsdp", None, "tensor", None),
    "blocks/mlp/fc1/bias": P(None, "tensor"),
    "blocks/mlp/fc1/kernel": P(None, "fsdp", "tensor"),
    "blocks/mlp/fc2/kernel": P(None, "tensor", "fsdp"),
    "head/kernel": P("fsdp", None),
    "patch_embed/kernel": P(None, None, None, "fsdp"),
}


@pytest.mark.parametrize(
    ("model", "sizes", "golden"),
    [
        ("large", (1, 16, 1), GOLDEN_L),
        ("giant", (1, 16, 1), GOLDEN_L),
        ("gigantic", (1, 16, 1), GOLDEN_L | {"blocks/mlp/fc1/bias": P(None, "fsdp")}),
        ("large", (2, 16, 4), GOLDEN_TENSOR),
        ("giant", (2, 16, 4), GOLDEN_TENSOR),
        ("gigantic", (2, 16, 4), GOLDEN_TENSOR),
        ("large", (16, 1, 1), {}),
    ],
)
def test_golden(model, sizes, golden):
    specs = sharding.parameter_specs(shapes_of(model), _mesh(*sizes), sharding.RULES, MIN_SIZE)
    assert {path: spec for path, spec in trees.flatten(specs).items() if any(spec)} == golden


def test_what_does_not_divide_is_reported():
    text = sharding.report(shapes_of("so400m"), _mesh(1, 32, 1), sharding.RULES, MIN_SIZE)
    assert (
        "  blocks/mlp/fc1/kernel (27, 1152, 4304): 4304 is not divisible by fsdp=32, 1152 sharded instead"
        in text
    )
    text = sharding.report(shapes_of("tiny"), _mesh(1, 1, 2), sharding.RULES, MIN_SIZE)
    assert "  blocks/attn/qkv/kernel (12, 192, 3, 3, 64): 3 is not divisible by tensor=2, replicated" in text
    text = sharding.report(shapes_of("giant"), _mesh(1, 256, 1), sharding.RULES, MIN_SIZE)
    assert "1408 is not divisible by fsdp=256, replicated" in text
    total = trees.count(shapes_of("base"))
    text = sharding.report(shapes_of("base"), _mesh(8, 1, 1), sharding.RULES, MIN_SIZE)
    assert text == f"{total:,} parameters, {total:,} on each device"


def test_first_rule_wins():
    rules = ((r"head/kernel$", "tensor(-1)"), (r"blocks/mlp", "replicate"), *sharding.RULES)
    specs = trees.flatten(sharding.parameter_specs(shapes_of("base"), _mesh(1, 2, 4), rules, MIN_SIZE))
    assert specs["head/kernel"] == P(None, "tensor")
    assert specs["blocks/mlp/fc1/kernel"] == P(None, None, None)
    assert specs["blocks/attn/qkv/kernel"] == P(None, "fsdp", None, "tensor", None)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("(^|/)blocks/", "stacked fsdp")], r"parameter class_token \(1, 768\) matches no sharding rule"),
        (
            [("haed/kernel", "fsdp"), *sharding.RULES],
            "'haed/kernel', which matches no.*Did you mean 'head/kernel'",
        ),
        (
            [("decoder$", "fsdp"), *sharding.RULES],
            "matches no parameter. Parameters are under blocks, class_token, head,",
        ),
        ([("head/kernel", "fsd"), *sharding.RULES], "'fsd' is not one of replicate, stacked"),
        (
            [("head/kernel", "tensor(2)"), *sharding.RULES],
            r"tensor\(2\) is not a free dimension of \(768, 1000\)",
        ),
        ([("head/kernel", "tensor(-3)"), *sharding.RULES], r"tensor\(-3\) is not a free dimension"),
        ([("blocks/norm1/scale", "stacked tensor(0)"), *sharding.RULES], r"tensor\(0\) is not a free"),
    ],
)
def test_bad_rules(rules, message):
    with pytest.raises(ConfigError, match=message):
        sharding.parameter_specs(shapes_of("base"), _mesh(1, 2, 4), rules, MIN_SIZE)


def test_an_unknown_parameter_is_an_error():
    params = shapes_of("base") | {"gate": jax.ShapeDtypeStruct((3,), jnp.float32)}
    with pytest.raises(ConfigError, match=r"parameter gate .* matches no sharding rule"):
        sharding.parameter_specs(params, _mesh(1, 2, 4), sharding.RULES, MIN_SIZE)


def test_state_follows_its_parameters():
    params = shapes_of("mae")
    mesh = meshes.make_mesh(dict(data=1, fsdp=4, tensor=2))
    specs = sharding.parameter_specs(params, mesh, sharding.RULES, MIN_SIZE)
    optimizer = optax.chain(optax.scale_by_adam(), optax.scale_by_factored_rms(min_dim_size_to_factor=32))
    state = dict(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=params,
        ema=params,
        opt_state=jax.eval_shape(optimizer.init, params),
        buffers=dict(teacher=params["encoder"], centre=jax.ShapeDtypeStruct((768,), jnp.float32)),
    )
    placed = trees.flatten(sharding.state_shardings(state, specs, mesh))
    flat = trees.flatten(specs)
    shapes = trees.flatten(state)
    for path, spec in flat.items():
        for place in ("params", "ema", "opt_state/0/mu", "opt_state/0/nu"):
            assert placed[f"{place}/{path}"] == NamedSharding(mesh, spec)
    assert placed["step"].is_fully_replicated
    assert placed["opt_state/0/count"].is_fully_replicated
    assert placed["buffers/centre"].is_fully_replicated
    # A teacher's path does not end with the encoder's, so it stays whole unless it is stored under that name.
    assert placed["buffers/teacher/blocks/mlp/fc1/kernel"].is_fully_replicated
    assert placed["opt_state/1/v_row/encoder/blocks/mlp/fc1/kernel"].is_fully_replicated
    for path, placement in placed.items():
        placement.shard_shape(shapes[path].shape)  # raises if a dimension does not divide


def test_sharded_step_equals_one_device():
    params = jax.tree.map(
        lambda leaf: np.sin(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape),
        {"blocks": {"mlp": shapes_of("mu")["blocks"]["mlp"]}},
    )
    mesh = meshes.make_mesh(dict(data=2, fsdp=2, tensor=2))
    specs = sharding.parameter_specs(params, mesh, sharding.RULES, min_size=64)
    placed = jax.device_put(params, sharding.state_shardings(params, specs, mesh))
    kernel = placed["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (1, 16, 64)

    @jax.jit
    def step(params):
        return jax.tree.map(lambda p: p - jnp.tanh(p) / jnp.sqrt(jnp.sum(p * p)), params)

    for here, there in zip(jax.tree.leaves(step(params)), jax.tree.leaves(step(placed)), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-6, atol=1e-7)
