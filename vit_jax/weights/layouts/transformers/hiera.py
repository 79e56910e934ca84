"""transformers' Hiera: its model alone, with a classifier, as a backbone, and as a masked autoencoder."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.hiera.mae_config import HieraMaeConfig
from vit_jax.models.hiera.names import TRANSFORMERS
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.problem_type import problem_type, read_problem
from vit_jax.weights.layouts.timm.hiera import block_rules, fusion_rules, one_block, pixel_rules
from vit_jax.weights.layouts.timm.hiera_arguments import check_padding, square, windowed_stages
from vit_jax.weights.layouts.transformers.config import HIDDEN_ACTS, activation, class_names, settings
from vit_jax.weights.layouts.transformers.document import label_names
from vit_jax.weights.preprocessing_formats import from_hf, to_hf
from vit_jax.weights.rules import CONV, ROW, Rule, affine, norm, rule

TYPE = "hiera"
# What transformers assumes when a `config.json` does not say.
_DEFAULTS: dict[str, Any] = dict(
    embed_dim=96, mlp_ratio=4.0, embed_dim_multiplier=2.0, num_query_pool=3, num_channels=3, hidden_act="gelu",
    layer_norm_eps=1e-6,
)  # fmt: skip
_LISTS: dict[str, list[Any]] = dict(
    image_size=[224, 224], patch_size=[7, 7], patch_stride=[4, 4], patch_padding=[3, 3], depths=[2, 3, 16, 3],
    num_heads=[1, 2, 4, 8], query_stride=[2, 2], masked_unit_size=[8, 8],
    masked_unit_attention=[True, True, False, False],
)  # fmt: skip
_DECODER: dict[str, Any] = dict(decoder_hidden_size=512, decoder_depth=8, decoder_num_heads=16)
_LEVEL = re.compile(r"hidden_states_norms\.(?:stage(\d+)|stem)\.weight")


def rules(config: HieraConfig, prefix: str, last: str) -> list[Rule]:
    """Return the rules of a model.

    Args:
      config: the model.
      prefix: what the names of the encoder begin with, `hiera.` or nothing.
      last: name of the norm behind the encoder.
    """
    encoder = f"{prefix}encoder.stages"
    blocks = block_rules(
        config,
        ("layernorm_before", "layernorm_after"),
        lambda stack: (f"{encoder}.{stack.stage}.layers.{{l}}", stack.first),
    )
    found = [
        *affine("patch_embed", f"{prefix}embeddings.patch_embeddings.projection", CONV),
        rule("pos_embed", f"{prefix}embeddings.position_embeddings", form=ROW),
        *blocks,
    ]
    for number, level in enumerate(config.level_norms):
        theirs = f"stage{level}" if level else "stem"
        found += norm(f"level_norms/{number}", f"hidden_states_norms.{theirs}")
    found += norm("norm", last) if config.pool_norm else []
    return found + (affine("head", "classifier") if config.num_classes else [])


def mae_rules(config: HieraMaeConfig) -> list[Rule]:
    """Return the rules of a masked autoencoder."""
    theirs, blocks = "decoder.decoder_block.layers.{l}", "decoder/blocks"
    encoder = rules(config.encoder, "hiera.", "encoder_norm")
    return [
        *(item.prefixed("encoder/") for item in encoder),
        *fusion_rules(config, "multiscale_fusion.multi_scale_fusion_heads"),
        *affine("decoder/embed", "decoder.decoder_embeddings"),
        rule("decoder/mask_token", "decoder.mask_token", form=ROW),
        rule("decoder/pos_embed", "decoder.decoder_position_embeddings", form=ROW),
        *one_block(blocks, theirs, ("layernorm_before", "layernorm_after")),
        *norm("decoder/norm", "decoder.decoder_norm"),
        *pixel_rules(config, "decoder.decoder_pred"),
    ]


def _config(raw: RawCheckpoint, prefix: str, last: str) -> HieraConfig:
    document, where = raw.documents["config.json"], f"{raw.origin}: config.json"
    about = settings(_DEFAULTS, document, where)
    lists = {name: about.get(name, default) for name, default in _LISTS.items()}
    for name, value in lists.items():
        if not isinstance(value, list):
            raise CheckpointError(f"{where} says {name} {value!r:.60}; it must be a list.")
    heads, depths = lists["num_heads"], lists["depths"]
    doubled = (
        [heads[0] * 2**stage for stage in range(len(depths))] if heads and isinstance(heads[0], int) else []
    )
    known = {"query_stride": [2, 2], "embed_dim_multiplier": 2.0, "num_heads": doubled}
    for name, value in known.items():
        said = lists.get(name, about.get(name))
        if said != value:
            raise CheckpointError(f"{where} says {name} {said!r:.60}; this library knows {value!r}.")
    classifier = raw.tensors.get("classifier.weight")
    levels = tuple(sorted(int(m[1] or 0) for name in raw.tensors if (m := _LEVEL.fullmatch(name))))
    config = HieraConfig(
        image_size=pair(lists["image_size"], "image_size"),
        in_channels=about["num_channels"],
        num_classes=classifier.shape[0] if classifier else 0,
        problem=read_problem(about, raw.origin),
        patch_kernel=square(lists["patch_size"], "patch_size", raw.origin),
        patch_stride=square(lists["patch_stride"], "patch_stride", raw.origin),
        width=about["embed_dim"],
        heads=heads[0],
        depths=tuple(depths),
        mlp_ratio=float(about["mlp_ratio"]),
        pooled_stages=about["num_query_pool"],
        mask_unit=square(lists["masked_unit_size"], "masked_unit_size", raw.origin),
        windowed_stages=windowed_stages(lists["masked_unit_attention"], "masked_unit_attention", raw.origin),
        pool_norm=f"{last}.weight" in raw.tensors,
        reordered=not levels,  # `HieraBackbone` leaves that out, up to version 5.23 at least
        level_norms=levels,
        activation=activation(about["hidden_act"], raw.origin),
        norm_epsilon=about["layer_norm_eps"],
    )
    check_padding(config, lists["patch_padding"], raw.origin)
    return config


def _claims(raw: RawCheckpoint) -> bool:
    return raw.documents.get("config.json", {}).get("model_type") == TYPE


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "what its config.json says")
    prefix = "hiera." if any(name.startswith("hiera.") for name in raw.tensors) else ""
    last = "encoder_norm" if "encoder_norm.weight" in raw.tensors else f"{prefix}pooler.layernorm"
    try:
        config = _config(raw, prefix, last)
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None
    processor = raw.documents.get("preprocessor_config.json")
    preprocessing, size = TRANSFORMERS, None
    if processor is not None:
        preprocessing, size = from_hf(processor, config.image_size)
    config = replace(config, preprocessing=preprocessing)
    if "decoder.decoder_pred.weight" in raw.tensors:
        whole = _with_decoder(raw, config)
        return raw, Layout(whole, mae_rules(whole), input_size=size)
    labels = class_names(raw.documents["config.json"], raw.origin) if config.num_classes else ()
    return raw, Layout(config, rules(config, prefix, last), input_size=size, class_names=labels)


READING = Reading("transformers' Hiera", _claims, _read)


def _with_decoder(raw: RawCheckpoint, encoder: HieraConfig) -> HieraMaeConfig:
    about = settings(_DECODER, raw.documents["config.json"], f"{raw.origin}: config.json")
    width = about["decoder_hidden_size"]
    try:
        return HieraMaeConfig(
            encoder, width, about["decoder_depth"], about["decoder_num_heads"], int(width * encoder.mlp_ratio)
        )
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None


def write_mae(config: HieraMaeConfig, params: Mapping[str, Any], labels: Sequence[str]) -> Written:
    """Return a masked autoencoder in transformers' words."""
    encoder = config.encoder
    about = {
        **_about(encoder, "HieraForPreTraining"),
        "decoder_hidden_size": config.decoder_width,
        "decoder_depth": config.decoder_depth,
        "decoder_num_heads": config.decoder_heads,
    }
    return Written(config, params, mae_rules(config), _documents(encoder, about))


