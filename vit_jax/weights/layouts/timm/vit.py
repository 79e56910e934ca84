"""Names of timm's VisionTransformer, Beit, Eva and NaFlexVit, and of Meta's and Microsoft's code, their source."""

from collections.abc import Container
from dataclasses import replace

from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS, mlp, norms, split_attention, split_mlp
from vit_jax.weights.layouts.timm import parallel
from vit_jax.weights.rules import CONV, FLAT, ROW, Rule, affine, batch_norm, grid, matrix, norm, rule

# Arrays that are computed, not learned.
COMPUTED = (
    "*relative_position_index",
    "*.bias_mask",
    "rope_embed.periods",
    "*rope.freqs_*",
    "rope.[!f]*",  # `rope.freqs` are learned
    "*.k_bias",
    "patch_embed.*.num_batches_tracked",
)


def is_eva(config: ViTConfig) -> bool:
    """Whether timm builds the model with its classes Beit or Eva, which name some things in their own way."""
    return (
        config.position_bias != "none" or config.rope != "none" or not config.k_bias or config.attention_norm
    )


def is_sapiens(config: ViTConfig) -> bool:
    """Whether the model is of Sapiens 2: queries, keys and values apart, but a gated MLP's two halves together."""
    return config.rope == "dinov3" and config.norm == "rms"


def rules(config: ViTConfig, names: Container[str] | None = None) -> list[Rule]:
    """Return the rules of a model.

    Args:
      config: the model.
      names: those in the file, to tell apart what several versions named in their own way; None to write.
    """
    eva, biased = is_eva(config), config.norm == "layer"
    # Gate and value: apart in EVA-02's larger models, DINOv3 and AIMv2, together in all others.
    apart = config.mlp_norm or (config.rope == "dinov3") != (config.norm == "rms")

    def has(name: str, otherwise: bool) -> bool:
        return otherwise if names is None else name in names

    sequences = has("embeds.proj.weight", False)
    scale = "gamma_{}" if has("blocks.0.gamma_1", eva) else "ls{}.gamma"
    if config.parallel != "none":
        found = parallel.rules(config)
    else:
        found = [
            *_attention(
                config, has("blocks.0.attn.q_proj.weight", eva and (config.mlp_norm or is_sapiens(config)))
            ),
            *_mlp(config, has("blocks.0.mlp.fc1_g.weight", apart)),
            *norms("blocks", {"norm1": "blocks.{l}.norm1", "norm2": "blocks.{l}.norm2"}, biased),
        ]
    if config.layer_scale is not None and config.parallel == "none":
        scaled = (1, 2) if config.mlp_scale else (1,)
        found += [rule(f"blocks/scale{i}/gamma", f"blocks.{{l}}.{scale.format(i)}") for i in scaled]
    if config.position_bias == "shared":
        found.append(rule("position_bias", "rel_pos_bias.relative_position_bias_table"))
    if config.position == "learned":
        table = ("embeds.pos_embed", grid(config.grid)) if sequences else ("pos_embed", ROW)
        found.append(rule("pos_embed", table[0], form=table[1]))
    tokens = {
        "class_token": ("cls_token", config.class_token),
        "distillation_token": ("dist_token", config.distillation_token),
        "register_tokens": ("reg_token", config.register_tokens),
        "mask_token": ("mask_token", config.mask_token),
    }
    found += [rule(ours, theirs, form=ROW) for ours, (theirs, present) in tokens.items() if present]
    patch = "embeds.proj" if sequences else "patch_embed.proj"
    if config.stem_kind == "mci":
        *convolutions, patch = (f"patch_embed.backbone.{i}" for i in range(len(config.stem) + 1))
        for i, theirs in enumerate(convolutions):
            found.append(rule(f"stem/{i}/kernel", f"{theirs}.conv.weight", form=CONV))
            found += batch_norm(f"stem/{i}/norm", f"{theirs}.bn")
        patch += ".conv"
    found += affine("patch_embed", patch, matrix(3) if sequences else CONV, bias=config.patch_bias)
    if config.patch_norm:
        found += norm("patch_embed/norm", "patch_embed.norm", biased)
    if config.backbone is not None:
        found += backbone(config)
    if config.pre_norm:
        found += norm("norm_pre", "norm_pre", biased)
    if config.pool_norm != "none":
        found += norm("norm", "fc_norm" if config.pool_norm == "after" else "norm", biased)
    if config.pool == "map":
        found += attention_pool(biased)
    if config.representation_size:
        found += affine("pre_logits", "pre_logits.fc")
    if config.num_classes:
        found += affine("head", "head", bias=config.head_bias)
        if config.two_heads:
            found += affine("head_distillation", "head_dist", bias=config.head_bias)
    return found


