"""Names in transformers' files; in memory, since version 5, it names things in another way.

Sources: the layouts of ViT, DeiT, BEiT, data2vec-vision, MSN, I-JEPA, ViT-MAE, DINOv2 (with registers) and DINOv3.
"""

import math
from collections.abc import Container, Sequence
from dataclasses import replace

from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.blocks import FROM_HEADS, mlp, norms, split_attention, split_mlp
from vit_jax.weights.rules import CONV, ROW, Rule, affine, norm, pixel_shuffle, rule

# Prefix of the backbone's names inside a model with a head.
PREFIXES = {
    "vit": "vit.",
    "deit": "deit.",
    "beit": "beit.",
    "data2vec-vision": "data2vec_vision.",
    "vit_msn": "vit.",
    "ijepa": "ijepa.",
    "vit_mae": "vit.",
    "dinov2": "dinov2.",
    "dinov2_with_registers": "dinov2_with_registers.",
    "dinov3_vit": "",
}
COMPUTED = ("*relative_position_index", "*.position_ids", "rope_embeddings.*")


def rules(config: ViTConfig, model_type: str, prefix: str) -> list[Rule]:
    """Return the rules of an image model.

    Args:
      config: the model.
      model_type: transformers' word for its architecture.
      prefix: what the backbone's names begin with, for example `vit.`.
    """
    if model_type == "dinov3_vit":
        found = _dinov3(config)
    elif model_type in ("dinov2", "dinov2_with_registers"):
        found = _dinov2(config)
    else:
        found = _vit(config)
    found = [item.prefixed(theirs=prefix) for item in found]
    return found + _final_norm(config, model_type, prefix) + _head(config, model_type, prefix)


def mae_rules(config: MaeConfig, names: Container[str] = ()) -> list[Rule]:
    """Return the rules of a masked autoencoder; transformers 5 writes the decoder's blocks under another name."""
    encoder = [item.prefixed("encoder/", "vit.") for item in _vit(config.encoder)]
    encoder += norm("encoder/norm", "vit.layernorm")
    renamed = "decoder.decoder_encoder.layer.0.output.dense.weight" in names
    theirs = "decoder.decoder_encoder.layer.{l}" if renamed else "decoder.decoder_layers.{l}"
    decoder = [
        *affine("decoder/embed", "decoder.decoder_embed"),
        rule("decoder/mask_token", "decoder.mask_token", form=ROW),
        rule("decoder/pos_embed", "decoder.decoder_pos_embed", form=ROW),
        *_vit_blocks(config.decoder, "decoder/blocks", theirs),
        *norm("decoder/norm", "decoder.decoder_norm"),
        *affine("decoder/head", "decoder.decoder_pred"),
    ]
    return encoder + decoder


def placed(rules: Sequence[Rule], prefixes: Sequence[str], names: Container[str]) -> list[Rule]:
    """Return rules whose names are those of a file: with the prefix of a model inside another, or without it.

    transformers has saved the same class in both ways, and `ViTMSNForImageClassification` in both at once.

    Args:
      rules: of names, with prefixes or without.
      prefixes: that a name may have.
      names: of the arrays in the file.
    """

    def there(rule: Rule) -> Rule:
        own = next((p for p in prefixes if p and rule.theirs[0].startswith(p)), "")
        bare = replace(rule, theirs=tuple(name.removeprefix(own) for name in rule.theirs))
        forms = rule, *(bare.prefixed(theirs=prefix) for prefix in ("", *prefixes))
        return next((form for form in forms if all(name in names for name in form.names(1))), rule)

    return [there(rule) for rule in rules]


def _tokens(config: ViTConfig) -> list[Rule]:
    tokens = {
        "class_token": ("embeddings.cls_token", config.class_token),
        "distillation_token": ("embeddings.distillation_token", config.distillation_token),
        "register_tokens": ("embeddings.register_tokens", config.register_tokens),
        "mask_token": ("embeddings.mask_token", config.mask_token),
        "pos_embed": ("embeddings.position_embeddings", config.position == "learned"),
    }
    return [rule(ours, theirs, form=ROW) for ours, (theirs, present) in tokens.items() if present]


def _vit(config: ViTConfig) -> list[Rule]:
    found = _tokens(config) + affine("patch_embed", "embeddings.patch_embeddings.projection", CONV)
    found += _vit_blocks(config, "blocks", "encoder.layer.{l}")
    table = "relative_position_bias.relative_position_bias_table"
    if config.position_bias == "blocks":
        found.append(rule("blocks/attn/position_bias", f"encoder.layer.{{l}}.attention.attention.{table}"))
    elif config.position_bias == "shared":
        found.append(rule("position_bias", f"encoder.{table}"))
    if config.layer_scale is not None:
        found += [rule(f"blocks/scale{i}/gamma", f"encoder.layer.{{l}}.lambda_{i}") for i in (1, 2)]
    return found


