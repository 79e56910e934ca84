"""Names in transformers' files of CLIP, SigLIP and SigLIP 2."""

from vit_jax.models.text_config import ImageTextConfig, TextConfig
from vit_jax.models.vit_config import ViTConfig
from vit_jax.weights.layouts.blocks import FROM_HEADS, norms, split_attention
from vit_jax.weights.rules import CONV, FLAT, MATRIX, ONE, ROW, Form, Rule, affine, matrix, norm, rule

COMPUTED = ("*.position_ids",)


def clip_rules(config: ImageTextConfig) -> list[Rule]:
    """Return the rules of CLIP."""
    text = "text_model"
    return [
        *(item.prefixed("image/") for item in clip_image_rules(config.image)),
        *_tower(config.text, "text", text, "final_layer_norm"),
        rule("text/token_embed", f"{text}.embeddings.token_embedding.weight"),
        *affine("text/head", "text_projection", bias=False),
        rule("logit_scale", "logit_scale"),
    ]


def clip_image_rules(config: ViTConfig) -> list[Rule]:
    """Return the rules of CLIP's image tower."""
    image = "vision_model"
    return [
        rule("class_token", f"{image}.embeddings.class_embedding", form=FLAT),
        rule("patch_embed/kernel", f"{image}.embeddings.patch_embedding.weight", form=CONV),
        *norm("norm_pre", f"{image}.pre_layrnorm"),
        *_tower(config, "", image, "post_layernorm"),
        *(affine("head", "visual_projection", bias=False) if config.num_classes else []),
    ]


def siglip_rules(config: ImageTextConfig, sequences: bool) -> list[Rule]:
    """Return the rules of SigLIP; of SigLIP 2's models for images of any shapes if `sequences`."""
    text = "text_model"
    return [
        *(item.prefixed("image/") for item in siglip_image_rules(config.image, sequences)),
        *_tower(config.text, "text", text, "final_layer_norm"),
        rule("text/token_embed", f"{text}.embeddings.token_embedding.weight"),
        *affine("text/head", f"{text}.head"),
        rule("logit_scale", "logit_scale", form=ONE),
        rule("logit_bias", "logit_bias", form=ONE),
    ]


def siglip_image_rules(config: ViTConfig, sequences: bool) -> list[Rule]:
    """Return the rules of SigLIP's image tower."""
    image = "vision_model"
    form: Form = matrix(3) if sequences else CONV
    head = f"{image}.head"
    pooled = "pool/q", "pool/kv"
    return [
        *affine("patch_embed", f"{image}.embeddings.patch_embedding", form),
        *(item for item in _tower(config, "", image, "post_layernorm")),
        rule("pool/probe", f"{head}.probe", form=ROW),
        Rule(
            tuple(f"{ours}/kernel" for ours in pooled), (f"{head}.attention.in_proj_weight",), MATRIX, axis=1
        ),
        Rule(tuple(f"{ours}/bias" for ours in pooled), (f"{head}.attention.in_proj_bias",), FLAT),
        *affine("pool/out", f"{head}.attention.out_proj", FROM_HEADS),
        *norm("pool/norm", f"{head}.layernorm"),
        *affine("pool/mlp/fc1", f"{head}.mlp.fc1"),
        *affine("pool/mlp/fc2", f"{head}.mlp.fc2"),
    ]


def _tower(config: ViTConfig | TextConfig, ours: str, theirs: str, final: str) -> list[Rule]:
    ours, layer = f"{ours}/" if ours else "", f"{theirs}.encoder.layers.{{l}}"
    return [
        rule(f"{ours}pos_embed", f"{theirs}.embeddings.position_embedding.weight"),
        *norms(f"{ours}blocks", {"norm1": f"{layer}.layer_norm1", "norm2": f"{layer}.layer_norm2"}),
        *split_attention(config, f"{ours}blocks/attn/qkv", f"{layer}.self_attn", "q_proj k_proj v_proj"),
        *affine(f"{ours}blocks/attn/out", f"{layer}.self_attn.out_proj", FROM_HEADS),
        *affine(f"{ours}blocks/mlp/fc1", f"{layer}.mlp.fc1"),
        *affine(f"{ours}blocks/mlp/fc2", f"{layer}.mlp.fc2"),
        *norm(f"{ours}norm", f"{theirs}.{final}"),
    ]
