"""What model timm's configuration, or the shapes of its arrays alone, describe."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models import names as model_names
from vit_jax.models.preprocessing import IMAGENET
from vit_jax.models.vit_config import ViTConfig, replace
from vit_jax.weights.preprocessing_formats import from_timm
from vit_jax.weights.tensors import RawCheckpoint, Tensor

# Arguments of timm's classes that say how a model trains, or say again what the weights say.
_WITHOUT_EFFECT = {
    "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init",
    "fix_init", "strict_img_size", "qkv_fused", "pretrained", "features_only", "scale_attn_norm",
}  # fmt: skip
_PLAIN = {
    "img_size": "image_size", "patch_size": "patch_size", "in_chans": "in_channels", "num_classes": "num_classes",
    "embed_dim": "width", "depth": "depth", "num_heads": "heads", "class_token": "class_token", "reg_tokens": "register_tokens",
    "num_reg_tokens": "register_tokens", "init_values": "layer_scale", "qk_norm": "qk_norm", "pre_norm": "pre_norm",
    "dynamic_img_size": "dynamic_image_size", "dynamic_img_pad": "dynamic_image_pad", "scale_mlp": "mlp_norm",
    "scale_attn_inner": "attention_norm", "rope_temperature": "rope_theta",
}  # fmt: skip
_POOLS = {"token": "cls", "avg": "mean", "map": "map", "": "none"}


def from_document(raw: RawCheckpoint) -> ViTConfig:
    """Return the model that timm's `config.json` describes.

    Raises:
      CheckpointError: it says something we do not know.
      ConfigError: the architecture is none of ours.
    """
    about = raw.documents["config.json"]
    try:
        config = model_names.resolve(about["architecture"])[1]
    except ConfigError as error:
        raise CheckpointError(
            f"{raw.origin}: config.json says architecture {about['architecture']!r}; {error}"
        ) from None
    if not isinstance(config, ViTConfig):
        raise CheckpointError(
            f"{raw.origin}: config.json says architecture {about['architecture']!r}, not timm's."
        )
    known = dict(about.get("pretrained_cfg") or {})
    arguments = dict(about.get("model_args") or {})
    for name in ("num_classes", "global_pool"):
        if about.get(name) is not None:
            arguments.setdefault(name, about[name])
    size = (known.get("input_size") or (3, *config.image_size))[-2:]
    arguments.setdefault("img_size", size)
    config = with_arguments(config, arguments, raw.origin)
    if {"mean", "std"} <= known.keys():
        config = dataclasses.replace(config, preprocessing=from_timm(known)[0])
    return config


def with_arguments(config: ViTConfig, arguments: Mapping[str, Any], origin: str) -> ViTConfig:
    """Return a configuration with arguments of timm's classes in place of its own.

    Args:
      config: the architecture's.
      arguments: of `VisionTransformer`, `Beit` or `Eva`, as in the `model_args` of a `config.json`.
      origin: for messages.

    Raises:
      CheckpointError: an argument we do not know, or a value it cannot have.
    """
    given = {name: value for name, value in arguments.items() if name not in _WITHOUT_EFFECT}
    changes: dict[str, Any] = {}
    for name, field in _PLAIN.items():
        if name in given:
            value = given.pop(name)
            changes[field] = tuple(value) if isinstance(value, list) else value
    width, depth = changes.get("width", config.width), changes.get("depth", config.depth)
    if "rope_theta" in changes:
        changes["rope_theta"] = float(changes["rope_theta"])
    packed = (
        config.mlp == "swiglu" and config.rope == "none"
    )  # both halves are counted in timm's hidden width
    if given.pop("swiglu_mlp", False):
        changes["mlp"] = "swiglu"
    if "mlp_ratio" in given:
        changes["mlp_dim"] = int(width * given.pop("mlp_ratio")) // (2 if packed else 1)
    elif width != config.width:
        changes["mlp_dim"] = config.mlp_dim * width // config.width
    pool = given.pop("global_pool", None)
    if pool is not None:
        changes["pool"] = _pool(pool, origin)
    final = given.pop("fc_norm", None)
    final = given.pop("use_fc_norm", final)
    averaged = changes.get("pool", config.pool) == "mean"
    if final is not None or pool is not None:
        changes["pool_norm"] = "after" if (averaged if final is None else final) else "before"
    if "no_embed_class" in given:
        changes["class_position"] = not given.pop("no_embed_class")
    if "use_abs_pos_emb" in given:
        changes["position"] = "learned" if given.pop("use_abs_pos_emb") else "none"
    for name, kind in (("use_rel_pos_bias", "blocks"), ("use_shared_rel_pos_bias", "shared")):
        if given.pop(name, False):
            changes["position_bias"] = kind
    if given.pop("use_rot_pos_emb", False):
        kind = given.pop("rope_type", "cat")
        changes["rope"] = {"cat": "eva", "dinov3": "dinov3"}.get(kind, kind)
        changes.setdefault("rope_theta", 10000.0 if kind == "cat" else 100.0)
        given.pop("rope_rotate_half", None)
    grid = given.pop("ref_feat_shape", None)
    if grid is not None:
        changes["rope_grid"] = tuple(grid)
    if "qkv_bias" in given:
        changes["qkv_bias"] = given.pop("qkv_bias")
    if given.pop("pre_norm", False) or changes.get("pre_norm"):
        changes["patch_bias"] = False
    activation = given.pop("act_layer", None)
    if activation is not None:
        changes["activation"] = {"quick_gelu": "quick_gelu", "gelu_tanh": "gelu_tanh", "gelu": "gelu"}.get(
            activation, activation
        )
    if given:
        name, value = next(iter(given.items()))
        raise CheckpointError(
            f"{origin}: config.json has model_args {name}={value!r}, which this library does not know."
        )
    try:
        return replace(config, **{"depth": depth, **changes})
    except ConfigError as error:
        raise CheckpointError(f"{origin}: config.json describes no model: {error}") from None


def _pool(pool: str, origin: str) -> str:
    if pool not in _POOLS:
        raise CheckpointError(
            f"{origin}: config.json says global_pool {pool!r}; it must be one of {', '.join(_POOLS)}."
        )
    return _POOLS[pool]


def class_names(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes in order, or none if timm's `config.json` does not say them."""
    names = document.get("label_names") or (document.get("pretrained_cfg") or {}).get("label_names") or ()
    return tuple(map(str, names))


