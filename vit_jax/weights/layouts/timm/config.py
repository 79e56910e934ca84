"""What model timm's `config.json` describes."""

from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.names import timm_names
from vit_jax.models.preprocessing import covered
from vit_jax.models.vit.config import ViTConfig, replace
from vit_jax.weights.formats.tensors import LARGEST, RawCheckpoint
from vit_jax.weights.layouts.problem_type import read_problem
from vit_jax.weights.layouts.timm import vit as timm
from vit_jax.weights.preprocessing_formats import from_timm

# Arguments of timm's classes that say how a model trains, or say again what the weights say.
_WITHOUT_EFFECT = {
    "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate",
    "weight_init", "fix_init", "strict_img_size", "qkv_fused", "pretrained", "features_only", "scale_attn_norm",
    "swiglu_align_to", "rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords",
}  # fmt: skip
_PLAIN = {
    "img_size": "image_size", "patch_size": "patch_size", "in_chans": "in_channels",
    "num_classes": "num_classes", "embed_dim": "width", "depth": "depth", "num_heads": "heads",
    "class_token": "class_token", "reg_tokens": "register_tokens", "num_reg_tokens": "register_tokens",
    "init_values": "layer_scale", "qk_norm": "qk_norm", "pre_norm": "pre_norm",
    "dynamic_img_size": "dynamic_image_size", "dynamic_img_pad": "dynamic_image_pad", "scale_mlp": "mlp_norm",
    "scale_attn_inner": "attention_norm", "rope_temperature": "rope_theta", "rope_grid_offset": "rope_offset",
    "proj_bias": "branch_bias", "attn_pool_num_heads": "pool_heads", "use_pre_transformer_norm": "pre_norm",
}  # fmt: skip
_NUMBERS = {"embed_dim", "depth", "num_heads", "mlp_ratio", "rope_temperature", "attn_pool_mlp_ratio"}
_ROPES = {"cat": "eva", "dinov3": "dinov3", "mixed": "mixed"}
_THETA = {"eva": 10000.0, "dinov3": 100.0, "mixed": 10.0}
_FIRST = {"ij": "rows", "xy": "columns"}
_POOLS = {"token": "cls", "avg": "mean", "map": "map", "": "none"}


def from_document(raw: RawCheckpoint) -> ViTConfig:
    """Return the model that timm's `config.json` describes.

    Raises:
      CheckpointError: it says something we do not know.
      ConfigError: the architecture is none of ours.
    """
    about = raw.documents["config.json"]
    known, arguments = (values_of(about, name, raw.origin) for name in ("pretrained_cfg", "model_args"))
    config = _architecture(about["architecture"], raw.origin)
    for name in ("num_classes", "global_pool"):
        if about.get(name) is not None:
            arguments.setdefault(name, about[name])
    described = {"mean", "std"} <= known.keys()
    preprocessing, size = from_timm({"input_size": (config.in_channels, *config.image_size), **known})
    preprocessing = preprocessing if described else config.preprocessing
    try:
        size = pair(arguments.get("img_size", size), "img_size")
        patch = pair(arguments.get("patch_size", config.patch_size), "patch_size")
        # Patches leave out what does not fill one, at the right and the bottom.
        scale = config.token_stride[0] // config.patch_size[0]
        preprocessing, size = covered(preprocessing, size, (patch[0] * scale, patch[1] * scale))
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None
    named = [
        after for name, after in (("fc_norm.weight", True), ("norm.weight", False)) if name in raw.tensors
    ]
    if len(named) == 1 and not arguments.keys() & {"fc_norm", "use_fc_norm"}:
        # The pool does not say where the final norm stands: architectures have choices of their own, and a pool that
        # was changed after training leaves the norm where it was. Its name does.
        arguments["fc_norm"] = named[0]
    config = with_arguments(config, {**arguments, "img_size": size}, raw.origin)
    hidden = raw.tensors.get("blocks.0.mlp.fc2.weight")
    if config.mlp == "swiglu" and hidden is not None and len(hidden.shape) == 2 and hidden.shape[1]:
        # Some architectures round it up to a multiple of their own, which `mlp_ratio` does not say.
        config = replace(config, mlp_dim=hidden.shape[1])
    return replace(config, preprocessing=preprocessing, problem=read_problem(about, raw.origin))


