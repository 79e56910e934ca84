"""The seam: names of parameters, round trip between module and nested dict, and strictness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import TINY, functions, parameters, pixels, run, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.functional import parameters as parameters_of
from vit_jax.models.vit.model import VisionTransformer
from vit_jax.trees import flatten

# Every option that makes parameters.
EVERYTHING = tiny(
    depth=3,
    stem=(6, 8),
    register_tokens=2,
    pre_norm=True,
    qk_norm=True,
    layer_scale=0.1,
    pool="map",
    representation_size=12,
)
PLAIN = {
    "patch_embed/kernel": (4, 4, 8, 32),
    "patch_embed/bias": (32,),
    "class_token": (1, 32),
    "register_tokens": (2, 32),
    "pos_embed": (17, 32),
    "norm_pre/scale": (32,),
    "norm_pre/bias": (32,),
    "blocks/norm1/scale": (3, 32),
    "blocks/norm1/bias": (3, 32),
    "blocks/attn/qkv/kernel": (3, 32, 3, 2, 16),
    "blocks/attn/qkv/bias": (3, 3, 2, 16),
    "blocks/attn/q_norm/scale": (3, 16),
    "blocks/attn/q_norm/bias": (3, 16),
    "blocks/attn/k_norm/scale": (3, 16),
    "blocks/attn/k_norm/bias": (3, 16),
    "blocks/attn/out/kernel": (3, 2, 16, 32),
    "blocks/attn/out/bias": (3, 32),
    "blocks/scale1/gamma": (3, 32),
    "blocks/norm2/scale": (3, 32),
    "blocks/norm2/bias": (3, 32),
    "blocks/mlp/fc1/kernel": (3, 32, 64),
    "blocks/mlp/fc1/bias": (3, 64),
    "blocks/mlp/fc2/kernel": (3, 64, 32),
    "blocks/mlp/fc2/bias": (3, 32),
    "blocks/scale2/gamma": (3, 32),
    "norm/scale": (32,),
    "norm/bias": (32,),
    "pool/probe": (1, 32),
    "pool/q/kernel": (32, 2, 16),
    "pool/q/bias": (2, 16),
    "pool/kv/kernel": (32, 2, 2, 16),
    "pool/kv/bias": (2, 2, 16),
    "pool/out/kernel": (2, 16, 32),
    "pool/out/bias": (32,),
    "pool/norm/scale": (32,),
    "pool/norm/bias": (32,),
    "pool/mlp/fc1/kernel": (32, 64),
    "pool/mlp/fc1/bias": (64,),
    "pool/mlp/fc2/kernel": (64, 32),
    "pool/mlp/fc2/bias": (32,),
    "pre_logits/kernel": (32, 12),
    "pre_logits/bias": (12,),
    "head/kernel": (12, 5),
    "head/bias": (5,),
    "stem/0/kernel": (3, 3, 3, 6),
    "stem/0/bias": (6,),
    "stem/0/norm/scale": (6,),
    "stem/0/norm/bias": (6,),
    "stem/1/kernel": (3, 3, 6, 8),
    "stem/1/bias": (8,),
    "stem/1/norm/scale": (8,),
    "stem/1/norm/bias": (8,),
}


def shapes(config):
    tree = jax.eval_shape(functions(config).init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    return {name: leaf.shape for name, leaf in flatten(tree).items()}


def test_names_and_shapes_with_every_option():
    assert shapes(EVERYTHING) == PLAIN


def test_names_without_options():
    bare = tiny(
        qkv_bias=False, patch_bias=False, class_token=False, pool="mean", position="none", num_classes=0
    )
    names = set(shapes(bare))
    gone = {
        "patch_embed/bias",
        "class_token",
        "pos_embed",
        "blocks/attn/qkv/bias",
        "head/kernel",
        "head/bias",
    }
    assert names == set(shapes(TINY)) - gone


def test_names_of_the_gated_mlp():
    found = {name: shape for name, shape in shapes(tiny(mlp="swiglu")).items() if "mlp" in name}
    assert found == {
        "blocks/mlp/gate_up/kernel": (2, 32, 2, 64),
        "blocks/mlp/gate_up/bias": (2, 2, 64),
        "blocks/mlp/down/kernel": (2, 64, 32),
        "blocks/mlp/down/bias": (2, 32),
    }


def test_bind_and_parameters_are_inverse():
    params = parameters(EVERYTHING)
    module = functions(EVERYTHING).bind(params)
    assert isinstance(module, VisionTransformer)
    assert module.config == EVERYTHING
    again = parameters_of(module)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    for ours, given in zip(jax.tree.leaves(again), jax.tree.leaves(params)):
        assert ours is given


def test_a_module_bound_and_one_built_are_the_same_tree():
    built = jax.eval_shape(lambda: VisionTransformer(EVERYTHING, rngs=nnx.Rngs(0)))
    bound = functions(EVERYTHING).bind(parameters(EVERYTHING))
    assert jax.tree.structure(bound) == jax.tree.structure(built)


def test_apply_is_the_module_call():
    params = parameters(EVERYTHING)
    module = functions(EVERYTHING).bind(params)
    by_module = jax.jit(lambda module, images: module(images))(module, pixels())
    np.testing.assert_array_equal(run(EVERYTHING, pixels()), by_module)


def test_init_is_deterministic_by_key_and_every_layer_differs():
    init = jax.jit(functions(EVERYTHING).init)
    one, again, other = (flatten(init(jax.random.key(seed))) for seed in (0, 0, 1))
    for name, value in one.items():
        np.testing.assert_array_equal(value, again[name])
        random = np.ptp(value) > 0
        assert random == (not np.array_equal(value, other[name])), name
        if name.startswith("blocks/") and random:
            assert not np.array_equal(value[0], value[1]), name
            assert not np.array_equal(value[1], value[2]), name
        if name.endswith("kernel") and name != "head/kernel":
            assert random, name


@pytest.mark.parametrize("scheme", ["jax", "trunc_normal"])
def test_every_array_gets_a_key_of_its_own(scheme):
    config = tiny(init=scheme, pool="map", register_tokens=1, representation_size=32, stem=(3, 3), depth=1)
    leaves = flatten(jax.jit(functions(config).init)(jax.random.key(0)))
    firsts = [float(np.asarray(x).ravel()[0] / np.std(x)) for x in leaves.values() if np.ptp(x) > 0]
    assert len(set(np.round(firsts, 5))) == len(firsts)


def test_initial_parameters_that_are_not_random():
    params = flatten(jax.jit(functions(EVERYTHING).init)(jax.random.key(0)))
    for name, value in params.items():
        if name.endswith("scale"):
            np.testing.assert_array_equal(value, 1)
        elif name.endswith("gamma"):
            np.testing.assert_array_equal(value, np.float32(0.1))
        elif name.endswith("bias"):
            # The MLPs' biases start at N(0, 1e-6), all others at zero.
            assert np.abs(value).max() <= (1e-5 if "mlp" in name else 0), name
    assert not params["class_token"].any()
    np.testing.assert_allclose(np.std(params["pos_embed"]), 0.02, rtol=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("norm"), "missing norm/bias, norm/scale, not part of the model none"),
        (lambda p: p.update(extra=jnp.zeros(1)), "missing none, not part of the model extra"),
        (lambda p: p.pop("blocks"), "missing blocks/attn/out/bias, .* and 9 more, not part"),
    ],
)
def test_parameters_of_another_model_are_refused(change, message):
    params = dict(parameters(TINY))
    change(params)
    with pytest.raises(ConfigError, match=f"parameters do not belong to this model: {message}"):
        functions(TINY).apply(params, pixels())