def from_shapes(tensors: Mapping[str, Tensor], origin: str, preprocessing: Any = IMAGENET) -> ViTConfig:
    """Return the model that arrays with timm's names belong to.

    Heads are 64 wide except where a published size says otherwise, and images square.

    Raises:
      CheckpointError: the arrays do not say enough.
    """
    shape: Callable[[str], tuple[int, ...]] = lambda name: tensors[name].shape if name in tensors else ()
    patch = shape("patch_embed.proj.weight")
    depth = len({m[1] for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))})
    if len(patch) != 4 or not depth or ("cls_token" not in tensors and "pos_embed" not in tensors):
        raise CheckpointError(
            f"{origin} does not say what model it is; give its name, for example "
            "load(..., model='vit_base_patch16_224')."
        )
    width = patch[0]
    class_token, distilled = "cls_token" in tensors, "dist_token" in tensors
    rows = shape("pos_embed")[1] if "pos_embed" in tensors else 0
    table = shape("rel_pos_bias.relative_position_bias_table") or shape(
        "blocks.0.attn.relative_position_bias_table"
    )
    n, class_position = rows, True
    if rows:
        own = int(class_token) + int(distilled)
        class_position = bool(own) and math.isqrt(rows - own) ** 2 == rows - own
        n = rows - own * class_position
    elif table:
        n = ((math.isqrt(table[0] - 3) + 1) // 2) ** 2
    side = math.isqrt(n) or 224 // patch[2]
    fc1, fc2 = shape("blocks.0.mlp.fc1.weight"), shape("blocks.0.mlp.fc2.weight")
    split = "blocks.0.mlp.fc1_g.weight" in tensors
    gated = split or (bool(fc1) and fc1[0] != fc2[1])
    scaled = "blocks.0.ls1.gamma" in tensors or "blocks.0.gamma_1" in tensors
    head = shape("head.weight")
    pool = (
        "map"
        if "attn_pool.latent" in tensors
        else "mean"
        if "fc_norm.weight" in tensors or not class_token
        else "cls"
    )
    return ViTConfig(
        image_size=(side * patch[2], side * patch[3]),
        patch_size=(patch[2], patch[3]),
        in_channels=patch[1],
        width=width,
        depth=depth,
        heads=heads_of(width, gated),
        mlp_dim=fc2[1],
        num_classes=head[0] if head else 0,
        class_token=class_token,
        distillation_token=distilled,
        register_tokens=shape("reg_token")[1] if "reg_token" in tensors else 0,
        mask_token="mask_token" in tensors,
        position="learned" if rows else "none",
        class_position=class_position or not class_token,
        position_bias="none"
        if not table
        else "shared"
        if "rel_pos_bias.relative_position_bias_table" in tensors
        else "blocks",
        rope="none" if rows or table else "dinov3",
        pool=pool,
        pool_norm="after" if "fc_norm.weight" in tensors else "before",
        qkv_bias="blocks.0.attn.qkv.bias" in tensors or "blocks.0.attn.q_bias" in tensors,
        k_bias="blocks.0.attn.q_bias" not in tensors,
        patch_bias="patch_embed.proj.bias" in tensors,
        pre_norm="norm_pre.weight" in tensors,
        qk_norm="blocks.0.attn.q_norm.weight" in tensors,
        layer_scale=1e-5 if scaled else None,
        mlp="swiglu" if gated else "mlp",
        mlp_norm="blocks.0.mlp.norm.weight" in tensors,
        init="trunc_normal",
        preprocessing=preprocessing,
    )


def heads_of(width: int, gated: bool = False) -> int:
    """Return the number of heads that published models of a width have."""
    special = {1152: 16, 1280: 16, 1408: 16, 1664: 16, 1792: 16, 32: 2}
    if width == 1536:
        return 24 if gated else 16  # DINOv2's giant, and big_vision's
    return special.get(width, max(1, width // 64))
