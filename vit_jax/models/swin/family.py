"""The Swin Transformer, both versions, as a family. Needs no jax."""

from vit_jax.errors import ConfigError, choose
from vit_jax.models.family import LAYER_RULES, Family, Level, Names
from vit_jax.models.layers.encoder_config import RUNNING, replace
from vit_jax.models.staged import stage_names
from vit_jax.models.swin import arithmetic, names
from vit_jax.models.swin.config import SwinConfig

# What a call can return beside its output; stages, blocks and attention are counted: `blocks/5`, `stages/-1`.
CAPTURES = ("embedded", "stages", "blocks", "attention", "encoded", "pooled")


def levels(config: SwinConfig) -> tuple[Level, ...]:
    """Return the last map of each stage."""
    return tuple(
        Level(f"stages/{i}", config.stage_stride(i), config.stage_width(i), config.map_size(i))
        for i in range(len(config.depths))
    )


def maps(config: SwinConfig) -> list[Level]:
    """Return the map of patches, that after each block, and the last after its norm."""
    stages = [stage for stage, level in enumerate(levels(config)) for _ in range(config.depths[stage])]
    named = {"embedded": 0, **{f"blocks/{block}": stage for block, stage in enumerate(stages)}, "encoded": -1}
    return [replace(levels(config)[stage], name=name) for name, stage in named.items()]


def layer_of(config: SwinConfig, path: str, rule: str) -> int | range:
    """Return the layer of a parameter, counted over all stages, see `Family`; both rules agree but for the last norm.

    Raises:
      ConfigError: there is no such rule or parameter.
    """
    choose(rule, LAYER_RULES, "optimizer.layer_decay_rule")
    name, *rest = path.split("/")
    if name == "stages":
        stage = int(rest[0])
        first = sum(config.depths[:stage])
        return first if rest[1] == "merge" else range(first + 1, first + config.depths[stage] + 1)
    if name == "norm":
        return config.depth if rule == "timm" else config.depth + 1
    layers = {"patch_embed": 0, "mask_token": 0, "head": config.depth + 1}
    if name not in layers:
        raise ConfigError(
            f"parameter {path!r} belongs to no known layer; set optimizer.layer_decay=1 and no frozen_blocks."
        )
    return layers[name]


FAMILY = Family(
    name="swin",
    config=SwinConfig,
    module="vit_jax.models.swin.model:SwinTransformer",
    macs=arithmetic.macs,
    parameters=arithmetic.parameters,
    parts={"image": ""},
    names=Names(names.resolve, names.architectures, names.aliases, lambda: names.TAGS, names.others),
    levels=levels,
    maps=maps,
    depth=lambda config: config.depth,
    layer_of=layer_of,
    widest=lambda config: max(config.blocks(i).mlp_dim for i in range(len(config.depths))),
    per_image=lambda config: config.pool == "mean",
    headless=lambda config: replace(config, num_classes=0, pool="mean"),
    masked=lambda config, outputs: replace(config, num_classes=outputs, mask_token=True, pool="patches"),
    captures=CAPTURES,
    traced=lambda config: ("embedded", *stage_names(config), "encoded", "pooled"),
    rules=((r"(^|/)merge/reduction/kernel$", "fsdp"),),
    adaptation="vit_jax.models.swin.adaptation:ADAPTATION",
    running=RUNNING | {"bias_resample"},
    idle=lambda config: (
        frozenset() if config.num_classes and config.pool == "mean" else frozenset({"problem"})
    ),
)
