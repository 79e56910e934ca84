"""Names in transformers' files of CLIP, MetaCLIP 2, SigLIP and SigLIP 2, and of their towers alone."""

from vit_jax.models.text.config import ImageTextConfig, TextConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.blocks import FROM_HEADS, norms, split_attention
from vit_jax.weights.rules import CONV, FLAT, MATRIX, ONE, ROW, SAME, Form, Rule, affine, matrix, norm, rule

COMPUTED = ("*position_ids",)
PREFIXES = ("vision_model.", "text_model.")
# What a classifier does not use of the tower it stands on.
UNUSED = ("vision_model.post_layernorm.*", "vision_model.head.*")


def rules(config: ImageTextConfig | ViTConfig | TextConfig, sequences: bool) -> list[Rule]:
    """Return the rules of both towers or of one; `sequences` is for SigLIP 2's models of images of any shapes."""
    if isinstance(config, TextConfig):
        return text_rules(config)
    if isinstance(config, ViTConfig):
        return image_rules(config, sequences)
    return [
        *(item.prefixed("image/") for item in image_rules(config.image, sequences)),
        *(item.prefixed("text/") for item in text_rules(config.text)),
        rule("logit_scale", "logit_scale", form=ONE if config.logit_bias else SAME),
        *([rule("logit_bias", "logit_bias", form=ONE)] if config.logit_bias else []),
    ]


def text_rules(config: TextConfig) -> list[Rule]:
    """Return the rules of a text tower; CLIP's sees the tokens before each, and SigLIP's all."""
    head = (
        affine("head", "text_projection", bias=False) if config.causal else affine("head", "text_model.head")
    )
    return [
        *_tower(config, "text_model", "final_layer_norm"),
        rule("token_embed", "text_model.embeddings.token_embedding.weight"),
        *(head if config.num_classes else []),
    ]


def image_rules(config: ViTConfig, sequences: bool) -> list[Rule]:
    """Return the rules of an image tower; CLIP's has a norm before its blocks."""
    image = "vision_model"
    form: Form = matrix(3) if sequences else CONV
    patches = affine("patch_embed", f"{image}.embeddings.patch_embedding", form, bias=config.patch_bias)
    found = patches + _tower(config, image, "post_layernorm")
    if config.pre_norm:
        found += [rule("class_token", f"{image}.embeddings.class_embedding", form=FLAT)]
        found += norm("norm_pre", f"{image}.pre_layrnorm")
    if config.pool == "map":
        found += _attention_pool(f"{image}.head")
    if config.num_classes:
        found += affine(
            "head", "classifier" if config.head_bias else "visual_projection", bias=config.head_bias
        )
    return found


def _attention_pool(theirs: str) -> list[Rule]:
    pooled = "pool/q", "pool/kv"
    return [
        rule("pool/probe", f"{theirs}.probe", form=ROW),
        Rule(
            tuple(f"{ours}/kernel" for ours in pooled),
            (f"{theirs}.attention.in_proj_weight",),
            MATRIX,
            axis=1,
        ),
        Rule(tuple(f"{ours}/bias" for ours in pooled), (f"{theirs}.attention.in_proj_bias",), FLAT),
        *affine("pool/out", f"{theirs}.attention.out_proj", FROM_HEADS),
        *norm("pool/norm", f"{theirs}.layernorm"),
        *affine("pool/mlp/fc1", f"{theirs}.mlp.fc1"),
        *affine("pool/mlp/fc2", f"{theirs}.mlp.fc2"),
    ]


def _tower(config: ViTConfig | TextConfig, theirs: str, final: str) -> list[Rule]:
    layer, normed = f"{theirs}.encoder.layers.{{l}}", getattr(config, "pool_norm", "before") != "none"
    return [
        rule("pos_embed", f"{theirs}.embeddings.position_embedding.weight"),
        *norms("blocks", {"norm1": f"{layer}.layer_norm1", "norm2": f"{layer}.layer_norm2"}),
        *split_attention(config, "blocks/attn/qkv", f"{layer}.self_attn", "q_proj k_proj v_proj"),
        *affine("blocks/attn/out", f"{layer}.self_attn.out_proj", FROM_HEADS),
        *affine("blocks/mlp/fc1", f"{layer}.mlp.fc1"),
        *affine("blocks/mlp/fc2", f"{layer}.mlp.fc2"),
        *(norm("norm", f"{theirs}.{final}") if normed else []),
    ]