def _architecture(name: Any, origin: str) -> ViTConfig:
    """Return what timm's name of an architecture stands for."""
    where = f"{origin}: config.json says architecture {name!r:.60}"
    try:
        config = timm_names.resolve(str(name))
    except ConfigError as error:
        raise CheckpointError(f"{where}; {error}") from None
    if config is None:
        raise CheckpointError(
            f"{where}, which this library does not have yet; `vit-jax models` lists those it has."
        )
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
    for name in given.keys() & _NUMBERS:
        if (
            isinstance(given[name], bool)
            or not isinstance(given[name], int | float)
            or not 0 < given[name] < LARGEST
        ):
            raise CheckpointError(
                f"{origin}: config.json says {name} {given[name]!r:.60}; it must be a number above 0."
            )
    changes: dict[str, Any] = {}
    for name, field in _PLAIN.items():
        if name in given:
            value = given.pop(name)
            changes[field] = tuple(value) if isinstance(value, list) else value
    width, depth = changes.get("width", config.width), changes.get("depth", config.depth)
    # Both halves are counted in timm's hidden width where they are one array.
    packed = config.mlp == "swiglu" and config.rope == "none" and config.norm == "layer"
    if "swiglu_mlp" in given:
        changes["mlp"] = "swiglu" if given.pop("swiglu_mlp") else "mlp"
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
    normed = given.pop("final_norm", given.pop("use_post_transformer_norm", None))
    if (config.pool_norm != "none" if normed is None else normed) or final:
        if final is not None or pool is not None:
            changes["pool_norm"] = "after" if (averaged if final is None else final) else "before"
    else:
        changes["pool_norm"] = "none"
    changes |= _attention_pool(config, changes, given, width)
    if given.get("attn_type") in ("eva", "rope"):  # what else there may be is refused with what is unknown
        changes["k_bias"] = given.pop("attn_type") == "rope"
    if "attn_only_layer_scale" in given:
        changes["mlp_scale"] = not given.pop("attn_only_layer_scale")
    fixed = given.pop("no_embed_class", None)
    if fixed is not None and changes.get("class_token", config.class_token):
        changes["class_position"] = not fixed
    if "use_abs_pos_emb" in given:
        changes["position"] = "learned" if given.pop("use_abs_pos_emb") else "none"
    if changes.get("register_tokens", config.register_tokens):
        learned = changes.get("position", config.position) == "learned"
        known = config.register_position if config.register_tokens else config.class_position
        changes["register_position"] = learned and (known if fixed is None else not fixed)
    for name, kind in (("use_rel_pos_bias", "blocks"), ("use_shared_rel_pos_bias", "shared")):
        wanted = given.pop(name, None)
        if wanted:
            changes["position_bias"] = kind
        elif wanted is False and config.position_bias == kind:
            changes.setdefault("position_bias", "none")
    changes = {**_rope(config, given, origin), **changes}
    if "qkv_bias" in given:
        changes["qkv_bias"] = given.pop("qkv_bias")
    if "pre_norm" in changes:  # the norm's own bias stands in for the patches'
        changes["patch_bias"] = not changes["pre_norm"]
    if given.get("attn_layer") in ("attn", "diff"):
        changes["differential"] = given.pop("attn_layer") == "diff"
    activation = given.pop("act_layer", None)
    if activation is not None:
        changes["activation"] = activation
    if given:
        name, value = next(iter(given.items()))
        raise CheckpointError(
            f"{origin}: config.json has model_args {name}={value!r:.60}, which this library does not know."
        )
    try:
        return replace(config, **{"depth": depth, **changes})
    except ConfigError as error:
        raise CheckpointError(f"{origin}: config.json describes no model: {error}") from None


def _rope(config: ViTConfig, given: dict[str, Any], origin: str) -> dict[str, Any]:
    """Take the arguments of rotary positions out of `given` and return the fields they stand for."""
    on, kind = given.pop("use_rot_pos_emb", config.rope != "none"), given.pop("rope_type", None)
    half, grid = given.pop("rope_rotate_half", None), given.pop("ref_feat_shape", None)
    if not on:
        return {"rope": "none", "rope_grid": None}
    fields: dict[str, Any] = {} if grid is None else {"rope_grid": grid}
    if "rope_grid_indexing" in given:
        order = str(given.pop("rope_grid_indexing"))
        fields["rope_first"] = _FIRST.get(order, order)
    named = {ours: theirs for theirs, ours in _ROPES.items()}
    kind = kind or named.get(config.rope, "cat")
    rope = _ROPES.get(kind) if isinstance(kind, str) else None
    if rope is None:
        raise CheckpointError(
            f"{origin}: config.json says rope_type {kind!r:.60}; it must be one of {', '.join(_ROPES)}."
        )
    if half is not None and half != (rope == "dinov3"):
        raise CheckpointError(
            f"{origin}: config.json says rope_rotate_half {half!r:.60} of rope_type {kind!r}, which this library does "
            "not have."
        )
    return {"rope": rope, **({} if rope == config.rope else {"rope_theta": _THETA[rope]}), **fields}


def _attention_pool(
    config: ViTConfig, changes: Mapping[str, Any], given: dict[str, Any], width: int
) -> dict[str, Any]:
    """Take the arguments of attention pooling out of `given` and return the fields they stand for."""
    ratio, fields = given.pop("attn_pool_mlp_ratio", None), {}
    if ratio is not None:
        fields["pool_mlp_dim"] = int(width * ratio)
    if changes.get("pool", config.pool) != "map":
        return fields
    prefix = changes.get("class_token", config.class_token) or changes.get(
        "register_tokens", config.register_tokens
    )
    if "pool_include_prefix" in given:
        fields["pool_prefix"] = given.pop("pool_include_prefix")
    elif prefix and not timm.is_eva(config) and not (config.pool == "map" and config.prefix_tokens):
        fields["pool_prefix"] = False
    return fields


def _pool(pool: Any, origin: str) -> str:
    if not isinstance(pool, str) or pool not in _POOLS:
        raise CheckpointError(
            f"{origin}: config.json says global_pool {pool!r:.60}; it must be one of {', '.join(_POOLS)}."
        )
    return _POOLS[pool]


def class_names(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes in order, or none if timm's `config.json` does not say them.

    Raises:
      CheckpointError: what it says are no names in order.
    """
    known = document.get("pretrained_cfg")
    names = document.get("label_names") or (known.get("label_names") if isinstance(known, Mapping) else None)
    if names and not isinstance(names, list):
        raise CheckpointError(
            f"config.json says label_names {names!r:.60}; it must be a list, in order of outputs."
        )
    return tuple(map(str, names or ()))


def values_of(about: Mapping[str, Any], name: str, origin: str) -> dict[str, Any]:
    """Return the values by name that a document holds under a name."""
    value = about.get(name) or {}
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{origin}: config.json says {name} {value!r:.60}; it must be values by name.")
    return dict(value)
