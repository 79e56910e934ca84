"""The plain Vision Transformer and its hybrids as a family. Needs no jax."""

from math import prod

from vit_jax.errors import ConfigError
from vit_jax.models.family import Budget, Explanation, Family, Level, Names
from vit_jax.models.layers.encoder_config import RUNNING, replace
from vit_jax.models.names import published, timm_names
from vit_jax.models.vit import arithmetic, names
from vit_jax.models.vit.config import ViTConfig
from vit_jax.models.vit.layer_numbers import layer_of

# What a call can return beside its output; `stem`, `blocks` and `attention` also take a layer: `attention/-1`.
CAPTURES = (
    "stem",
    "embedded",
    "blocks",
    "attention",
    "encoded",
    "pooled",
    "pre_logits",
    "class_logits",
    "distillation_logits",
)


def level(config: ViTConfig) -> Level:
    """Return the one map there is: `blocks/I` and `embedded` are like it."""
    return Level("encoded", config.token_stride, config.width, config.grid, config.prefix_tokens)


def maps(config: ViTConfig) -> list[Level]:
    """Return what the convolutions before the patches compute, which is finer, and each block's map, like the last."""
    found, (height, width) = [], config.image_size
    for layer, (_, channels, _) in enumerate(config.stem_layers):
        stride = prod(step for *_, step in config.stem_layers[: layer + 1])
        found.append(
            Level(f"stem/{layer}", (stride, stride), channels, (-(-height // stride), -(-width // stride)))
        )
    names = ("embedded", *(f"blocks/{layer}" for layer in range(config.depth)))
    return found + [replace(level(config), name=name) for name in names]


def detail(config: ViTConfig) -> Level | None:
    """Return what the convolutions before the patches compute of single pixels, if there are any."""
    strides = [stride for _, _, stride in config.stem_layers]
    layer = next((i for i, stride in enumerate(strides) if stride > 1), len(strides)) - 1
    return None if layer < 0 else Level(f"stem/{layer}", (1, 1), config.stem[layer], config.image_size)


def explanation(config: ViTConfig) -> Explanation:
    """Return the class token's attention in the last block, or the mean over all tokens where there is none."""
    return Explanation("attention/-1", level(config), 0 if config.class_token else None)


def any_size(config: ViTConfig) -> tuple[int, int] | None:
    """Return the size of a patch, so that nothing has to be padded, of a model that takes images of several sizes.

    Raises:
      ConfigError: its relative positions, or the tokens it merges, are made for one size at a time.
    """
    if config.dynamic_image_size and config.position_bias != "none":
        raise ConfigError(
            "the model takes images of several sizes, but its relative positions are made for one at a time; load "
            "it with dynamic_image_size=False to export it for its own size."
        )
    if config.dynamic_image_size and config.merge_tokens:
        raise ConfigError(
            "the model takes images of several sizes, but how many tokens it merges is made for one at a time; load it "
            "with dynamic_image_size=False to export it for its own size."
        )
    return config.token_stride if config.dynamic_image_size else None


def budget(config: ViTConfig) -> Budget | None:
    """Return the patches of images that keep their aspect ratio, of a model that takes such."""
    return Budget(config.max_patches, config.patch_size) if config.max_patches else None


def headless(config: ViTConfig) -> ViTConfig:
    """Return the encoder of one row of features: what is pooled, else the class token, else the patches' mean."""
    if config.pool not in ("none", "patches"):
        return replace(config, num_classes=0)
    return replace(config, num_classes=0, pool="cls" if config.class_token else "mean")


def masked(config: ViTConfig, outputs: int) -> ViTConfig:
    """Return the model with a mask token and outputs for each patch."""
    return replace(config, num_classes=outputs, mask_token=True, pool="patches", representation_size=0)


def patchwise(config: ViTConfig) -> ViTConfig:
    """Return the encoder of patches alone, each with its own position, which are pooled to their mean.

    Raises:
      ConfigError: its attention knows where patches are, or they are left out, merged, or of several sizes.
    """
    needed = {
        "rope": "none",
        "position_bias": "none",
        "patch_drop_rate": 0,
        "merge_tokens": (),
        "patch_sizes": (),
    }
    for field, value in needed.items():
        if getattr(config, field) != value:
            raise ConfigError(
                f"model.{field} is {getattr(config, field)!r}; an encoder that sees some patches alone needs {value!r}."
            )
    if config.position == "none":
        raise ConfigError(
            "model.position is 'none', so patches that are seen alone would not know where they are."
        )
    tokens = dict(class_token=False, distillation_token=False, register_tokens=0, mask_token=False)
    output = dict(num_classes=0, pool="mean", pool_norm="before", representation_size=0)
    return replace(config, **tokens, **output)


def _layer_of(config: ViTConfig, path: str, rule: str) -> int | range:
    return layer_of(path, config.depth, rule, norm_after_pool=config.pool_norm == "after")


def _idle(config: ViTConfig) -> frozenset[str]:
    classes = config.num_classes and config.pool not in ("patches", "none")
    activation = {"activation"} if config.mlp == "swiglu" else set()  # gated by SiLU, whatever it says
    return frozenset(activation if classes else activation | {"problem"})


def _two_heads(config: ViTConfig) -> tuple[str, str] | None:
    read = config.two_heads and config.pool == "cls" and config.num_classes
    return ("class_logits", "distillation_logits") if read else None


FAMILY = Family(
    name="vit",
    config=ViTConfig,
    module="vit_jax.models.vit.model:VisionTransformer",
    macs=arithmetic.macs,
    parameters=arithmetic.parameters,
    parts={"image": ""},
    names=Names(
        names.resolve, timm_names.architectures, names.aliases, published.timm_tags, published.others
    ),
    levels=lambda config: (level(config),),
    maps=maps,
    detail=detail,
    depth=lambda config: config.depth,
    layer_of=_layer_of,
    widest=lambda config: config.mlp_dim,
    per_image=lambda config: config.pool not in ("patches", "none"),
    any_size=any_size,
    budget=budget,
    headless=headless,
    head=("head", "head_norm", "head_distillation"),
    captures=CAPTURES,
    two_heads=_two_heads,
    traced=("embedded", "blocks", "encoded", "pooled", "pre_logits"),
    explain=explanation,
    drawn="patch_sizes",
    masked=masked,
    patchwise=patchwise,
    autoencoder="vit_jax.models.mae.config:AUTOENCODER",
    adaptation="vit_jax.models.vit.adaptation:ADAPTATION",
    running=RUNNING
    | {
        "patch_drop_rate", "patch_sizes", "head_bias_init", "dynamic_image_size", "dynamic_image_pad", "max_patches",
        "resample", "resample_antialias", "resample_offset", "load_resample", "load_antialias", "bias_resample",
    },
    idle=_idle,
)  # fmt: skip