def _attention(config: ViTConfig, split: bool) -> list[Rule]:
    ours, theirs = "blocks/attn", "blocks.{l}.attn"
    if split:
        found = split_attention(config, f"{ours}/qkv", theirs, "q_proj k_proj v_proj")
    else:
        found = [rule(f"{ours}/qkv/kernel", f"{theirs}.qkv.weight", form=TO_HEADS)]
        if config.qkv_bias and config.k_bias:
            found.append(rule(f"{ours}/qkv/bias", f"{theirs}.qkv.bias", form=FLAT))
        elif config.qkv_bias:
            found.append(rule(f"{ours}/qkv/bias", f"{theirs}.q_bias", f"{theirs}.v_bias", form=FLAT))
    found += affine(f"{ours}/out", f"{theirs}.proj", FROM_HEADS, bias=config.branch_bias)
    biased = config.norm == "layer"
    if config.qk_norm:
        found += norms(ours, {"q_norm": f"{theirs}.q_norm", "k_norm": f"{theirs}.k_norm"}, biased)
    if config.attention_norm:
        found += norm(f"{ours}/norm", f"{theirs}.norm", biased)
    if config.differential:
        found += parallel.difference("blocks.{l}.attn")
    if config.rope == "mixed":
        found.append(replace(rule(f"{ours}/frequencies", "rope.freqs"), blocks_axis=1))
    if config.position_bias == "blocks":
        found.append(rule(f"{ours}/position_bias", f"{theirs}.relative_position_bias_table"))
    return found


def _mlp(config: ViTConfig, split: bool) -> list[Rule]:
    ours, theirs = "blocks/mlp", "blocks.{l}.mlp"
    if config.mlp == "swiglu" and split:
        found = split_mlp(ours, f"{theirs}.fc1_g", f"{theirs}.fc1_x", f"{theirs}.fc2", config.branch_bias)
    else:
        found = mlp(config, ours, f"{theirs}.fc1", f"{theirs}.fc2")
    return found + (norm(f"{ours}/norm", f"{theirs}.norm", config.norm == "layer") if config.mlp_norm else [])


def attention_pool(biased: bool = True) -> list[Rule]:
    """Return the rules of attention pooling; `biased` is its norm."""
    return [
        rule("pool/probe", "attn_pool.latent", form=ROW),
        *affine("pool/q", "attn_pool.q"),
        *affine("pool/kv", "attn_pool.kv"),
        *affine("pool/out", "attn_pool.proj", FROM_HEADS),
        *norm("pool/norm", "attn_pool.norm", biased),
        *affine("pool/mlp/fc1", "attn_pool.mlp.fc1"),
        *affine("pool/mlp/fc2", "attn_pool.mlp.fc2"),
    ]


def backbone(config: ViTConfig) -> list[Rule]:
    """Return the rules of the ResNet in front of a hybrid."""
    assert config.backbone is not None
    theirs = "patch_embed.backbone"
    stem = f"{theirs}.stem" if config.backbone.depths else theirs  # without stages it is the whole backbone
    found = [
        rule("backbone/conv_root/kernel", f"{stem}.conv.weight", form=CONV),
        *norm("backbone/norm_root", f"{stem}.norm"),
    ]
    for stage, unit, name, projected in units(config):
        ours, their = f"backbone/stages/{stage}/{unit}/{name}", f"{theirs}.stages.{stage}.blocks.{unit}"
        conv = f"{their}.downsample.conv" if projected else f"{their}.{name.replace('_', '')}"
        group = f"{their}.downsample.norm" if projected else f"{their}.norm{name[-1]}"
        found.append(rule(f"{ours}/kernel", f"{conv}.weight", form=CONV))
        found += norm(ours.replace("/conv", "/norm"), group)
    return found


def units(config: ViTConfig) -> list[tuple[int, int, str, bool]]:
    """Return every convolution of the backbone's units: stage, unit, our name, whether it is of the shortcut."""
    assert config.backbone is not None
    found, channels = [], config.backbone.stem_channels
    for stage, (depth, out) in enumerate(zip(config.backbone.depths, config.backbone.channels)):
        for unit in range(depth):
            projected = unit == 0 and (stage > 0 or channels != out)
            found += [(stage, unit, "conv_proj", True)] * projected
            found += [(stage, unit, f"conv{i}", False) for i in (1, 2, 3)]
        channels = out
    return found