def write(config: HieraConfig, params: Mapping[str, Any], labels: Sequence[str]) -> Written:
    """Return a Hiera in transformers' words.

    Raises:
      ConfigError: transformers has no such model.
    """
    if config.level_norms and (config.num_classes or config.pool_norm):
        raise ConfigError(
            "transformers' HieraBackbone has norms of its maps, but neither a head nor a norm after the mean; save it "
            "without: num_classes=0, pool_norm=False."
        )
    kind = "HieraForImageClassification" if config.num_classes else "HieraModel"
    about = _about(config, "HieraBackbone" if config.level_norms else kind)
    if config.num_classes:
        about |= {**label_names(config.num_classes, labels), **problem_type(config)}
    prefix = "hiera." if config.num_classes else ""
    return Written(
        config, params, rules(config, prefix, f"{prefix}pooler.layernorm"), _documents(config, about)
    )


def _about(config: HieraConfig, kind: str) -> dict[str, Any]:
    """Return the `config.json` of a model for one of transformers' classes."""
    if config.position != "learned" or config.shortcut != "project" or config.layer_scale is not None:
        raise ConfigError(
            "transformers has no Hiera with positions by mask unit, pooled shortcuts or layer scales; choose 'timm'."
        )
    count = len(config.depths)
    names = ["stem", *(f"stage{stage + 1}" for stage in range(count))]
    return {
        "architectures": [kind],
        "model_type": TYPE,
        "image_size": list(config.image_size),
        "num_channels": config.in_channels,
        "patch_size": [config.patch_kernel] * 2,
        "patch_stride": [config.patch_stride] * 2,
        "patch_padding": [config.patch_kernel // 2] * 2,
        "embed_dim": config.width,
        "embed_dim_multiplier": 2.0,
        "hidden_size": config.feature_width,
        "depths": list(config.depths),
        "num_heads": [config.heads * 2**stage for stage in range(count)],
        "mlp_ratio": config.mlp_ratio,
        "num_query_pool": config.pooled_stages,
        "query_stride": [2, 2],
        "masked_unit_size": [config.mask_unit] * 2,
        "masked_unit_attention": [stage < config.windowed_stages for stage in range(count)],
        "hidden_act": HIDDEN_ACTS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "stage_names": names,
        "out_features": [names[level] for level in config.level_norms] or names[-1:],
        "out_indices": list(config.level_norms) or [count],
        "dtype": "float32",
    }


def _documents(config: HieraConfig, about: dict[str, Any]) -> dict[str, Any]:
    processor = to_hf(config.preprocessing, config.image_size, "BitImageProcessor", config.in_channels)
    return {"config.json": about, "preprocessor_config.json": processor}
