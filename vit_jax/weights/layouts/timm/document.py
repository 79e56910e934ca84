"""The `config.json` of a model in timm's words; what it cannot say is found by reading it again."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.names import timm_names
from vit_jax.models.names.resolve import natural_order
from vit_jax.models.preprocessing import uncut
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.problem_type import problem_type
from vit_jax.weights.layouts.timm import vit as timm
from vit_jax.weights.preprocessing_formats import to_timm
from vit_jax.weights.rules import Rule

# Fields that stand in `model_args`, or that timm takes from the arrays' shapes or has no part in.
_FREE = {
    "image_size", "num_classes", "in_channels", "preprocessing", "pool", "pool_norm", "resample", "resample_antialias",
    "resample_offset", "bias_resample", "dynamic_image_size", "dynamic_image_pad", "dropout_rate",
    "attention_dropout_rate", "drop_path_rate", "patch_drop_rate", "init", "head_bias_init",
    "layer_scale", "problem", "dtype", "attention", "remat", "unroll", "mask_token",
}  # fmt: skip
# What no argument changes; only the architecture's name says it.
_FIXED = (
    "backbone", "distillation_token", "pre_norm", "mlp", "rope", "mlp_norm", "attention_norm", "branch_norm",
    "norm_epsilon", "k_bias", "position", "norm", "patch_norm", "differential",
    "parallel", "stem", "stem_strides", "stem_kind",
)  # fmt: skip
# Architectures of the papers that timm does not list; it builds them from a nearby one.
_NOT_TIMMS = {
    "vit_enormous_patch14_224", "vit_giantopt_patch16_256", "vit_giantopt_patch16_384", "vit_huge_patch16_224",
    "vit_medium_patch16_224", "vit_mu_patch16_224", "vit_so400m_patch14_224", "vit_so400m_patch14_378",
}  # fmt: skip
_POOLS = {"cls": "token", "mean": "avg", "map": "map", "none": ""}
_ARGUMENTS = {
    "patch_size": "patch_size", "width": "embed_dim", "depth": "depth", "heads": "num_heads",
    "class_token": "class_token", "qkv_bias": "qkv_bias", "qk_norm": "qk_norm", "activation": "act_layer",
}  # fmt: skip
_EVA_ARGUMENTS = {
    "rope_theta": "rope_temperature",
    "rope_offset": "rope_grid_offset",
    "pool_heads": "attn_pool_num_heads",
}


def document(config: ViTConfig, class_names: Sequence[str] = ()) -> tuple[dict[str, Any], list[Rule]]:
    """Return the `config.json` of a model and the rules of its arrays.

    Args:
      config: the model.
      class_names: in order of logits.

    Raises:
      ConfigError: timm has no such model.
    """
    if config.pool not in _POOLS:
        raise ConfigError(
            f"timm has no pool {config.pool!r}; save the model without a head, or in another format."
        )
    if config.distillation_token and not config.two_heads:
        raise ConfigError(
            "timm's distilled models read both tokens, but this one reads only the first; choose 'hf'."
        )
    architecture, base = _architecture(config)
    # timm's patches leave out what does not fill one, where ours are given images without it.
    preprocessing, image_size = uncut(config.preprocessing, config.image_size, config.token_stride)
    arguments: dict[str, Any] = {
        "img_size": list(image_size),
        "global_pool": _POOLS[config.pool],
    }
    eva = timm.is_eva(config)
    own = _EVA_ARGUMENTS if eva else {"branch_bias": "proj_bias"}
    for field, name in (_ARGUMENTS | own).items():
        if getattr(config, field) != getattr(base, field):
            if field == "activation" and config.mlp == "swiglu":
                continue  # gated by SiLU, whatever it says
            value = getattr(config, field)
            arguments[name] = list(value) if isinstance(value, tuple) else value
    if config.mlp_dim * base.width != base.mlp_dim * config.width:
        arguments["mlp_ratio"] = _ratio(
            config.mlp_dim * (2 if config.mlp == "swiglu" and not eva and config.norm == "layer" else 1),
            config.width,
        )
    if config.register_tokens != base.register_tokens:
        arguments["num_reg_tokens" if eva else "reg_tokens"] = config.register_tokens
    slots = config.register_position if config.register_tokens else config.class_position
    if slots != (base.register_position if base.register_tokens else base.class_position):
        arguments["no_embed_class"] = not slots
    if (config.layer_scale is None) != (base.layer_scale is None):
        arguments["init_values"] = config.layer_scale
    if config.position_bias != base.position_bias:
        arguments["use_rel_pos_bias"] = config.position_bias == "blocks"
        arguments["use_shared_rel_pos_bias"] = config.position_bias == "shared"
    if config.rope_grid != base.rope_grid and config.rope_grid is not None:
        arguments["ref_feat_shape"] = list(config.rope_grid)
    averaged = config.pool == "mean"
    if (config.pool_norm == "after") != averaged:
        arguments["use_fc_norm" if eva else "fc_norm"] = config.pool_norm == "after"
    if (config.pool_norm == "none") != (base.pool_norm == "none"):
        arguments["use_post_transformer_norm" if eva else "final_norm"] = config.pool_norm != "none"
    if config.pool == "map" and config.prefix_tokens and not eva:
        arguments["pool_include_prefix"] = config.pool_prefix
    if eva and config.pool_mlp_dim and config.pool_mlp_dim != base.pool_mlp_dim:
        arguments["attn_pool_mlp_ratio"] = _ratio(config.pool_mlp_dim, config.width)
    if eva and config.rope_first != base.rope_first:
        arguments["rope_grid_indexing"] = "ij" if config.rope_first == "rows" else "xy"
    if eva and config.mlp_scale != base.mlp_scale:
        arguments["attn_only_layer_scale"] = not config.mlp_scale
    about = {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.width,
        "global_pool": _POOLS[config.pool],
        "model_args": arguments,
        "pretrained_cfg": {
            **to_timm(preprocessing, image_size, config.in_channels),
            "num_classes": config.num_classes,
            "fixed_input_size": True,
            "first_conv": _first(config),
            "classifier": ["head", "head_dist"] if config.two_heads else "head",
        },
    }
    if config.problem != "single_label":
        about |= problem_type(config)
    if class_names:
        about["label_names"] = list(class_names)
    if config.in_channels != 3:
        arguments["in_chans"] = config.in_channels
    return about, timm.rules(dataclasses.replace(config, mask_token=False))


def _architecture(config: ViTConfig) -> tuple[str, ViTConfig]:
    """Return the published architecture nearest to a model: of timm's same class, with the fewest differences."""
    best: tuple[int, str, ViTConfig] | None = None
    fields = [field.name for field in dataclasses.fields(ViTConfig) if field.name not in _FREE]
    for name in sorted(timm_names.architectures(), key=natural_order):
        known = timm_names.resolve(name)
        assert known is not None
        if name in _NOT_TIMMS or timm.is_eva(known) != timm.is_eva(config):
            continue
        distance = sum(getattr(known, field) != getattr(config, field) for field in fields)
        distance += (known.layer_scale is None) != (config.layer_scale is None)
        distance += 100 * sum(getattr(known, field) != getattr(config, field) for field in _FIXED)
        if name.startswith("test_") and distance:
            continue  # toys that earlier versions of timm do not have
        if best is None or distance < best[0]:
            best = distance, name, known
    assert best is not None
    return best[1], best[2]


def _first(config: ViTConfig) -> str:
    """Return the name of the layer that sees the pixels."""
    if config.stem_kind == "mci":
        return "patch_embed.backbone.0.conv"
    if config.backbone is None:
        return "patch_embed.proj"
    return "patch_embed.backbone.stem.conv" if config.backbone.depths else "patch_embed.backbone.conv"


def _ratio(hidden: int, width: int) -> float:
    """Return a ratio that timm's rounding down turns back into the hidden width."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
