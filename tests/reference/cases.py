"""Reference cases: weights and outputs of other libraries, and their parameter names in ours."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from vit_jax.models.vit_config import ViTConfig
from vit_jax.trees import unflatten

HERE = Path(__file__).parent


def load_case(name):
    """Return (description, arrays, weights) of a case."""
    description = json.loads((HERE / f"{name}.json").read_text())
    arrays = dict(np.load(HERE / f"{name}.npz"))
    weights = HERE / f"{name}.safetensors"
    return description, arrays, load_file(weights) if weights.exists() else {}


def tolerance(description, output):
    """The rule for passing: 20 times the float32 noise floor, or 2e-5 of the largest value."""
    about = description["outputs"][output]
    return max(20 * about["noise_f32_vs_f64"], 2e-5 * about["absmax"])


def assert_close(ours, theirs, limit, what):
    difference = np.abs(np.asarray(ours, np.float64) - theirs).max()
    assert difference <= limit, f"{what}: differs by {difference:.3g}, allowed {limit:.3g}"


def nhwc(images):
    return np.transpose(images, (0, 2, 3, 1))


def timm_config(about):
    """Our configuration of a timm VisionTransformer's constructor arguments."""
    width, pool = about["embed_dim"], about.get("global_pool", "token")
    class_token = about.get("class_token", True)
    swiglu = "GluMlp" in about.get("mlp_layer", "")
    after = pool == "avg" and about.get("fc_norm", True)
    activation = about.get("act_layer", "gelu")
    return ViTConfig(
        image_size=about["img_size"],
        patch_size=about["patch_size"],
        width=width,
        depth=about["depth"],
        heads=about["num_heads"],
        mlp_dim=int(width * about.get("mlp_ratio", 4)) // (2 if swiglu else 1),
        num_classes=about["num_classes"],
        class_token=class_token,
        register_tokens=about.get("reg_tokens", 0),
        class_position=not about.get("no_embed_class", False),
        pool={"token": "cls", "avg": "mean", "map": "map"}[pool],
        pool_norm="after" if after else "before",
        pre_norm=about.get("pre_norm", False),
        patch_bias=not about.get("pre_norm", False),
        qk_norm=about.get("qk_norm", False),
        layer_scale=about.get("init_values"),
        mlp="swiglu" if swiglu else "mlp",
        activation="quick_gelu" if "Quick" in activation else "gelu_tanh" if "tanh" in activation else "gelu",
        norm_epsilon=1e-5 if "1e-05" in about.get("norm_layer", "") else 1e-6,
        dynamic_image_size=about.get("dynamic_img_size", False),
    )


def timm_parameters(weights, config):
    """A timm VisionTransformer's state dict as our parameters."""
    d, h, k, m = config.width, config.heads, config.head_dim, config.mlp_dim
    flat = {}

    def put(name, value):
        flat[name] = value

    def norm(ours, theirs, get):
        put(f"{ours}/scale", get(f"{theirs}.weight"))
        put(f"{ours}/bias", get(f"{theirs}.bias"))

    def dense(ours, theirs, shape, bias_shape, get):
        lead = get(f"{theirs}.weight").shape[:-2]
        put(f"{ours}/kernel", np.swapaxes(get(f"{theirs}.weight"), -1, -2).reshape(*lead, *shape))
        put(f"{ours}/bias", get(f"{theirs}.bias").reshape(*lead, *bias_shape))

    def one(name):
        return weights[name]

    def every(name):
        return np.stack([weights[f"blocks.{i}.{name}"] for i in range(config.depth)])

    put("patch_embed/kernel", weights["patch_embed.proj.weight"].transpose(2, 3, 1, 0))
    for ours, theirs in (("patch_embed/bias", "patch_embed.proj.bias"),):
        if theirs in weights:
            put(ours, weights[theirs])
    for ours, theirs in (
        ("class_token", "cls_token"),
        ("register_tokens", "reg_token"),
        ("pos_embed", "pos_embed"),
    ):
        if theirs in weights:
            put(ours, weights[theirs][0])
    if config.pre_norm:
        norm("norm_pre", "norm_pre", one)
    norm("blocks/norm1", "norm1", every)
    norm("blocks/norm2", "norm2", every)
    dense("blocks/attn/qkv", "attn.qkv", (d, 3, h, k), (3, h, k), every)
    dense("blocks/attn/out", "attn.proj", (h, k, d), (d,), every)
    if config.qk_norm:
        norm("blocks/attn/q_norm", "attn.q_norm", every)
        norm("blocks/attn/k_norm", "attn.k_norm", every)
    if config.layer_scale is not None:
        put("blocks/scale1/gamma", every("ls1.gamma"))
        put("blocks/scale2/gamma", every("ls2.gamma"))
    if config.mlp == "swiglu":
        dense("blocks/mlp/gate_up", "mlp.fc1", (d, 2, m), (2, m), every)
        dense("blocks/mlp/down", "mlp.fc2", (m, d), (d,), every)
    else:
        dense("blocks/mlp/fc1", "mlp.fc1", (d, m), (m,), every)
        dense("blocks/mlp/fc2", "mlp.fc2", (m, d), (d,), every)
    norm("norm", "fc_norm" if config.pool_norm == "after" else "norm", one)
    if config.pool == "map":
        put("pool/probe", weights["attn_pool.latent"][0])
        dense("pool/q", "attn_pool.q", (d, h, k), (h, k), one)
        dense("pool/kv", "attn_pool.kv", (d, 2, h, k), (2, h, k), one)
        dense("pool/out", "attn_pool.proj", (h, k, d), (d,), one)
        norm("pool/norm", "attn_pool.norm", one)
        dense("pool/mlp/fc1", "attn_pool.mlp.fc1", (d, m), (m,), one)
        dense("pool/mlp/fc2", "attn_pool.mlp.fc2", (m, d), (d,), one)
    dense("head", "head", (d, config.num_classes), (config.num_classes,), one)
    return unflatten(flat)


def hf_blocks(weights, prefix, depth, heads):
    """Blocks of a transformers ViT encoder, from its names on disk."""

    def every(name):
        return np.stack([weights[f"{prefix}.{i}.{name}"] for i in range(depth)])

    def kernel(name):
        return np.swapaxes(every(f"{name}.weight"), 1, 2)

    parts = ("query", "key", "value")
    qkv = np.stack([kernel(f"attention.attention.{part}") for part in parts], axis=2)
    bias = np.stack([every(f"attention.attention.{part}.bias") for part in parts], axis=1)
    layers, d = qkv.shape[:2]
    k = d // heads
    return {
        "norm1/scale": every("layernorm_before.weight"),
        "norm1/bias": every("layernorm_before.bias"),
        "norm2/scale": every("layernorm_after.weight"),
        "norm2/bias": every("layernorm_after.bias"),
        "attn/qkv/kernel": qkv.reshape(layers, d, 3, heads, k),
        "attn/qkv/bias": bias.reshape(layers, 3, heads, k),
        "attn/out/kernel": kernel("attention.output.dense").reshape(layers, heads, k, d),
        "attn/out/bias": every("attention.output.dense.bias"),
        "mlp/fc1/kernel": kernel("intermediate.dense"),
        "mlp/fc1/bias": every("intermediate.dense.bias"),
        "mlp/fc2/kernel": kernel("output.dense"),
        "mlp/fc2/bias": every("output.dense.bias"),
    }