def _vit_blocks(config: ViTConfig, ours: str, theirs: str) -> list[Rule]:
    return [
        *norms(ours, {"norm1": f"{theirs}.layernorm_before", "norm2": f"{theirs}.layernorm_after"}),
        *split_attention(config, f"{ours}/attn/qkv", f"{theirs}.attention.attention"),
        *affine(f"{ours}/attn/out", f"{theirs}.attention.output.dense", FROM_HEADS),
        *affine(f"{ours}/mlp/fc1", f"{theirs}.intermediate.dense"),
        *affine(f"{ours}/mlp/fc2", f"{theirs}.output.dense"),
    ]


def _dinov2(config: ViTConfig) -> list[Rule]:
    theirs = "encoder.layer.{l}"
    fc1, fc2 = ("weights_in", "weights_out") if config.mlp == "swiglu" else ("fc1", "fc2")
    mask = [rule("mask_token", "embeddings.mask_token")] if config.mask_token else []
    return [
        *(item for item in _tokens(config) if item.ours != ("mask_token",)),
        *mask,
        *affine("patch_embed", "embeddings.patch_embeddings.projection", CONV),
        *norms("blocks", {"norm1": f"{theirs}.norm1", "norm2": f"{theirs}.norm2"}),
        *split_attention(config, "blocks/attn/qkv", f"{theirs}.attention.attention"),
        *affine("blocks/attn/out", f"{theirs}.attention.output.dense", FROM_HEADS),
        *(rule(f"blocks/scale{i}/gamma", f"{theirs}.layer_scale{i}.lambda1") for i in (1, 2)),
        *mlp(config, "blocks/mlp", f"{theirs}.mlp.{fc1}", f"{theirs}.mlp.{fc2}"),
    ]


def _dinov3(config: ViTConfig) -> list[Rule]:
    theirs = "layer.{l}"
    gated = config.mlp == "swiglu"
    gate, up, down = (f"{theirs}.mlp.{name}_proj" for name in ("gate", "up", "down"))
    return [
        *_tokens(config),
        *affine("patch_embed", "embeddings.patch_embeddings", CONV),
        *norms("blocks", {"norm1": f"{theirs}.norm1", "norm2": f"{theirs}.norm2"}),
        *split_attention(config, "blocks/attn/qkv", f"{theirs}.attention", "q_proj k_proj v_proj"),
        *affine("blocks/attn/out", f"{theirs}.attention.o_proj", FROM_HEADS),
        *(rule(f"blocks/scale{i}/gamma", f"{theirs}.layer_scale{i}.lambda1") for i in (1, 2)),
        *(split_mlp("blocks/mlp", gate, up, down) if gated else mlp(config, "blocks/mlp", up, down)),
    ]


def encoder_stride(config: ViTConfig) -> tuple[int, int]:
    """Return the height and width of the pixels that a token predicts: a patch, unless the head has other numbers."""
    (p, q), side = config.patch_size, math.isqrt(config.num_classes // config.in_channels)
    return (p, q) if p * q * config.in_channels == config.num_classes else (side, side)


def _final_norm(config: ViTConfig, model_type: str, prefix: str) -> list[Rule]:
    if config.pool_norm == "none":
        return []
    if model_type == "dinov3_vit":
        return norm("norm", f"{prefix}norm")
    if model_type in ("beit", "data2vec-vision"):
        if config.pool == "patches":  # masked image modelling: the norm belongs to the head
            return norm("norm", "layernorm")
        return norm(
            "norm", f"{prefix}pooler.layernorm" if config.pool_norm == "after" else f"{prefix}layernorm"
        )
    return norm("norm", f"{prefix}layernorm")


def _head(config: ViTConfig, model_type: str, prefix: str) -> list[Rule]:
    found = affine("pre_logits", f"{prefix}pooler.dense") if config.representation_size else []
    if not config.num_classes:
        return found
    if config.pool == "patches":
        if model_type in ("beit", "data2vec-vision"):
            return found + affine("head", "lm_head")
        pixels = pixel_shuffle(encoder_stride(config), config.in_channels)
        return [
            *found,
            rule("head/kernel", "decoder.0.weight", form=pixels),
            rule("head/bias", "decoder.0.bias", form=pixels),
        ]
    if config.two_heads:
        return (
            found + affine("head", "cls_classifier") + affine("head_distillation", "distillation_classifier")
        )
    return found + affine("head", "classifier")
